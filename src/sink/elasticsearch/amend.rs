//! What a match that came late changes of a decision's document: an update with a part of it, so that the document is as if it had matched
//! in time. Never an upsert: a document without the decision would be a decision without its input.
//! <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>

use super::config::ElasticsearchConfig;
use super::encode::document_id_of;
use super::{Body, Elasticsearch};
use crate::correlate::record::{Amends, OPTIONAL};
use crate::decision::ids::push_hex;
use crate::decision::json::{self, push_string};
use crate::decision::record::Record;
use crate::http::client::HttpError;
use crate::sink::{Outcome, Sink};

/// Amends documents.
pub struct Amend {
    elasticsearch: Elasticsearch,
    /// Its name in the pipeline file, under which the join names its documents.
    name: String,
}

impl Amend {
    pub fn new(name: &str, config: &ElasticsearchConfig) -> Result<Amend, HttpError> {
        Ok(Amend { elasticsearch: Elasticsearch::new(config)?, name: name.to_owned() })
    }
}

impl Sink for Amend {
    type Body = Body;

    fn encode(&self, batch: &[Record<'_>]) -> Body {
        self.elasticsearch.body(updates(&self.name, batch))
    }

    fn size(body: &Body) -> usize {
        body.bytes.len()
    }

    async fn send(&self, body: &Body) -> Outcome {
        self.elasticsearch.bulk(body).await
    }
}

/// The body of a bulk request, not compressed yet, and what stands for the contents of its documents.
fn updates(sink: &str, batch: &[Record<'_>]) -> (Vec<u8>, Vec<String>) {
    let mut contents = Vec::with_capacity(batch.len());
    let mut out = Vec::with_capacity(batch.iter().map(|r| r.raw.len() + 64).sum());
    for record in batch {
        let amends = Amends::of(record);
        // Of one that says none there is no document, and that is what is answered.
        let content = amends.as_ref().and_then(|amends| amends.content(sink)).unwrap_or_default();
        out.extend_from_slice(b"{\"update\":{\"_id\":");
        push_string(&mut out, &document_id_of(&record.decision_id, &content));
        out.extend_from_slice(b",\"retry_on_conflict\":3}}\n{\"doc\":");
        part(record, amends.is_some_and(|amends| amends.replaces), &mut out);
        out.extend_from_slice(b"}\n");
        contents.push(content.into_owned());
    }
    (out, contents)
}

/// What the document has of it. Objects are merged, so what another match said and this one does not is said to be nothing.
fn part(record: &Record<'_>, replaces: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"docket\":{");
    let mut comma = false;
    for (name, optional) in [("request", &OPTIONAL[..]), ("match", &["key"][..])] {
        if let Some(value) = json::get(record.docket, name) {
            member(name, &mut comma, out);
            whole(value, if replaces { optional } else { &[] }, out);
        }
    }
    // A decision that had no trace is in that of its request, or in none.
    if !record.trace_from.is_empty() {
        for name in ["trace_id", "parent_span_id", "trace_from"] {
            let none = replaces.then_some("null");
            if let Some(value) = json::get(record.docket, name).or(none) {
                member(name, &mut comma, out);
                out.extend_from_slice(value.as_bytes());
            }
        }
        out.extend_from_slice(b"},\"trace\":{\"id\":\"");
        push_hex(out, &record.trace_id.to_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b"}}");
}

fn member(name: &str, comma: &mut bool, out: &mut Vec<u8>) {
    if std::mem::replace(comma, true) {
        out.push(b',');
    }
    out.extend_from_slice(format!("\"{name}\":").as_bytes());
}

/// An object, with `null` for each of these that it has not.
fn whole(object: &str, optional: &[&str], out: &mut Vec<u8>) {
    let absent = |name: &&&str| json::get(object, name).is_none();
    let Some(open) = object.strip_suffix('}') else { return out.extend_from_slice(b"null") };
    out.extend_from_slice(open.as_bytes());
    let mut comma = open.len() > 1;
    for name in optional.iter().filter(absent) {
        member(name, &mut comma, out);
        out.extend_from_slice(b"null");
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::correlate::record::{amendment, joined};
    use crate::correlate::{Asked, Class, Matched};
    use crate::decision::event::Event;
    use crate::decision::ids;
    use crate::decision::record::{Rules, write};
    use crate::decision::time;
    use crate::facts::{Fact, Kind, Packed, Status};
    use crate::http::failure::{Cause, Failure};
    use crate::protect::redact::{Redaction, pattern};
    use crate::sink::elasticsearch::{document, encode, read_answer};

    fn decision(more: &str) -> Vec<u8> {
        let decision = format!(
            r#"{{"decision_id":"d-1","timestamp":"2026-11-24T12:48:50Z","path":"a/allow","input":{{"secret":1}},"result":true{more}}}"#
        );
        let mut out = Vec::new();
        let event = Event::parse(decision.as_bytes()).unwrap();
        write(&event, &[], None, &Rules::default(), &mut out);
        out
    }

    fn fact(path: &str, user: &str) -> Vec<u8> {
        let at = time::parse("2026-11-24T12:48:50Z").unwrap();
        let fact = Fact {
            request_id: "r-1".into(),
            path: path.into(),
            user: user.into(),
            status: Status { http: Some(200), grpc: None },
            trace: ids::trace_id("4bf92f3577b34da6a3ce929d0e0e4736"),
            span: ids::span_id("00f067aa0ba902b7"),
            ..Fact::new(Kind::Access, at, at + 1_500_000)
        };
        let mut bytes = Vec::new();
        fact.pack(&mut bytes);
        bytes
    }

    /// As the server merges it.
    fn merge(into: &mut Value, part: Value) {
        match (into, part) {
            (Value::Object(into), Value::Object(part)) => {
                for (name, value) in part {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
            (into, part) => *into = part,
        }
    }

    fn update(sink: &str, told: &[u8]) -> (Value, Value) {
        let (body, _) = updates(sink, &[Record::parse(told).unwrap()]);
        let text = String::from_utf8(body).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (lines.next().unwrap(), lines.next().unwrap())
    }

    fn documented(record: &[u8]) -> Value {
        let mut out = Vec::new();
        document(&Record::parse(record).unwrap(), &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn an_amended_document_is_as_if_it_had_matched_in_time() {
        let traced = format!(r#","trace_id":"{}","span_id":"00f067aa0ba902b8""#, "a".repeat(32));
        for more in ["", &traced] {
            let bytes = decision(more);
            let decided = Record::parse(&bytes).unwrap();
            let asked = Asked { contents: [decided.content()].into(), ..Asked::of(&decided) };
            let fact = fact("/a", "");
            let matched = Matched { class: Class::RequestId, fact: Packed::of(&fact) };
            let told = amendment(&asked, &matched, false, &["es".to_owned()]);
            let (action, part) = update("es", &told);
            let id = encode::document_id(&decided);
            assert_eq!(action, json!({ "update": { "_id": id, "retry_on_conflict": 3 } }));
            assert!(part.get("upsert").is_none() && part.get("doc_as_upsert").is_none());
            let mut document = documented(&bytes);
            merge(&mut document, part["doc"].clone());
            let mut in_time = Vec::new();
            joined(&decided, Some(&matched), false, &mut in_time);
            assert_eq!(document, documented(&in_time), "{more}");
        }
    }

    #[test]
    fn nothing_of_the_match_before_is_left_in_the_document() {
        let bytes = decision("");
        let decided = Record::parse(&bytes).unwrap();
        let asked = Asked::of(&decided);
        let (before, after) = (fact("/a", "bob"), fact("/b", ""));
        let before = Matched { class: Class::Likely, fact: Packed::of(&before) };
        let after = Matched { class: Class::RequestId, fact: Packed::of(&after) };
        let mut document = Vec::new();
        joined(&decided, Some(&before), false, &mut document);
        let mut document = documented(&document);
        merge(&mut document, update("es", &amendment(&asked, &after, true, &[])).1["doc"].clone());
        let request = &document["docket"]["request"];
        assert_eq!((&request["path"], &request["user"]), (&json!("/b"), &Value::Null));
        assert_eq!(document["docket"]["match"]["key"], "r-1");
    }

    #[test]
    fn what_a_sink_does_not_get_it_does_not_get_later_either() {
        let bytes = decision("");
        let redaction = |paths: &[&str]| Redaction::new(paths.iter().map(|p| pattern(p).unwrap()));
        let secrets = redaction(&["/input/secret", "/docket/request/user"]);
        // The document's ID is of what the sink gets.
        let redacted = secrets.apply(&bytes);
        let redacted = Record::parse(&redacted).unwrap();
        let asked = Asked::of(&Record::parse(&bytes).unwrap());
        let asked = Asked { contents: [redacted.content()].into(), ..asked };
        let fact = fact("/a", "bob");
        let matched = Matched { class: Class::RequestId, fact: Packed::of(&fact) };
        let told = amendment(&asked, &matched, false, &["es".to_owned()]);
        let (action, part) = update("es", &secrets.apply(&told));
        assert_eq!(action["update"]["_id"], encode::document_id(&redacted));
        assert_eq!(part["doc"]["docket"]["request"]["path"], "/a");
        assert!(!part.to_string().contains("bob"), "{part}");
        let (_, part) = update("es", &redaction(&["/docket/match/key"]).apply(&told));
        assert_eq!(part["doc"]["docket"]["match"], json!({ "class": "request_id" }));
        let (_, part) = update("es", &redaction(&["/docket/request"]).apply(&told));
        assert_eq!(part["doc"]["docket"]["match"]["class"], "request_id");
        assert!(!part.to_string().contains("/a"), "{part}");
    }

    #[test]
    fn the_answer_to_an_update_is_read_item_by_item() {
        let one = |item: &str, errors: bool| {
            let answer = format!(r#"{{"errors":{errors},"items":[{{"update":{item}}}]}}"#);
            match read_answer(answer.as_bytes(), &[String::new()]) {
                Some(Outcome::Changed(mut each)) => each.remove(0),
                Some(Outcome::Delivered) => Ok(true),
                other => panic!("{other:?}"),
            }
        };
        let shards = |n: u32| format!(r#""_shards":{{"total":2,"successful":{n},"failed":0}}"#);
        let updated = format!(r#"{{"status":200,"result":"updated",{}}}"#, shards(1));
        assert_eq!(one(&updated, false), Ok(true));
        let noop = format!(r#"{{"status":200,"result":"noop",{}}}"#, shards(0));
        assert_eq!(one(&noop, false), Ok(true), "it says all that already");
        let failed = |status: u16, kind: &str, reason: &str| {
            let error = json!({ "status": status, "error": { "type": kind, "reason": reason } });
            one(&error.to_string(), true)
        };
        let cause = |failed: Result<bool, Failure>| match failed {
            Err(Failure::Retry(retry)) => retry.cause,
            other => panic!("{other:?}"),
        };
        let missing = failed(404, "document_missing_exception", "[d-1]: document missing");
        assert_eq!(missing, Ok(false));
        let gone = failed(404, "index_not_found_exception", "no such index [x]");
        assert_eq!(cause(gone), Cause::Misconfigured);
        let conflict = failed(409, "version_conflict_engine_exception", "[d-1]: version conflict");
        assert_eq!(cause(conflict), Cause::Throttled);
        assert_eq!(cause(failed(429, "es_rejected_execution_exception", "x")), Cause::Throttled);
        assert_eq!(cause(failed(403, "security_exception", "x")), Cause::Credentials);
        let stream = "only write ops with an op_type of create are allowed in data streams";
        assert_eq!(cause(failed(400, "illegal_argument_exception", stream)), Cause::Misconfigured);
        let refused = failed(400, "document_parsing_exception", "failed to parse field");
        assert!(matches!(refused, Err(Failure::Refused(_))));
    }
}
