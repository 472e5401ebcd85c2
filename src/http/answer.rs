//! What a server answers that is not the one that is meant: the beginning of it, for people, and whose answer that is.

use reqwest::StatusCode;

use crate::config::secrets::Secret;

/// So many characters say what it is.
const SHOWN: usize = 120;
/// No server says who it is behind so many bytes.
const LOOKED_AT: usize = 64 << 10;

/// What no quotation may hold: credentials that were sent, which an echo would bring back.
#[derive(Debug, Clone, Default)]
pub struct Hidden(Vec<Secret>);

impl Hidden {
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Hidden {
        // What is shorter stands in any text.
        Hidden(secrets.into_iter().filter(|s| s.len() >= 4).map(Secret::new).collect())
    }

    fn is_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret.expose()))
    }
}

/// Who answers so, by what it is known by.
const KNOWN: [(&str, &str); 12] = [
    ("<title>Jaeger UI", "Jaeger"),
    ("<title>Prometheus", "Prometheus"),
    ("<title>Alertmanager", "Alertmanager"),
    ("<title>Grafana", "Grafana"),
    ("<title>Elastic", "Kibana"),
    ("OpenSearch Dashboards", "OpenSearch Dashboards"),
    ("The OpenSearch Project", "OpenSearch"),
    ("You Know, for Search", "Elasticsearch"),
    ("no handler found for uri", "Elasticsearch or OpenSearch"),
    ("Incorrect HTTP method for uri", "Elasticsearch or OpenSearch"),
    ("\"root_cause\":", "Elasticsearch or OpenSearch"),
    ("unsupported path requested", "VictoriaLogs or VictoriaMetrics"),
];

/// The server whose answer this looks like.
pub fn whose(content: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(&content[..content.len().min(LOOKED_AT)]);
    KNOWN.iter().find(|(sign, _)| text.contains(sign)).map(|(_, server)| *server)
}

/// The beginning of an answer on one line, of a page its title; nothing of what repeats what it was sent, or is no text.
pub fn quoted(content: &[u8], hidden: &Hidden) -> Option<String> {
    let text = std::str::from_utf8(content).ok()?;
    // Whatever docket sends of a decision has its id.
    if text.contains("decision_id") || hidden.is_in(text) {
        return None;
    }
    let lower: String = text.chars().take(LOOKED_AT).collect();
    let lower = lower.to_ascii_lowercase();
    if lower.trim_start().starts_with('<') && lower.contains("<html") {
        let title = lower.find("<title>").zip(lower.find("</title>"));
        let title = title.and_then(|(from, to)| text.get(from + "<title>".len()..to));
        return Some(match title.and_then(one_line) {
            Some(title) => format!("a page, {title}"),
            None => "a page".into(),
        });
    }
    one_line(text)
}

/// In quotation marks; none if there is nothing.
fn one_line(text: &str) -> Option<String> {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if let Some((end, _)) = line.char_indices().nth(SHOWN) {
            line.truncate(end);
            line.push_str("..");
            break;
        }
    }
    (!line.is_empty()).then(|| format!("\"{line}\""))
}

/// What is said behind a status that the right server would not have answered: what came with it, and what to think of.
pub fn stranger(content: &[u8], hidden: &Hidden) -> String {
    let said = quoted(content, hidden).map_or_else(String::new, |said| format!(": {said}"));
    match whose(content) {
        Some(server) => format!("{said}; that looks like {server}: is the address right?"),
        None => format!("{said}; is it another server's address?"),
    }
}

/// Refusals of what is asked for, whatever was sent. Others may quote decisions.
const OF_THE_ADDRESS: [&str; 3] =
    ["no handler found for uri", "Incorrect HTTP method for uri", "unsupported path requested"];

/// What a refusal says of the address, if it does.
pub fn of_address(refusal: &str) -> Option<String> {
    let is = OF_THE_ADDRESS.iter().any(|sign| refusal.contains(sign));
    is.then(|| stranger(refusal.as_bytes(), &Hidden::default()))
}

/// Whether an answer over HTTP may be that of an OTLP receiver. The specification wants 200 and a response message of type
/// application/x-protobuf. Some that take everything or nothing say it without a message, and then without a type: VictoriaLogs and
/// Prometheus by 200, Loki by 204.
pub fn is_otlp(status: StatusCode, kind: Option<&str>, content: &[u8]) -> bool {
    match (status.as_u16(), kind) {
        (200, Some("application/x-protobuf")) => true,
        (200 | 204, None) => content.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_quoted_on_one_line_and_a_page_by_its_title() {
        let quoted = |text: &str| quoted(text.as_bytes(), &Hidden::default());
        assert_eq!(quoted("404 page not found\n").as_deref(), Some("\"404 page not found\""));
        assert_eq!(quoted(" a\r\n\u{1b}[31m b").as_deref(), Some("\"a [31m b\""));
        let page = "<!doctype html>\n<html lang=\"en\">\n<head><TITLE>Jaeger UI</TITLE></head>";
        assert_eq!(quoted(page).as_deref(), Some("a page, \"Jaeger UI\""));
        assert_eq!(quoted("<html></html>").as_deref(), Some("a page"));
        let long = quoted(&"é".repeat(5000)).unwrap();
        assert!(long.chars().count() == SHOWN + 4 && long.ends_with("..\""), "{long}");
        assert_eq!(quoted(""), None);
        assert_eq!(super::quoted(b"\xff\xfe", &Hidden::default()), None);
    }

    #[test]
    fn what_was_sent_is_never_quoted() {
        let hidden = Hidden::new(["canary".to_owned(), "a".to_owned()]);
        assert_eq!(quoted(b"you sent Authorization: Bearer canary", &hidden), None);
        assert_eq!(quoted(br#"{"data":"{\"decision_id\":\"d1\",\"input\":..}"}"#, &hidden), None);
        assert_eq!(quoted(b"a page", &hidden).as_deref(), Some("\"a page\""));
        assert!(!format!("{hidden:?}").contains("canary"));
    }

    #[test]
    fn a_server_is_known_by_its_answer() {
        for (answer, server) in [
            ("<html><title>Jaeger UI</title>", "Jaeger"),
            (
                r#"{"error":"no handler found for uri [/loki/api/v1/push] and method [POST]"}"#,
                "OpenSearch",
            ),
            (
                r#"remoteAddr: "127.0.0.1:5"; unsupported path requested: "/v1/traces""#,
                "VictoriaLogs",
            ),
        ] {
            assert!(whose(answer.as_bytes()).unwrap().contains(server), "{answer}");
            let told = stranger(answer.as_bytes(), &Hidden::default());
            assert!(told.contains(server) && told.contains("address"), "{told}");
        }
        assert_eq!(stranger(b"", &Hidden::default()), "; is it another server's address?");
        assert_eq!(of_address("entry for stream '{service=\"x\"}' is too old"), None);
        assert!(of_address("unsupported path requested: \"/v1/traces\"").is_some());
    }
}
