//! Whether an Elasticsearch sink takes late matches: an index of that name, not an alias or a data stream, and a login that may update.

use reqwest::{Method, StatusCode};

use super::servers::{ask_as, unmade};
use super::{Check, Look, shown};
use crate::pipeline::Pipeline;
use crate::sink::config::SinkConfig;
use crate::sink::elasticsearch::config::ElasticsearchConfig;

/// A document that nobody has.
const NOBODYS: &str = "docket-doctor";
const OFF: &str = "or set amendments: false";

/// What is to be looked at of a sink that could have late matches.
pub fn look(pipeline: &Pipeline, name: &str, config: &SinkConfig) -> Option<Look> {
    let SinkConfig::Elasticsearch(elasticsearch) = config else { return None };
    if pipeline.file.join.is_none() || config.delivery().only_routed {
        return None;
    }
    let check = Check::new(format!("sink {name}, amendments"), shown(&elasticsearch.url));
    let (what, address) = (check.what.clone(), check.address.clone());
    let (amends, elasticsearch) = (config.amends(), elasticsearch.clone());
    Some(Look::new(what, address, async move {
        if amends {
            return amended(check, &elasticsearch).await;
        }
        let why = match elasticsearch.data_stream {
            true => "a data stream takes no updates",
            false => "amendments: false",
        };
        let says = format!("late matches are not added to documents: {why}; docket why has them");
        check.ok(says).into()
    }))
}

async fn amended(check: Check, config: &ElasticsearchConfig) -> super::Seen {
    let client = match config.client() {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let index = &config.index;
    let url = format!("{}/{index}", config.url.trim_end_matches('/'));
    let asked = client.request(Method::GET, &url);
    let about = match ask_as(client.hidden(), &check.what, &url, asked).await {
        Ok(answer) => answer,
        // What is wrong with the server is said of the sink.
        Err(_) => return super::Seen::default(),
    };
    match about.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            return check.ok(format!("the index {index} is not there yet")).into();
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let says = format!("who logs in may not see {index}, nor is it known what that is");
            let right = "give it view_index_metadata, or see to it that it is an index and may be updated (privilege index)";
            return check.warning(says, right).into();
        }
        // It is told of the sink, too.
        _ => return super::Seen::default(),
    }
    let of = about.json();
    let names: Vec<&String> = of.as_object().map(|all| all.keys().collect()).unwrap_or_default();
    if names.iter().any(|name| name.starts_with(".ds-")) {
        return is_stream(check, index).into();
    }
    if let Some(other) = names.iter().find(|name| **name != index) {
        let says = format!(
            "{index} is an alias: late matches are added only to documents in the index that it writes to (behind it: {other}; {} in all)",
            names.len()
        );
        return check.warning(says, format!("name an index, {OFF}")).into();
    }
    let url = format!("{url}/_update/{NOBODYS}");
    let request = client.request(Method::POST, &url);
    let request = request.header("content-type", "application/json").body(r#"{"doc":{}}"#);
    let answer = match ask_as(client.hidden(), &check.what, &url, request).await {
        Ok(answer) => answer,
        Err(failed) => return failed.told(check).into(),
    };
    match answer.status.as_u16() {
        // It may, and there is no such document.
        404 => check.ok("takes late matches").into(),
        401 | 403 => {
            let right = format!("give it the privilege index (create_doc does not do), {OFF}");
            let says = "who logs in may not update documents: late matches wait in Kafka";
            check.wrong(says, right).into()
        }
        400 if answer.text.contains("data stream") => is_stream(check, index).into(),
        _ => check.warning(answer.answers(), format!("see its log, {OFF}")).into(),
    }
}

fn is_stream(check: Check, index: &str) -> Check {
    let says = format!(
        "{index} is a data stream, which takes no updates: late matches wait in Kafka, for nothing"
    );
    check.wrong(says, "set data_stream: true, or amendments: false")
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::response::IntoResponse;

    use super::super::Level;
    use super::*;

    /// What is said where the server answers so to who asks for the index, and to who updates.
    async fn said(
        index: (StatusCode, &'static str),
        update: (StatusCode, &'static str),
        settings: &str,
    ) -> Option<Check> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let router = Router::new().fallback(move |request: Request| async move {
            if request.method() == Method::POST {
                assert!(request.uri().path().ends_with("/docket-decisions/_update/docket-doctor"));
                return update.into_response();
            }
            index.into_response()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let text = format!(
            "name: x\nkafka: {{brokers: k}}\nsources: [{{topic: t}}]\njoin: {{facts: [{{topic: f}}]}}\nsinks: {{s: {{type: elasticsearch, url: '{at}'{settings}}}}}\n"
        );
        let outside = &crate::config::secrets::Real;
        let pipeline = crate::pipeline::parse(std::path::Path::new("x"), &text, outside);
        let pipeline = pipeline.map_err(|e| e.to_string()).unwrap();
        let look = look(&pipeline, "s", &pipeline.file.sinks["s"]).unwrap();
        look.work.await.checks.pop()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_can_not_be_amended_is_told() {
        let ok = StatusCode::OK;
        let missing = (StatusCode::NOT_FOUND, r#"{"error":{"type":"document_missing_exception"}}"#);
        let own = (ok, r#"{"docket-decisions":{"aliases":{}}}"#);
        let forbidden = (StatusCode::FORBIDDEN, r#"{"error":{"type":"security_exception"}}"#);
        let stream = (
            StatusCode::BAD_REQUEST,
            r#"{"error":{"reason":"only write ops with an op_type of create are allowed in data streams"}}"#,
        );
        for (index, update, settings, level, words) in [
            (own, missing, "", Level::Ok, "takes late matches"),
            (missing, missing, "", Level::Ok, "not there yet"),
            (own, forbidden, "", Level::Wrong, "may not update"),
            (own, stream, "", Level::Wrong, "data stream"),
            (forbidden, missing, "", Level::Warning, "may not see"),
            ((ok, r#"{"docket-decisions-000002":{}}"#), missing, "", Level::Warning, "an alias"),
            (
                (ok, r#"{".ds-docket-decisions-2026.11.24-000001":{}}"#),
                missing,
                "",
                Level::Wrong,
                "data stream",
            ),
            (own, missing, ", data_stream: true", Level::Ok, "a data stream takes no updates"),
            (own, missing, ", amendments: false", Level::Ok, "not added"),
        ] {
            let check = said(index, update, settings).await.unwrap();
            assert!(check.level == level && check.says.contains(words), "{words}: {check:?}");
        }
        let down = said((StatusCode::BAD_GATEWAY, ""), missing, "").await;
        assert_eq!(down, None, "it is told of the sink");
    }
}
