//! What the index would refuse, left out; what it takes, unchanged; the whole, as text.

use serde_json::{Value, json};

use super::{cut, fits, has_long_number};
use crate::decision::event::Event;
use crate::decision::json::check;
use crate::decision::record::{self, Record, Rules};
use crate::sink::elasticsearch::document;

const BASE: &str = r#""decision_id":"d1","path":"a/allow","timestamp":"2026-11-24T12:48:50Z""#;

fn written(doc: &str) -> Vec<u8> {
    let mut raw = Vec::new();
    let event = Event::parse(doc.as_bytes()).unwrap();
    record::write(&event, &[], None, &Rules::default(), &mut raw);
    raw
}

fn documented(raw: &[u8]) -> String {
    let mut out = Vec::new();
    document(&Record::parse(raw).unwrap(), &mut out);
    check(&out).unwrap();
    assert!(!out.contains(&b'\n'));
    String::from_utf8(out).unwrap()
}

/// The document of a decision with these members beside the usual ones; its text is checked and taken out.
fn left(members: &str) -> Value {
    let raw = written(&format!("{{{BASE},\n{members}}}"));
    assert!(!fits(&Record::parse(&raw).unwrap()), "{members:.80}");
    let mut doc: Value = serde_json::from_str(&documented(&raw)).unwrap();
    let text = doc["event"].as_object_mut().unwrap().remove("original").expect("its text");
    assert_eq!(text.as_str().unwrap().as_bytes(), raw);
    doc
}

fn whole(members: &str) -> String {
    let doc = documented(&written(&format!("{{{BASE},{members}}}")));
    assert!(!doc.contains(r#""original":"#), "{doc:.300}");
    doc
}

#[test]
fn what_an_index_takes_stands_as_it_is() {
    let long = "x".repeat(31_000);
    for members in [
        r#""input":{"a":[1,"x",null,{"b":[]},[[1,[2]]],{},1e999,-1E+999,123456789012345678901234567890]}"#,
        r#""input":{"a":1,"a.b":2,"..":3," ":4},"custom":{"":1,".":{"a..b":2}},"mine":[1,"2",{"c":null}]"#,
        r#""input":null,"labels":{"a":"b"},"erased":["/a","/b"],"masked":null,"req_id":null"#,
        r#""input":{"text":"\u0000"},"metrics":{"timer_server_handler_ns":5,"other":"6"},"req_id":-7"#,
        &format!(r#""input":{{"a":"{long}","b":"{long}"}},"query":"{long}""#),
        &format!(r#""input":{{"digits":"{}"}}"#, "7".repeat(2000)),
        &format!(r#""input":{}1{}"#, r#"{"a":"#.repeat(126), "}".repeat(126)),
    ] {
        assert!(whole(members).contains(members), "{members:.80}");
    }
}

#[test]
fn what_would_refuse_the_document_is_left_out_and_the_rest_stands() {
    let long = "x".repeat(40_000);
    let digits = "9".repeat(1200);
    for (members, name, wanted) in [
        (format!(r#""input":{{"a":1,"b":"{long}","c":["{long}",2]}}"#), "input", json!({"a":1,"c":[2]})),
        (format!(r#""input":{{"a":1,"{long}":{{"b":2}}}}"#), "input", json!({"a":1})),
        (format!(r#""input":{{"a":{digits},"b":[0.{digits},3],"c":1e{digits}}}"#), "input", json!({"b":[3]})),
        (format!(r#""input":"{long}","result":{{"allow":true}}"#), "input", Value::Null),
        (format!(r#""result":"{long}","input":[1,{{"":2,"b":3}}]"#), "input", json!({"value":[1,{"b":3}]})),
        (r#""input":{"":1,"b":{"":{"c":1},"d":2}}"#.into(), "input", json!({"b":{"d":2}})),
        (r#""input":{"" : 1,"b":""}"#.into(), "input", json!({"b":""})),
        (r#""input":{"a\u0000b":1,"c":"\u0000"}"#.into(), "input", json!({"c":"\0"})),
        (format!(r#""labels":{{"a":"{long}","b":"c"}}"#), "labels", json!({"b":"c"})),
        (format!(r#""mine":{{"a":"{long}","{long}":1,"b":{digits}}}"#), "mine", json!({"a":long})),
        (format!(r#""mine":{digits}"#), "mine", Value::Null),
        (format!(r#""query":"{long}""#), "query", Value::Null),
        (format!(r#""erased":["/a",{{"b":1}},["c"],"{long}"]"#), "erased", json!(["/a"])),
        (r#""req_id":18446744073709551615"#.into(), "req_id", Value::Null),
        (r#""req_id":1e999"#.into(), "req_id", Value::Null),
        (
            r#""metrics":{"timer_server_handler_ns":"x","timer_rego_query_eval_ns":{"a":1},"mine":2,"a.b":3,"":4}"#.into(),
            "metrics",
            json!({"mine":2}),
        ),
        (r#""metrics":{"timer_server_handler_ns":18446744073709551615}"#.into(), "metrics", json!({})),
        (r#""":1"#.into(), "", Value::Null),
        (r#"" \t":1"#.into(), " \t", Value::Null),
        (r#""docket.verdict":"allow""#.into(), "docket.verdict", Value::Null),
        (r#""input.user":"forged","input":{"a":1}"#.into(), "input.user", Value::Null),
        (r#""_id":"x","_source":{}"#.into(), "_id", Value::Null),
        (r#""\u005fid":"x""#.into(), "_id", Value::Null),
        (r#""finding":"mine""#.into(), "finding", Value::Null),
    ] {
        let doc = left(&members);
        assert_eq!(doc[name], wanted, "{members:.80}");
        assert_eq!((&doc["path"], &doc["decision_id"]), (&json!("a/allow"), &json!("d1")));
        assert!(doc["docket"]["verdict"].is_string());
    }
}

#[test]
fn ecs_names_are_dockets() {
    for name in ["event", "trace", "span", "service", "rule"] {
        for value in [r#""mine""#, "5", "null", r#"{"name":{"id":1}}"#, "[1]"] {
            let doc = left(&format!("\"{name}\":{value}"));
            assert!(doc["event"]["kind"] == "event" && doc["service"]["name"] == "opa", "{doc}");
            assert!(doc["trace"]["id"].is_string() && doc["rule"]["name"] == "a/allow", "{doc}");
        }
    }
}

#[test]
fn what_is_derived_is_cut() {
    let long = "é".repeat(20_000);
    let doc = left(&format!(
        r#""labels":{{"app":"{long}","id":"{long}"}},"bundles":{{"{long}":{{"revision":"r"}}}}"#
    ));
    for cut in [
        &doc["docket"]["service"]["name"],
        &doc["docket"]["service"]["instance_id"],
        &doc["service"]["name"],
        &doc["service"]["node"]["name"],
        &doc["rule"]["ruleset"],
    ] {
        assert_eq!(cut.as_str().unwrap(), "é".repeat(4000));
    }
    assert_eq!(cut("short"), "short");
}

#[test]
fn timestamps_that_the_index_cannot_read_stand_in_the_text_only() {
    let doc = |timestamp: &str| format!(r#"{{"decision_id":"d1","timestamp":"{timestamp}"}}"#);
    for good in [
        "2026-11-24T12:48:50Z",
        "2026-11-24T12:48:50.1Z",
        "1999-11-24T12:48:50.123456789+02:00",
        "2026-11-24T12:48:50-00:00",
        "2261-11-24T12:48:50-17:59",
    ] {
        assert!(documented(&written(&doc(good))).starts_with(doc(good).trim_end_matches('}')));
    }
    for odd in [
        "2026-11-24 12:48:50Z",
        "2026-11-24t12:48:50Z",
        "2026-11-24T12:48:50z",
        "2026-11-24T12:48:50.1234567891Z",
        "2016-12-31T23:59:60Z",
        "0001-01-01T00:00:00Z",
        "1969-12-31T00:00:00Z",
        "9999-12-31T00:00:00Z",
        "2026-11-24T12:48:50+23:59",
        "2026-11-24T12:48:5\\u0030Z",
    ] {
        let raw = written(&doc(odd));
        let told: Value = serde_json::from_str(&documented(&raw)).unwrap();
        assert_eq!(told["timestamp"], Value::Null, "{odd}");
        assert!(told["@timestamp"].is_string());
        assert_eq!(told["event"]["original"].as_str().unwrap().as_bytes(), raw);
    }
}

#[test]
fn a_number_that_is_too_long_is_seen_wherever_it_stands() {
    for before in (0..2000).step_by(37) {
        let text = format!("{}{}]", "x".repeat(before), "1".repeat(1001));
        assert!(has_long_number(text.as_bytes()), "{before}");
        let text = format!("{}{}]", "x".repeat(before), "1".repeat(800));
        assert!(!has_long_number(text.as_bytes()), "{before}");
    }
}
