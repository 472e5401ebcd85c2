//! What producers really write, format by format.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, KeyValueList, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::*;

const ONE: &str =
    r#"{"decision_id":"d1","path":"a/allow","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
const TWO: &str =
    r#"{"decision_id":"d2","path":"a/allow","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
const CONSOLE: &str = r#"{"level":"info","msg":"Decision Log","time":"2026-11-24T12:48:50Z","decision_id":"d1","path":"a/allow","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;

/// Each piece in a word: the decision's id and what its agent said, or the reject's reason.
fn pieces(value: &[u8]) -> Vec<String> {
    pieces_as(value, Format::Auto)
}

fn pieces_as(value: &[u8], format: Format) -> Vec<String> {
    let mut all = Vec::new();
    let limits = Limits { decision: 10_000, record: 1_000_000, ..Limits::default() };
    split(value, format, &limits, &mut |piece| {
        all.push(match piece {
            Piece::Ignored(what) => format!("ignored {}", what.as_str()),
            Piece::Reject { reject, .. } => format!("reject {}", reject.reason.as_str()),
            Piece::Decision { event, agent } => {
                if let Some(agent) = &agent {
                    json::check(agent.json.as_bytes()).unwrap();
                }
                format!(
                    "{}{}",
                    event.decision_id,
                    agent.map(|a| format!(" {}", a.json)).unwrap_or_default()
                )
            }
        });
    });
    all
}

fn gzip(text: &[u8]) -> Vec<u8> {
    crate::gzip::gzip(text)
}

#[test]
fn opa_and_eopa_write_one_an_array_or_lines_gzipped_or_not() {
    let pretty = ONE.replace(',', ",\n  ");
    for (value, wanted) in [
        (ONE.to_owned(), vec!["d1"]),
        (pretty, vec!["d1"]),
        (format!("[{ONE},{TWO}]"), vec!["d1", "d2"]),
        (format!(" [ {ONE} ,\n {TWO} ] \n"), vec!["d1", "d2"]),
        (format!("{ONE}\n{TWO}\n"), vec!["d1", "d2"]),
        (format!("{ONE}\r\n\r\n{TWO}"), vec!["d1", "d2"]),
        ("[]".to_owned(), vec![]),
        (format!(r#"{{"event":{ONE}}}"#), vec!["d1 {}"]),
    ] {
        assert_eq!(pieces(value.as_bytes()), wanted, "{value}");
        assert_eq!(pieces(&gzip(value.as_bytes())), wanted, "gzipped {value}");
    }
    let mut members = gzip(format!("{ONE}\n").as_bytes());
    members.extend(gzip(TWO.as_bytes()));
    assert_eq!(pieces(&members), ["d1", "d2"]);
}

#[test]
fn one_bad_element_does_not_take_the_others_along() {
    assert_eq!(
        pieces(format!("[{ONE},{{\"decision_id\":}},{TWO}]").as_bytes()),
        ["d1", "reject not_json", "d2"]
    );
    assert_eq!(pieces(format!("[{ONE},17,{TWO}]").as_bytes()), ["d1", "reject wrong_type", "d2"]);
    assert_eq!(
        pieces(format!("[{ONE},{{\"path\":\"x\"}},{TWO}]").as_bytes()),
        ["d1", "reject missing_decision_id", "d2"]
    );
    assert_eq!(pieces(format!("[{ONE},{TWO}").as_bytes()), ["d1", "d2", "reject not_json"]);
    assert_eq!(pieces(format!("[{ONE},{}", &TWO[..30]).as_bytes()), ["d1", "reject not_json"]);
    assert_eq!(pieces(format!("[{ONE}]x").as_bytes()), ["d1", "ignored text"]);
    assert_eq!(pieces(format!("[{ONE} {TWO}]").as_bytes()), ["d1", "d2"]);
    // A quote that is lost, and bytes that are no text: the next element begins as this one does.
    let bad = ONE.replacen("a/allow\"", "a/allow", 1);
    assert_eq!(pieces(format!("[{ONE},{bad},{TWO}]").as_bytes()), ["d1", "reject not_json", "d2"]);
    let mut bytes = format!("[{ONE},{ONE},{TWO}]").into_bytes();
    bytes[ONE.len() + 20] = 0xff;
    assert_eq!(pieces(&bytes), ["d1", "reject invalid_utf8", "d2"]);
    assert_eq!(pieces(format!("{ONE}\n{{bad\n{TWO}").as_bytes()), ["d1", "reject not_json", "d2"]);
}

#[test]
fn opas_console_and_its_other_lines() {
    assert_eq!(pieces(CONSOLE.as_bytes()), ["d1"]);
    assert_eq!(pieces(br#"{"level":"info","msg":"Initializing server.","time":"2026-11-24T12:48:50Z","addrs":[":8181"]}"#), ["ignored opa_log"]);
    assert_eq!(
        pieces(br#"{"client_addr":"1.2.3.4","level":"info","msg":"Received request.","req_id":1}"#),
        ["ignored opa_log"]
    );
    assert_eq!(
        pieces(br#"time="2026-11-24T12:48:50Z" level=info msg="Initializing server.""#),
        ["ignored opa_log"]
    );
}

#[test]
fn node_agents_wrap_the_line_and_their_metadata_is_kept() {
    let line = serde_json::to_string(&format!("{CONSOLE}\n")).unwrap();
    let kubernetes = r#""kubernetes":{"pod_name":"opa-0"}"#;
    assert_eq!(
        pieces(format!(r#"{{"log":{line},"stream":"stdout",{kubernetes}}}"#).as_bytes()),
        [format!(r#"d1 {{"stream":"stdout",{kubernetes}}}"#)]
    );
    assert_eq!(
        pieces(format!(r#"{{"message":{line},{kubernetes}}}"#).as_bytes()),
        [format!("d1 {{{kubernetes}}}")]
    );
    assert_eq!(
        pieces(format!(r#"{{"log":{CONSOLE},{kubernetes}}}"#).as_bytes()),
        [format!("d1 {{{kubernetes}}}")]
    );
    // Fluent Bit with Merge_Log puts the decision's members beside its own.
    let merged = format!("{},\"log\":{line},{kubernetes}}}", &CONSOLE[..CONSOLE.len() - 1]);
    assert_eq!(pieces(merged.as_bytes()), ["d1"]);
    let nested = serde_json::to_string(&format!(r#"{{"message":{line},"a":1}}"#)).unwrap();
    assert_eq!(
        pieces(format!(r#"{{"log":{nested},"b":2}}"#).as_bytes()),
        [r#"d1 {"a":1,"outer":{"b":2}}"#]
    );
    assert_eq!(pieces(br#"{"log":"\n","stream":"stdout"}"#), ["ignored blank"]);
    // What else a program prints is no decision gone wrong; a decision that was cut is.
    assert_eq!(pieces(br#"{"log":"panic: oh no\n","stream":"stderr"}"#), ["ignored text"]);
    assert_eq!(
        pieces(br#"{"log":"{\"decision_id\":\"d1\",\"resu\n","stream":"stdout"}"#),
        ["reject not_json"]
    );
}

#[test]
fn container_runtimes_prefix_and_split_lines() {
    let prefix = "2026-11-24T12:48:50.123456789Z stdout";
    assert_eq!(pieces(format!("{prefix} F {CONSOLE}").as_bytes()), ["d1"]);
    assert_eq!(
        pieces(
            format!(
                "{prefix} P {}\n{prefix} F {}\n{prefix} F {TWO}",
                &CONSOLE[..50],
                &CONSOLE[50..]
            )
            .as_bytes()
        ),
        ["d1", "d2"]
    );
    assert_eq!(pieces(format!("{prefix} P {}", &CONSOLE[..50]).as_bytes()), ["reject not_json"]);
    assert_eq!(
        pieces(format!("{prefix} F Flag --x has been deprecated").as_bytes()),
        ["ignored text"]
    );
    let line = serde_json::to_string(&format!("{prefix} F {CONSOLE}")).unwrap();
    assert_eq!(pieces(format!(r#"{{"log":{line}}}"#).as_bytes()), ["d1 {}"]);
}

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) })
}

fn otlp() -> ExportLogsServiceRequest {
    let kv = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: text(value),
        ..Default::default()
    };
    let structured = Value::KvlistValue(KeyValueList {
        values: vec![
            kv("decision_id", "d2"),
            kv("timestamp", "2026-11-24T12:48:50Z"),
            kv("path", "a/allow"),
        ],
    });
    let record = |body| LogRecord {
        body,
        attributes: vec![kv("log.file.name", "opa.log")],
        ..Default::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![kv("k8s.pod.name", "opa-0")],
                ..Default::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: vec![
                    record(text(CONSOLE)),
                    record(Some(AnyValue { value: Some(structured) })),
                    record(None),
                ],
                ..Default::default()
            }],
            schema_url: String::new(),
        }],
    }
}

#[test]
fn the_collector_writes_otlp_logs_as_protobuf_or_json() {
    let agent = r#"{"resource":{"k8s.pod.name":"opa-0"},"attributes":{"log.file.name":"opa.log"}}"#;
    let wanted = [format!("d1 {agent}"), format!("d2 {agent}"), "reject empty".to_owned()];
    let protobuf = otlp().encode_to_vec();
    assert_eq!(pieces(&protobuf), wanted);
    assert_eq!(pieces_as(&protobuf, Format::OtlpProto), wanted);
    assert_eq!(pieces(&serde_json::to_vec(&otlp()).unwrap()), wanted);
    assert_eq!(pieces_as(b"\xff\xff", Format::OtlpProto), ["reject bad_otlp"]);
    assert_eq!(pieces(br#"{"resourceLogs":7}"#), ["reject bad_otlp"]);
}

/// Collectors from before scopeLogs had their name, and what only looks like OTLP.
#[test]
fn what_is_otlp_of_another_form_is_an_envelope_like_others() {
    let line = serde_json::json!(r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z"}"#);
    let record = serde_json::json!([{"body": {"stringValue": line}}]);
    for whole in [
        serde_json::json!({"resourceLogs": [{"instrumentationLibraryLogs": [{"logRecords": record}]}]}),
        serde_json::json!({"resourceLogs": [{"scopeLogs": [{"logs": record}]}]}),
        serde_json::json!({"resourceLogs": [], "x": line}),
    ] {
        let told = pieces(whole.to_string().as_bytes());
        assert!(told.len() == 1 && told[0].starts_with("d1"), "{whole}: {told:?}");
    }
    assert_eq!(pieces(br#"{"resourceLogs":[]}"#), [""; 0]);
}

#[test]
fn what_is_no_decision_is_rejected_with_a_reason() {
    assert_eq!(pieces(b""), ["reject empty"]);
    assert_eq!(pieces(b"   \n"), ["reject empty"]);
    assert_eq!(pieces(b"hello"), ["reject not_json"]);
    assert_eq!(pieces(b"\xff\xfe\x00"), ["reject invalid_utf8"]);
    assert_eq!(pieces(&gzip(ONE.as_bytes())[..40]), ["reject bad_gzip"]);
    assert_eq!(pieces(b"\x1f\x8bnot gzip"), ["reject bad_gzip"]);
    assert_eq!(pieces(&gzip(&vec![b' '; 2_000_000])), ["reject too_large"]);
    assert_eq!(
        pieces(ONE.replace("true", &format!("\"{}\"", "x".repeat(20_000))).as_bytes()),
        ["reject too_large"]
    );
    assert_eq!(
        pieces(ONE.replace("true", &("[".repeat(300) + &"]".repeat(300))).as_bytes()),
        ["reject too_deep"]
    );
    assert_eq!(
        pieces(ONE.replace("true", r#"{"a":1,"a":2}"#).as_bytes()),
        ["reject duplicate_key"]
    );
    let mut nested = ONE.as_bytes().to_vec();
    for _ in 0..20 {
        nested = gzip(&nested);
    }
    assert_eq!(pieces(&nested), ["reject too_deep"]);
    let bytes: Vec<u8> = ONE.bytes().map(|b| if b == b'a' { 0xff } else { b }).collect();
    assert_eq!(pieces(&bytes), ["reject invalid_utf8"]);
}

#[test]
fn lines_that_are_cut_do_not_take_others_along() {
    for cut in ["{\"a\":{\"b\":1", "{\"a\":[", "{\"a\":\"x", "{\"a\":1,", "{\"a\"", "[{\"a\":[1,2"]
    {
        let lines = format!("{ONE}\n{cut}\n{TWO}\n").repeat(200);
        let found = pieces(lines.as_bytes());
        let count = |what: &str| found.iter().filter(|piece| *piece == what).count();
        assert_eq!((count("d1"), count("d2")), (200, 200), "{cut}");
        assert!(count("reject not_json") >= 200, "{cut}");
    }
}

/// What is written to be slow is given up before long.
#[test]
fn nothing_is_looked_at_too_often() {
    const SOME: usize = 60_000;
    for piece in [
        "{",
        "[",
        "{\"a\":",
        "[{\"a\":[",
        "x{",
        "x{\\\"",
        "x\"{\\\"",
        "{\"a\":[1,{\"a\":x,",
        "[\"a\",\n",
        "{\"a\":[\n",
        "x {\"a\":1} ",
        "{\"log\":\"{\\\"a\\\"\",\"partial_message\":\"true\",\"partial_id\":\"0\"}\n",
        "2026-11-24T12:48:50Z stdout P x\n",
        "{\"a\":\"decision_id\",\"b\":\"decision_id\"}",
    ] {
        let text = piece.repeat(SOME / piece.len());
        let long = text.repeat(4);
        let time = |text: &str| {
            let mut pieces = 0u64;
            let limits = Limits::default();
            split(text.as_bytes(), Format::Auto, &limits, &mut |_| pieces += 1);
            pieces
        };
        assert!(time(&text) > 0 || piece == "[", "{piece}");
        time(&long);
    }
}

proptest::proptest! {
    /// Whatever a producer sends ends somewhere, without a panic.
    #[test]
    fn no_bytes_are_lost_or_fatal(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        proptest::prop_assert!(!pieces(&bytes).is_empty() || json::trim(&bytes).starts_with(b"["));
    }

    #[test]
    fn damaged_arrays_still_account_for_each_element(at in 0usize..300, byte in proptest::prelude::any::<u8>()) {
        let mut value = format!("[{ONE},{TWO},{ONE}]").into_bytes();
        let at = at % value.len();
        value[at] = byte;
        proptest::prop_assert!(!pieces(&value).is_empty());
    }
}
