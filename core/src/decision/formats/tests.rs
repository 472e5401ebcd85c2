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

fn envelope(members: &[(&str, &str)]) -> String {
    let members: serde_json::Map<_, _> =
        members.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
    serde_json::Value::Object(members).to_string()
}

/// The ids of decisions, and what else there was.
fn told(value: impl AsRef<[u8]>) -> Vec<String> {
    let mut told = pieces(value.as_ref());
    told.iter_mut().for_each(|piece| {
        if !piece.starts_with("reject") && !piece.starts_with("ignored") {
            piece.truncate(piece.find(' ').unwrap_or(piece.len()));
        }
    });
    told
}

#[test]
fn two_decisions_of_one_id_are_two_and_a_copy_is_none() {
    let other = ONE.replace("true", "false");
    assert_eq!(told(envelope(&[("log", ONE), ("message", &other)])), ["d1", "d1"]);
    assert_eq!(
        told(envelope(&[("log", &format!("{ONE}\n{other}")), ("message", &other)])),
        ["d1", "d1"]
    );
    for copy in [
        ONE.to_owned(),
        CONSOLE.to_owned(),
        ONE.replace("true", "true, \"error\": null")
            .replace("\"path\":\"a/allow\",", "")
            .replace("\"d1\"", "\"d1\", \"path\" : \"a\\/allow\""),
        ONE.replace("50Z", "50.000Z"),
    ] {
        assert_eq!(told(envelope(&[("log", ONE), ("event", &copy)])), ["d1"], "{copy}");
        let object = format!(r#"{{"log":{},"parsed":{copy}}}"#, serde_json::json!(ONE));
        assert_eq!(told(object), ["d1"], "{copy}");
    }
    let with = |input: &str| ONE.replace("\"result\"", &format!("\"input\":{input},\"result\""));
    let beside =
        |a: &str, b: &str| told(envelope(&[("log", &with(a)), ("message", &with(b))])).len();
    assert_eq!(beside(r#"{"a":1.0,"b":[-0,1e3],"c":null}"#, r#"{"b":[0,1000],"a":1}"#), 1);
    assert_eq!(beside("9007199254740993", "9007199254740992.0"), 1);
    for (a, b) in [
        ("1", "2"),
        ("[1,2]", "[2,1]"),
        ("\"1\"", "1"),
        ("{}", "[]"),
        ("1e999", "1e998"),
        ("{\"a\":\"\"}", "{}"),
    ] {
        assert_eq!(beside(a, b), 2, "{a} {b}");
    }
    // A line of two, one of which can't be read: that one is not passed over for its neighbour's sake.
    let broken = &TWO[..TWO.len() - 3];
    assert_eq!(
        told(envelope(&[("log", ONE), ("message", &format!("{ONE}\n{broken}"))])),
        ["d1", "reject not_json"]
    );
    // What can't be read is a copy only if it has the id, not letters of it.
    let short = ONE.replace("d1", "a");
    assert_eq!(told(envelope(&[("log", &short), ("message", broken)])), ["a", "reject not_json"]);
    assert_eq!(told(envelope(&[("log", ONE), ("message", &ONE[..ONE.len() - 3])])), ["d1"]);
}

fn pretty(decision: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(decision).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn objects_are_whole_again_whose_lines_came_one_by_one() {
    let one = pretty(&ONE.replace("true", r#"{"allow":true,"why":["a {","b"]}"#));
    let two = pretty(TWO);
    let behind = |text: &str, prefix: &str| -> Vec<String> {
        text.lines()
            .enumerate()
            .map(|(n, line)| format!("{}{line}", prefix.replace('%', &(n * 7).to_string())))
            .collect()
    };
    for prefix in [
        "[pod/opa-0/opa] ",
        "opa-1  | ",
        "opa-0 opa \u{203a} ",
        "[pod/opa-0/opa] 2026-11-24T12:48:50.%Z ",
        "2026-11-24T12:48:50.%Z ",
        "2026-11-24T12:48:50Z {app=\"opa\", a=\"{\\\"b\\\": 1}\"} ",
        "{app=\"opa\"} ",
        "<14>1 2026-11-24T12:48:50.%Z node opa 17 - - ",
        "2026-11-24T12:48:50.%Z stdout F ",
    ] {
        let text = behind(&one, prefix).join("\n");
        assert_eq!(told(&text), ["d1"], "{text}");
        let both = [behind(&one, prefix), behind(&two, prefix)].concat().join("\r\n");
        assert_eq!(told(&both), ["d1", "d2"], "{both}");
        let array = behind(&pretty(&format!("[{one},{two}]")), prefix).join("\n");
        assert_eq!(told(&array), ["d1", "d2"], "{array}");
        // Its end is missing: one reject.
        let cut = behind(&one, prefix);
        let cut = cut[..cut.len() - 2].join("\n");
        assert_eq!(told(&cut), ["reject not_json"], "{cut}");
    }
    // Two containers at once.
    let (a, b) = (behind(&one, "opa-1  | "), behind(&two, "opa-2  | "));
    let mixed: Vec<String> = a.iter().zip(&b).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    let rest = &a[b.len().min(a.len())..];
    assert_eq!(told([mixed, rest.to_vec()].concat().join("\n")), ["d2", "d1"]);
    // What only looks like it.
    assert_eq!(
        told("opa-1 | main {\nopa-1 |   x\nopa-1 | }\n"),
        ["reject not_json", "ignored text", "ignored text"]
    );
    assert_eq!(
        told(format!("opa-1 | main {{\nopa-1 |   \"x\"\n{ONE}")),
        ["d1", "ignored text", "ignored text"]
    );
}

#[test]
fn objects_are_whole_again_whose_lines_agents_collected_one_by_one() {
    let (one, two) = (pretty(ONE), pretty(TWO));
    let line = |text: &str, stream: &str, n: usize| {
        let time = format!("2026-11-24T12:48:50.{n}Z");
        format!(
            "{}\n",
            envelope(&[("log", &format!("{text}\n")), ("stream", stream), ("time", &time)])
        )
    };
    let lines = |text: &str, stream: &str| -> Vec<String> {
        text.lines().enumerate().map(|(n, text)| line(text, stream, n)).collect()
    };
    assert_eq!(told(lines(&one, "stdout").concat()), ["d1"]);
    let mixed: Vec<String> = lines(&one, "stdout")
        .into_iter()
        .zip(lines(&two, "stderr"))
        .flat_map(|(a, b)| [a, b])
        .collect();
    assert_eq!(told(mixed.concat()), ["d1", "d2"]);
    // A line of another making between two, and one that lost its end.
    let half = lines(&one, "stdout")[..4].concat();
    let all = format!(
        "{half}{}{}",
        line(r#"{"level":"info","msg":"x"}"#, "stdout", 1),
        lines(&two, "stdout").concat()
    );
    assert_eq!(told(all), ["ignored opa_log", "d2", "reject not_json"]);
    let words = ["{", "  \"a\": 1", "}"].map(|text| line(text, "stdout", 0)).concat();
    assert_eq!(told(words), ["ignored json"]);
    assert_eq!(
        told(["main {", "x"].map(|text| line(text, "stdout", 0)).concat()),
        ["ignored text", "ignored text"]
    );
    // CRI's lines, and the Collector's records.
    let cri: String = one
        .lines()
        .map(|l| format!("2026-11-24T12:48:50.1Z stdout F {l}\n2026-11-24T12:48:50.1Z stderr F\n"))
        .collect();
    assert_eq!(told(cri), ["d1", "ignored blank"]);
    let mut request = otlp();
    let record = |line: &str| LogRecord { body: text(line), ..LogRecord::default() };
    request.resource_logs[0].scope_logs[0].log_records = one.lines().map(record).collect();
    assert_eq!(told(request.encode_to_vec()), ["d1"]);
}

#[test]
fn names_stand_once_in_otlp_attributes() {
    let kv = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: text(value),
        ..Default::default()
    };
    let of = |attributes: Vec<KeyValue>, body: Option<AnyValue>| {
        let mut request = otlp();
        request.resource_logs[0].scope_logs[0].log_records =
            vec![LogRecord { attributes, body, ..LogRecord::default() }];
        told(request.encode_to_vec())
    };
    let decision =
        || vec![kv("decision_id", "d1"), kv("timestamp", "2026-11-24T12:48:50Z"), kv("path", "a")];
    let twice = || [decision(), vec![kv("path", "b")]].concat();
    let list = |values| Some(AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) });
    assert_eq!(of(decision(), None), ["d1"]);
    assert_eq!(of(twice(), None), ["reject duplicate_key"]);
    assert_eq!(of(twice(), text(ONE)), ["reject duplicate_key"]);
    assert_eq!(of(vec![], list(twice())), ["reject duplicate_key"]);
    assert_eq!(of(vec![kv("a", "1"), kv("a", "2")], text(ONE)), ["reject duplicate_key"]);
    // The decision is in the attributes, and its message is the body; the message alone tells of one that is lost.
    assert_eq!(of(decision(), text("Decision Log")), ["d1"]);
    assert_eq!(of(vec![], text("Decision Log")), ["reject not_json"]);
    assert_eq!(of(vec![kv("opa", ONE)], text("Decision Log\n")), ["d1"]);
    assert_eq!(told(format!(r#"{{"message":"Decision Log","opa":{ONE}}}"#)), ["d1"]);
    assert_eq!(
        told(format!(r#"{{"message":"Decision Log","opa":{}}}"#, &ONE.replace("50Z", "x"))),
        ["reject bad_timestamp"]
    );
}

#[test]
fn a_decision_on_a_line_of_others() {
    let quoted = serde_json::to_string(ONE).unwrap();
    for line in [
        format!(
            r#"2026-11-24T12:48:50Z {{app="opa", re="a{{2}}", say="\"{{\\\"a\\\":1}}\""}} {ONE}"#
        ),
        format!(r#"{{app="opa", re="x\"}} {{", y="{{\"decision_id\":\"x\"}}"}} {ONE}"#),
        format!("2026-11-24T12:48:50Z {{}} {ONE}"),
        format!("level=info ts=1 msg=\"a, b\" decision={quoted} caller=x.go:1"),
        format!("level=info decision={quoted}"),
        format!("level=info decision={quoted}, caller=x.go:1"),
        format!("decision={} a=b", serde_json::to_string(&pretty(ONE)).unwrap()),
        format!("ts=1 msg={} a=\"{{}}\"", serde_json::to_string(&format!("got {ONE}")).unwrap()),
        format!(r#"{{"a":1}} {ONE}"#),
        format!(r#"{ONE} {{"a":1}}"#),
        format!(r#"[{{"a":1}}] {ONE}"#),
        format!("[1,2] {ONE}"),
        format!("[17] {ONE} [18]"),
        format!("\"x\" {ONE}"),
        format!(r#"{{"a":1}} said {ONE}"#),
        format!("{quoted} {{\"a\":1}}"),
    ] {
        let mut all = told(&line);
        all.retain(|piece| !piece.starts_with("ignored"));
        assert_eq!(all, ["d1"], "{line}");
    }
    // Objects by themselves are judged by themselves.
    assert_eq!(told(r#"{"a":1} {"b":2}"#), ["reject missing_decision_id"; 2]);
    assert_eq!(told(format!("{{\"a\":1}}\n{ONE}")), ["reject missing_decision_id", "d1"]);
    assert_eq!(
        told(format!("[{{\"a\":1}}, {ONE}, {{\"a\":1}}]")),
        ["reject missing_decision_id", "d1", "reject missing_decision_id"]
    );
    assert_eq!(
        told(format!("{{\"labels\":{{}},\"input\":1}} {ONE}")),
        ["reject missing_decision_id", "d1"]
    );
    // A string that is no value of a pair.
    assert_eq!(told(format!("a {quoted}:1")), ["reject not_json"]);
    assert_eq!(told(format!("{{app=\"opa\", line={quoted}}} x")), ["reject not_json"]);
}

#[test]
fn so_many_rejects_of_a_record_and_how_many_more() {
    let all = |value: &str| {
        let mut all = Vec::new();
        split(value.as_bytes(), Format::Auto, &Limits::default(), &mut |piece| match piece {
            Piece::Reject { bytes, reject } => all.push((bytes.into_owned(), reject)),
            other => panic!("{other:?}"),
        });
        all
    };
    let quotes = all(&"\"".repeat(200_000));
    assert!(quotes.len() <= MAX_REJECTS + 1, "{}", quotes.len());
    let objects = all(&"{\"decision_id\":1}\n".repeat(1_500));
    assert_eq!(objects.len(), MAX_REJECTS + 1);
    let (bytes, reject) = &objects[MAX_REJECTS];
    assert_eq!(reject.reason, Reason::WrongType);
    assert!(reject.detail.starts_with("500 more rejects"), "{reject}");
    assert_eq!(bytes.len() + 1, "{\"decision_id\":1}\n".len() * 500);
    // What it keeps can be read again, to the same end.
    assert_eq!(all(std::str::from_utf8(bytes).unwrap()).len(), 500);
    assert_eq!(all(&"{\"decision_id\":1}".repeat(MAX_REJECTS)).len(), MAX_REJECTS);
}

#[test]
fn tags_of_container_runtimes() {
    let prefix = "2026-11-24T12:48:50.123456789Z stdout";
    assert_eq!(
        told(format!("{prefix} F\n{prefix} F {ONE}\n{prefix} F\r\n{prefix} F:x {TWO}")),
        ["d1", "d2"]
    );
    assert_eq!(
        told(format!("{prefix} P {}\n{prefix} P\n{prefix} F {}", &ONE[..40], &ONE[40..])),
        ["d1"]
    );
    assert_eq!(told(format!("{prefix} F")), ["ignored blank"]);
    assert_eq!(told(format!("{prefix} Failed {ONE}")), ["d1"]);
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
