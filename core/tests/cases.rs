//! What real programs and platforms write, case by case, with what is right for each. The inputs are in
//! `data/cases`, made after public reports; each stands for its kind.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use docket_core::decision::formats::{Format, Limits};
use docket_core::decision::record::Record;
use docket_core::protect::record::Rules;
use docket_core::transform::{Product, Source, transform};

/// What becomes of each piece: `id verdict`, `reject reason` or `ignored kind`; with `trace`, where a
/// decision's trace was found too.
fn pieces(value: &[u8], trace: bool) -> Vec<String> {
    let mut all = Vec::new();
    let source = Source { value, headers: &[], format: Format::Auto, envelope: None };
    transform(
        source,
        &Limits::default(),
        &Rules::default(),
        &mut Vec::new(),
        &|_| None,
        &mut |_, product| {
            all.push(match product {
                Product::Ignored(what) => format!("ignored {}", what.as_str()),
                Product::Dropped => "dropped".to_owned(),
                Product::Reject { reject, .. } => format!("reject {}", reject.reason.as_str()),
                Product::Docket { made, bytes } => {
                    let record = Record::parse(bytes).unwrap();
                    if !trace {
                        format!("{} {}", record.decision_id, record.verdict.as_str())
                    } else if record.trace_from == "none" {
                        format!(
                            "{} none, {} malformed",
                            record.decision_id, made.written.malformed_ids
                        )
                    } else {
                        let parent = record.parent_span_id.map(|span| span.to_string());
                        format!(
                            "{} {} {} {}, {} malformed",
                            record.decision_id,
                            record.trace_id,
                            parent.as_deref().unwrap_or("-"),
                            record.trace_from,
                            made.written.malformed_ids
                        )
                    }
                }
            });
        },
    );
    all
}

fn input(name: &str) -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases/");
    std::fs::read(format!("{root}{name}")).unwrap()
}

/// A file as one record, and each of its lines as one.
fn both(name: &str, trace: bool) -> [Vec<String>; 2] {
    let bytes = input(name);
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    [pieces(&bytes, trace), lines.flat_map(|line| pieces(line, trace)).collect()]
}

#[test]
fn decisions_are_found_in_what_agents_and_platforms_write() {
    // Kind, input, what is right.
    let cases: [(&str, &str, &[&str]); 9] = [
        (
            "an envelope with members named as a decision's",
            "01-filebeat/in.ndjson",
            &["case-fb-0 allow", "case-fb-1 deny", "case-fb-2 allow", "case-fb-3 deny"],
        ),
        (
            "an error that means undefined",
            "05-undefined/in.ndjson",
            &[
                "case-sdk-undef undefined",
                "case-v0-undef undefined",
                "case-v1-undef undefined",
                "case-real-error error",
                "case-envoy-null undefined",
            ],
        ),
        ("a byte order mark", "06-bom/in.ndjson", &["case-bom-1 allow", "case-bom-2 allow"]),
        (
            "objects with nothing between them",
            "07-concatenated/in.json",
            &[
                "case-fh-0 allow",
                "case-fh-1 allow",
                "case-fh-2 deny",
                "case-fh-3 allow",
                "case-fh-4 allow",
            ],
        ),
        (
            "odd JSON",
            "12-json/in.ndjson",
            &[
                "reject not_json",
                "j-nul allow",
                "j-1e999 allow",
                "j-bigint allow",
                "reject not_json",
                "reject duplicate_key",
                "reject invalid_utf8",
                "j-deep allow",
                "j-emptykey allow",
                "j-ok allow",
            ],
        ),
        (
            "a prefix before the decision",
            "14-opal/agent.ndjson",
            &["case-opal-1 deny", "case-opal-2 allow", "ignored text"],
        ),
        ("a JSON string that holds the record", "15-otel-raw/one.json", &["case-raw-3 allow"]),
        (
            "result shapes",
            "13-verdicts/in.ndjson",
            &[
                "case-v-k8s deny",
                "case-v-envoy-obj deny",
                "case-v-candig allow",
                "case-v-permit deny",
                "case-v-conftest deny",
                "case-v-violation deny",
                "case-v-violations-obj deny",
                "case-v-deny-obj deny",
                "case-v-deny-str deny",
                "case-v-trino-batch undefined",
                "case-v-authzen allow",
                "case-v-authzen-batch undefined",
                "case-v-allow-deny deny",
                "case-v-wrapped deny",
                "case-v-topaz allow",
                "case-v-is deny",
                "case-v-empty undefined",
                "case-v-deny-false allow",
                "case-v-pkg deny",
                "case-v-deny-path-obj deny",
            ],
        ),
        ("logrus's lines", "04-text-format/logrus.log", &["reject text_format"]),
    ];
    for (kind, name, right) in cases {
        let [whole, lines] = both(name, false);
        assert_eq!(whole, right, "{kind}: {name} as one record");
        assert_eq!(lines, right, "{kind}: {name}, a record a line");
    }
}

#[test]
fn split_lines_are_one_decision_and_a_bracket_is_no_array() {
    assert_eq!(
        pieces(&input("02-docker-split/in.log"), false),
        ["case-split-1 allow", "case-split-2 allow"]
    );
    assert_eq!(
        pieces(&input("17-bracket/in.log"), false),
        ["case-br-1 allow", "case-br-2 allow", "case-br-3 allow", "ignored text"]
    );
}

#[test]
fn opas_console_pretty_and_as_text() {
    let found = pieces(&input("03-json-pretty/real-opa.log"), false);
    let decisions: Vec<&String> = found.iter().filter(|p| *p != "ignored opa_log").collect();
    assert_eq!(found.len(), 20);
    assert_eq!(
        decisions,
        [
            "1c8db831-1737-4565-8399-afcfd925d934 allow",
            "8dc9d18c-7a0d-4e62-a026-d26bdb5058e1 undefined",
            "ef3e6780-8dde-4333-9172-d25eb4a3c636 undefined",
            "4e0d59c7-9c3d-4c12-86f0-72cf7b1ea41e deny",
        ]
    );
    let found = pieces(&input("04-text-format/real-opa.log"), false);
    let count = |what: &str| found.iter().filter(|p| *p == what).count();
    assert_eq!((count("reject text_format"), count("ignored opa_log"), found.len()), (4, 16, 20));
}

#[test]
fn trace_contexts_are_read_as_their_specifications_say() {
    const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const X: &str = "5759e988bd862e3fe1be46a994272793";
    const NONE: &str = "none";
    let right = |id: &str, trace: &str, parent: &str, malformed: u32| match trace {
        NONE => format!("{id} none, {malformed} malformed"),
        _ => format!("{id} {trace} {parent} input, {malformed} malformed"),
    };
    let xray = [
        right("case-x-full", X, "53995c3f42cd8ad8", 0),
        right("case-x-self", X, "-", 0),
        right("case-x-lineage", X, "53995c3f42cd8ad8", 0),
        right("case-x-zero", "0000000000000000795bf8769fe8b9c0", "7a339e56d8f86bb1", 0),
        right("case-x-noparent", X, "-", 0),
        right("case-x-emptyparent", X, "-", 0),
        right("case-x-plain", NONE, "-", 1),
        right("case-x-badparent", X, "-", 1),
        right("case-x-space", X, "53995c3f42cd8ad8", 0),
    ];
    let [whole, lines] = both("08-xray/in.ndjson", true);
    assert_eq!(whole, xray);
    assert_eq!(lines, xray);
    const S: &str = "00f067aa0ba902b7";
    let context = |text: String| text.replace(" input,", " request_context,");
    let headers = [
        right("case-u-enc", T, S, 0),
        right("case-u-short", "00000000000000000795bf8769fe8b9c", S, 0),
        right("case-u-double", T, S, 0),
        right("case-b3-upper", T, S, 0),
        right("case-b3-d", T, S, 0),
        right("case-b3-deny", NONE, "-", 0),
        right("case-b3-short", "0000000000000000463ac35c9f6413ad", S, 0),
        right("case-tp-01", T, S, 0),
        right("case-tp-ff", NONE, "-", 1),
        right("case-tp-ws", T, S, 0),
        right("case-tp-two", T, S, 1),
        context(right("case-tp-list", T, S, 1)),
        context(right("case-tp-list-bad-first", T, S, 0)),
        right("case-tp-case-dup", T, S, 1),
        right("case-b3-multi-upper", T, S, 0),
        right("case-b3-no-span", NONE, "-", 1),
        right("case-hdrmap", T, S, 0),
    ];
    let [whole, lines] = both("09-headers/in.ndjson", true);
    assert_eq!(whole, headers);
    assert_eq!(lines, headers);
}

/// Records that say something of their own, and what is right of them.
#[test]
fn records_one_by_one() {
    let at = r#""timestamp":"2026-11-24T12:48:50Z""#;
    for (record, right) in [
        (format!(r#"{{"decision_id":"two mails as keys","path":"a","result":true,{at},"input":{{"members":{{"ann@example.com":1,"bob@example.com":2}}}}}}"#), "two mails as keys allow"),
        (format!(r#"{{"decision_id":"partial object","path":"k8s","result":{{"deny":{{"x":"msg"}}}},{at}}}"#), "partial object deny"),
        (format!(r#"{{"decision_id":"error, empty","path":"a","error":{{}},{at}}}"#), "error, empty error"),
        (format!(r#"{{"decision_id":"compile","path":"filters/include","result":{{"query":"WHERE 1=1"}},"custom":{{"type":"open-policy-agent/compile"}},{at}}}"#), "compile undefined"),
        (r#"{"decision_id":"ten digits","result":true,"timestamp":"2026-11-24T12:48:50.1234567891Z"}"#.to_owned(), "ten digits allow"),
        (r#"{"decision_id":"lower","result":true,"timestamp":"2026-11-24t12:48:50z"}"#.to_owned(), "lower allow"),
        (r#"{"decision_id":"space","result":true,"timestamp":"2026-11-24 12:48:50+02:00"}"#.to_owned(), "space allow"),
        (r#"{"decision_id":"unknown offset","result":true,"timestamp":"2026-11-24T12:48:50-00:00"}"#.to_owned(), "unknown offset allow"),
        (r#"{"decision_id":"Go's zero","result":true,"timestamp":"0001-01-01T00:00:00Z"}"#.to_owned(), "Go's zero allow"),
        // A copy of the line beside it, and the same line once more as a string.
        (format!(r#"{{"message":"{{\"decision_id\":\"m\",\"timestamp\":\"2026-11-24T12:48:50Z\",\"result\":true}}","event":{{"original":"{{\"decision_id\":\"m\",\"timestamp\":\"2026-11-24T12:48:50Z\",\"result\":true}}"}},{at}}}"#), "m allow"),
        // Names that mean something elsewhere.
        (r#"{"decision_id":"x","message":"{\"decision_id\":\"n\",\"timestamp\":\"2026-11-24T12:48:50Z\",\"result\":false}"}"#.to_owned(), "n deny"),
        (r#"{"decision_id":"x","message":"hello"}"#.to_owned(), "reject missing_timestamp"),
        (r#"{"level":"info","msg":"decision","decision_xd":"x","labels":{},"result":true}"#.to_owned(), "reject missing_decision_id"),
        (r#"{"level":"debug","msg":"Returning policy decision.","decision-id":"x","query":"data.a","result":true,"metrics":{}}"#.to_owned(), "ignored opa_log"),
        (r#"{"level":"info","msg":"Starting decision logger.","plugin":"decision_logs"}"#.to_owned(), "ignored opa_log"),
        (r#"{"log":"2026 [warn] {\"decision_id\":\"x\",\"resu\n","stream":"stdout"}"#.to_owned(), "reject not_json"),
        (r#"{"log":"tail\":{\"decision_id\":\"forged\",\"timestamp\":\"2026-11-24T12:48:50Z\",\"result\":true}}\n"}"#.to_owned(), "reject not_json"),
        (r#"{"log":"[INFO] Decision Log\n"}"#.to_owned(), "reject text_format"),
        (r#"{"log":"  decision_id = \"x\"\n"}"#.to_owned(), "reject text_format"),
        (r#"{"log":"  \"decision_id\": \"x\",\n"}"#.to_owned(), "reject not_json"),
        (r#"{"log":"{\n"}"#.to_owned(), "ignored text"),
        (r#"{"log":"{\"foo\":1}\n"}"#.to_owned(), "ignored json"),
        (r#"{"log":"got {\"foo\":1} back\n"}"#.to_owned(), "ignored text"),
    ] {
        assert_eq!(pieces(record.as_bytes(), false), [right], "{record}");
    }
}

#[test]
fn utf_16_is_read_by_its_mark() {
    let text = r#"{"decision_id":"ü","timestamp":"2026-11-24T12:48:50Z","result":true}"#;
    let little: Vec<u8> =
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> =
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    assert_eq!(pieces(&little, false), ["ü allow"]);
    assert_eq!(pieces(&big, false), ["ü allow"]);
}

#[test]
fn a_source_may_name_the_member() {
    let line = |id: &str| {
        format!(r#"{{\"decision_id\":\"{id}\",\"timestamp\":\"2026-11-24T12:48:50Z\"}}"#)
    };
    let value = format!(r#"{{"a":"{}","b":"{}"}}"#, line("1"), line("2"));
    let found = |envelope| {
        let mut ids = Vec::new();
        let source =
            Source { value: value.as_bytes(), headers: &[], format: Format::Auto, envelope };
        transform(
            source,
            &Limits::default(),
            &Rules::default(),
            &mut Vec::new(),
            &|_| None,
            &mut |_, product| {
                if let Product::Docket { made, .. } = product {
                    ids.push(made.written.key);
                }
            },
        );
        ids
    };
    assert_eq!(found(None), ["1", "2"]);
    assert_eq!(found(Some("b")), ["2"]);
    assert_eq!(found(Some("elsewhere")), ["1", "2"]);
}
