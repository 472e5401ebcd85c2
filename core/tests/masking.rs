//! What is taken out at one place is taken out at all, and what is left is a record that docket reads.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic)]

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docket_core::decision::event::Event;
use docket_core::decision::formats::{Format, Limits};
use docket_core::protect::Protection;
use docket_core::protect::detect::{Act, Detect};
use docket_core::protect::keys::{self, Key};
use docket_core::protect::record::Rules;
use docket_core::protect::rules::{Action, Pattern, Rule};
use docket_core::protect::{detector, redact};
use docket_core::transform::{Product, Source, transform};
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

fn rule(path: &str, action: Action) -> Rule {
    Rule { path: Pattern::parse(path).unwrap(), policy: None, action }
}

fn erasing(paths: &[&str]) -> Arc<Protection> {
    Arc::new(Protection {
        rules: paths.iter().map(|path| rule(path, Action::Erase)).collect(),
        ..Protection::default()
    })
}

fn detecting() -> Arc<Protection> {
    static ALL: LazyLock<Arc<Protection>> = LazyLock::new(|| {
        Arc::new(Protection {
            detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
            ..Protection::default()
        })
    });
    ALL.clone()
}

/// The one docket record of a topic's record.
fn record(value: &Value, protection: &Arc<Protection>) -> Value {
    let rules = Rules { protection: Some(protection.clone()), ..Rules::default() };
    let value = value.to_string();
    let source =
        Source { value: value.as_bytes(), headers: &[], format: Format::Auto, envelope: None };
    let mut records = Vec::new();
    transform(source, &Limits::default(), &rules, &mut Vec::new(), &|_| None, &mut |_, product| {
        if let Product::Docket { bytes, .. } = product {
            records.push(serde_json::from_slice(bytes).unwrap());
        }
    });
    assert_eq!(records.len(), 1, "{value}");
    records.remove(0)
}

fn decision(input: &Value) -> Value {
    json!({"decision_id": "d-1", "path": "a/b", "result": true, "timestamp": "2026-11-24T12:48:50Z", "input": input})
}

#[test]
fn copies_that_are_objects_keep_no_short_value() {
    let input = json!({"pin": "1234", "user": {"tier": "b7", "n": 7, "vip": true}, "codes": ["x1", "y2"], "method": "GET"});
    for (path, copy, left) in [
        (
            "/input/pin",
            json!({"pin": "1234", "method": "GET"}),
            json!({"pin": "[erased:rule]", "method": "GET"}),
        ),
        (
            "/input/pin",
            json!({"deep": [{"pin": 1234}, {"pin": "12345"}]}),
            json!({"deep": [{"pin": "[erased:rule]"}, {"pin": "12345"}]}),
        ),
        (
            "/input/pin",
            json!({"body": "{\"pin\":\"1234\"}"}),
            json!({"body": "{\"pin\":\"[erased:rule]\"}"}),
        ),
        (
            "/input/pin",
            json!({"line": "a=1 pin=1234 b=2"}),
            json!({"line": "a=1 pin=[erased:rule] b=2"}),
        ),
        (
            "/input/pin",
            json!({"cut": "..\"pin\": \"1234\", \"m"}),
            json!({"cut": "..\"pin\": \"[erased:rule]\", \"m"}),
        ),
        (
            "/input/user",
            json!({"user": {"vip": true, "n": 7, "tier": "b7"}}),
            json!({"user": "[erased:rule]"}),
        ),
        (
            "/input/user",
            json!({"tier": "b7", "n": 7, "vip": true, "other": 7}),
            json!({"tier": "[erased:rule]", "n": "[erased:rule]", "vip": "[erased:rule]", "other": 7}),
        ),
        (
            "/input/user/vip",
            json!({"vip": true, "up": true}),
            json!({"vip": "[erased:rule]", "up": true}),
        ),
        ("/input/codes", json!({"codes": ["z3", "y2"]}), json!({"codes": ["z3", "[erased:rule]"]})),
        (
            "/input/codes/1",
            json!({"codes": ["z3", "y2"]}),
            json!({"codes": ["z3", "[erased:rule]"]}),
        ),
    ] {
        let mut whole = decision(&input);
        whole["parsed"] = copy.clone();
        let protection = erasing(&[path]);
        assert_eq!(record(&whole, &protection)["parsed"], left, "{path}");
        // The same in what an agent wrapped around it.
        let around = json!({"log": decision(&input).to_string(), "parsed": copy});
        assert_eq!(record(&around, &protection)["docket"]["agent"]["parsed"], left, "{path}");
    }
}

/// What stands in OPA's own members may be something else that only has the same value.
#[test]
fn other_members_keep_what_is_not_a_copy() {
    let mut whole = decision(&json!({"user": {"n": 7, "ok": true}, "pin": "1234"}));
    whole["result"] = json!({"n": 7, "ok": true, "count": 1234, "pin": "1234"});
    let record = record(&whole, &erasing(&["/input/user", "/input/pin"]));
    assert_eq!(
        record["result"],
        json!({"n": 7, "ok": true, "count": 1234, "pin": "[erased:rule]"})
    );
}

#[test]
fn secrets_of_six_characters_are_gone_in_every_encoding() {
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    for secret in ["hunte7", "hunter2", "s3cr-t", "pa55w0rd"] {
        for (i, around) in [("", ""), ("x", ""), ("ab", "c"), ("u:", "\n"), ("\u{1}", "\u{2}")]
            .into_iter()
            .enumerate()
        {
            let plain = format!("{}{secret}{}", around.0, around.1);
            let encoded = STANDARD.encode(&plain);
            let input = json!({
                "password": secret,
                "padded": encoded,
                "bare": encoded.trim_end_matches('='),
                "path": format!("/files/{}/x", hex(&plain)),
                "upper": hex(&plain).to_uppercase(),
                "seen": {secret: 1, format!("user {secret}"): {format!("{secret}-{i}"): []}},
            });
            let mut whole = decision(&input);
            whole[format!("by {secret}")] = json!(1);
            let text = record(&whole, &detecting()).to_string();
            for gone in [
                secret,
                &encoded,
                encoded.trim_end_matches('='),
                &hex(secret),
                &hex(secret).to_uppercase(),
            ] {
                assert!(!text.contains(gone), "{gone} of {secret}: {text}");
            }
        }
    }
}

#[test]
fn lists_hold_names_and_values_in_all_their_spellings() {
    for (input, left) in [
        (
            json!([{"Key": "password", "Val": "abc"}]),
            json!([{"Key": "password", "Val": "[erased:named]"}]),
        ),
        (
            json!([{"k": "token", "v": "abc"}, {"k": "host", "v": "abd"}]),
            json!([{"k": "token", "v": "[erased:named]"}, {"k": "host", "v": "abd"}]),
        ),
        (
            json!([{"key": "db.password", "value": {"stringValue": "abc"}}, {"key": "otp", "value": {"intValue": "123456"}}]),
            json!([{"key": "db.password", "value": {"stringValue": "[erased:named]"}}, {"key": "otp", "value": {"intValue": "[erased:named]"}}]),
        ),
        (
            json!([{"key": "cookie", "value": {"arrayValue": {"values": [{"stringValue": "a=b"}]}}}]),
            json!([{"key": "cookie", "value": {"arrayValue": {"values": [{"stringValue": "[erased:named]"}]}}}]),
        ),
        (
            json!([{"op": "replace", "path": "password", "value": "abc"}]),
            json!([{"op": "replace", "path": "password", "value": "[erased:named]"}]),
        ),
        (
            json!([["x-api-key", "abcdef"], ["host", "h"]]),
            json!([["x-api-key", "[erased:named]"], ["host", "h"]]),
        ),
        (
            json!(["authorization", "Bearer abcd"]),
            json!(["authorization", "Bearer [erased:authorization]"]),
        ),
        (
            json!(["app", "--password", "x", "-v"]),
            json!(["app", "--password", "[erased:named]", "-v"]),
        ),
        (json!(["--token=x", "--out=y"]), json!(["--token=[erased:named]", "--out=y"])),
    ] {
        assert_eq!(record(&decision(&json!({"a": input})), &detecting())["input"]["a"], left);
    }
}

#[test]
fn numbers_are_found_in_every_writing() {
    for text in [
        "de89370400440532013000",
        "de89 3704 0044 0532 0130 00",
        "gb82 west 1234 5698 7654 32",
        "DE89\u{a0}3704\u{a0}0044\u{a0}0532\u{a0}0130\u{a0}00",
        "GB82-WEST-1234-5698-7654-32",
        "4111\u{a0}1111\u{a0}1111\u{a0}1111",
        "4111\u{2009}1111\u{2009}1111\u{2009}1111",
        "4111\u{202f}1111\u{202f}1111\u{202f}1111",
        "4111.1111.1111.1111",
        "3782.822463.10005",
    ] {
        let plain = decision(&json!({"a": format!("x {text}!")}));
        let input = &record(&plain, &detecting())["input"]["a"];
        assert!(input == "x [erased:iban]!" || input == "x [erased:card]!", "{text}: {input}");
        // As some programs write JSON: in ASCII.
        let ascii: String = text
            .chars()
            .map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", c as u32) })
            .collect();
        let inner = json!({"a": format!("{{\"n\":\"{ascii}\"}}")});
        let input = record(&decision(&inner), &detecting())["input"]["a"].to_string();
        assert!(input.contains("[erased:"), "{text}: {input}");
    }
}

#[test]
fn text_that_is_written_otherwise_is_read() {
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02X}")).collect::<String>();
    let body = r#"{"user":"bob","password":"hunt"}"#;
    let clean = r#"{"user":"bob","password":"[erased:named]"}"#;
    for (text, left) in [
        ("password:\n  hunt\n".to_owned(), "password:\n  [erased:named]\n".to_owned()),
        (body.replace('"', "&quot;"), clean.replace('"', "&quot;")),
        (body.replace('"', "&#34;"), clean.replace('"', "&#34;")),
        (body.replace('"', "\\u0022"), clean.replace('"', "\\u0022")),
        (body.replace('"', "\\x22"), clean.replace('"', "\\x22")),
        (hex(body), hex(clean)),
        (format!("0x{}", hex(body).to_lowercase()), format!("0x{}", hex(clean).to_lowercase())),
        (
            "%257B%2522password%2522%253A%2522hunt%2522%257D".to_owned(),
            "%257B%2522password%2522%253A%2522%255Berased%253Anamed%255D%2522%257D".to_owned(),
        ),
        ("app --password hunt -v".to_owned(), "app --password [erased:named] -v".to_owned()),
        (
            "curl -u bob:hunt https://x.example".to_owned(),
            "curl -u bob:[erased:named] https://x.example".to_owned(),
        ),
    ] {
        let record = record(&decision(&json!({"a": text})), &detecting());
        assert_eq!(record["input"]["a"], json!(left), "{text}");
    }
}

#[test]
fn what_only_has_an_at_is_nobody_s_address() {
    for text in [
        "git@github.com:acme/shop.git",
        "ssh://git@github.com/acme/shop.git",
        "deploy@build.example:/srv/app",
        "ssh -p 22 deploy@build.example uptime",
        "react@18.3.rc",
        "getty@tty1.service",
        "logo@2x.png",
        "nginx@sha256:2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        "@scope/pkg@1.2.3",
    ] {
        let input = json!({"a": text, "b": {"url": text}});
        assert_eq!(record(&decision(&input), &detecting())["input"], input);
    }
}

#[test]
fn what_was_sealed_opens_wherever_it_ends_up() {
    let key = || Arc::new(Key::new("k1", &"ab".repeat(32)).unwrap());
    let protection = Arc::new(Protection {
        rules: vec![
            rule("/input/people/*/age", Action::Encrypt(key())),
            rule("/input/list/1", Action::Encrypt(key())),
            rule("/input/list/0", Action::Erase),
            rule("/custom", Action::Encrypt(key())),
        ],
        pseudonyms: Some(hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef")),
        detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
        ..Protection::default()
    });
    let mut whole = decision(&json!({
        "people": {"ann@mail.example": {"age": 41}, "bob@mail.example": {"age": 42}},
        "list": ["gone", "kept"],
        "note": "enc:v2:who:knows",
    }));
    whole["custom"] = json!({"a": 1});
    let record = record(&whole, &protection);
    let keys = [("k1".to_owned(), Key::new("k1", &"ab".repeat(32)).unwrap())].into();
    let (text, opened, left) = keys::open_all(&record.to_string(), &keys);
    assert_eq!((opened, left), (4, Vec::new()), "{record}");
    let open: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(open["input"]["list"], json!(["kept"]));
    assert_eq!(open["input"]["people"]["[erased:email]"], json!({"age": 41}));
    assert_eq!(open["custom"]["masked"], json!({"a": 1}));
    let docket = record["docket"].to_string();
    assert!(!docket.contains("enc:v2:k1"), "{docket}");
}

#[test]
fn an_address_of_who_asked_for_what_becomes_a_pseudonym_wherever_it_stands() {
    let protection = Arc::new(Protection {
        pseudonyms: Some(hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef")),
        detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
        ..Protection::default()
    });
    let input = json!({
        "subject": "ann@mail.example",
        "action": "mail ann@mail.example",
        "resource": {"id": "/users/bob%40mail.example/x"},
        "cc": ["bob@mail.example", "eve@mail.example"],
    });
    let record = record(&decision(&input), &protection);
    let text = record.to_string();
    assert!(!text.contains("mail.example"), "{text}");
    let ann = record["docket"]["subject"].as_str().unwrap();
    let bob = record["input"]["cc"][0].as_str().unwrap();
    assert!(keys::is_pseudonym(ann) && keys::is_pseudonym(bob) && ann != bob, "{text}");
    assert_eq!(record["docket"]["action"], format!("mail {ann}"));
    assert_eq!(record["docket"]["resource"], format!("/users/{}/x", bob.replace(':', "%3A")));
    assert_eq!(record["input"]["cc"][1], "[erased:email]");
}

#[test]
fn what_is_sealed_is_not_quoted_as_who_asked_for_what() {
    let key = Arc::new(Key::new("k1", &"ab".repeat(32)).unwrap());
    for place in ["/input/*", "/input/*/id"] {
        let protection = Arc::new(Protection {
            rules: vec![rule(place, Action::Encrypt(key.clone()))],
            ..Protection::default()
        });
        let input = json!({"subject": {"id": "ann"}, "action": {"id": "read"}, "resource": {"id": "doc"}, "tenant": {"id": "acme"}});
        let record = record(&decision(&input), &protection);
        for name in ["subject", "action", "resource", "tenant"] {
            let quoted = record["docket"].get(name).map(ToString::to_string).unwrap_or_default();
            assert!(!quoted.contains("enc:"), "{name}: {record}");
        }
    }
}

/// Pieces that masking has to do with, and what it might break.
fn text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "password",
        "token=x1",
        "ann@mail.example",
        "bob@mail.example",
        "\"",
        "\\",
        "{",
        "}",
        "[",
        ":",
        "\n  ",
        "%22",
        "\\u0022",
        "&quot;",
        "Bearer abc123",
        "4111 1111 1111 1111",
        "cGFzc3dvcmQ9aHVudGVyMg==",
        "\u{e9}",
        "\u{1f600}",
        "--password x",
        "-",
        "[erased:email]",
        "7b2270617373776f7264223a2278227d",
        "name",
        "value",
        "decision_id",
        "enc:v2:k1:x",
        "a",
        "1",
        " ",
    ]);
    prop::collection::vec(pieces, 0..5).prop_map(|pieces| pieces.concat())
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
        text().prop_map(|text| Value::from(
            json!({text.as_str(): text, "password": text}).to_string()
        )),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever was masked, docket reads what is left, and a sink's redaction of it.
    #[test]
    fn what_is_masked_is_a_decision_still(
        input in document(), result in document(), added in document(), name in text(), n in 0..4usize,
    ) {
        static SOME: LazyLock<Vec<Arc<Protection>>> = LazyLock::new(|| {
            let all = || Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase))));
            let hash = || hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
            let key = Arc::new(Key::new("k1", &"ab".repeat(32)).unwrap());
            let rules = |action: Action| {
                ["/input/*", "/result/**/a", "/custom", "/request_context", "/input/**/password"]
                    .map(|path| rule(path, action.clone())).into()
            };
            vec![
                Arc::new(Protection { detect: all(), ..Protection::default() }),
                Arc::new(Protection { detect: all(), rules: rules(Action::Erase), ..Protection::default() }),
                Arc::new(Protection { detect: all(), rules: rules(Action::Hash(hash())), sizes: vec![("input", 60)], ..Protection::default() }),
                Arc::new(Protection { detect: all(), rules: rules(Action::Encrypt(key)), pseudonyms: Some(hash()), ..Protection::default() }),
            ]
        });
        let whole = json!({"decision_id": "d-1", "path": "a/b", "timestamp": "2026-11-24T12:48:50Z",
            "input": input, "result": result, "custom": {"a": added.clone()}, format!("x{name}"): added});
        let text = whole.to_string();
        prop_assume!(Event::parse(text.as_bytes()).is_ok());
        let record = record(&whole, &SOME[n]).to_string();
        let parsed = Event::parse(record.as_bytes());
        prop_assert!(parsed.is_ok(), "{:?}: {} of {}", parsed.err(), record, text);
        let redaction = redact::Redaction::new(["/input", "/docket/subject"].map(|p| redact::pattern(p).unwrap()));
        let redacted = redaction.apply(record.as_bytes());
        prop_assert!(docket_core::decision::record::Record::parse(&redacted).is_ok());
    }
}
