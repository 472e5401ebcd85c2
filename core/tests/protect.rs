//! What must not spread is nowhere in a record, in whatever encoding it came: decisions that hold their
//! secrets twice, through the whole way of intake.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic)]

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use docket_core::decision::event::Event;
use docket_core::decision::formats::{Format, Limits};
use docket_core::protect::Protection;
use docket_core::protect::detect::{Act, Detect};
use docket_core::protect::detector;
use docket_core::protect::keys::{self, Key};
use docket_core::protect::record::Rules;
use docket_core::protect::rules::{Action, Pattern, Rule};
use docket_core::transform::{Product, Source, transform};
use ring::hmac;
use serde_json::{Value, json};

/// All detectors, made once.
fn shared() -> Arc<Protection> {
    static ALL: LazyLock<Arc<Protection>> = LazyLock::new(|| Arc::new(detectors()));
    ALL.clone()
}

fn detectors() -> Protection {
    Protection {
        detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
        ..Protection::default()
    }
}

fn rule(path: &str, action: Action) -> Rule {
    Rule { path: Pattern::parse(path).unwrap(), policy: None, action }
}

/// The docket records of a topic's record.
fn records(value: &str, protection: impl Into<Arc<Protection>>) -> Vec<String> {
    let rules = Rules { protection: Some(protection.into()), ..Rules::default() };
    let source =
        Source { value: value.as_bytes(), headers: &[], format: Format::Auto, envelope: None };
    let mut records = Vec::new();
    transform(source, &Limits::default(), &rules, &mut Vec::new(), &|_| None, &mut |_, product| {
        match product {
            Product::Docket { bytes, .. } => {
                records.push(String::from_utf8(bytes.to_vec()).unwrap());
            }
            // A part of a decision beside it may be all that is left of another. Where there is protection, intake's rejects go
            // without their content.
            Product::Reject { .. } => {}
            other => panic!("{other:?}"),
        }
    });
    records
}

fn one(value: &str, protection: impl Into<Arc<Protection>>) -> Value {
    let records = records(value, protection);
    assert_eq!(records.len(), 1);
    serde_json::from_str(&records[0]).unwrap()
}

fn decision(id: &str, input: &Value) -> String {
    json!({"decision_id": id, "path": "a/b", "result": true, "timestamp": "2026-11-24T12:48:50Z", "input": input})
        .to_string()
}

#[test]
fn each_case_has_its_right_value() {
    let text = include_str!("data/encoded-secrets.ndjson");
    let mut protection = detectors();
    protection.rules.push(rule("/input/ssn_no", Action::Erase));
    let records = records(text, protection);
    assert_eq!(records.len(), text.lines().count(), "no decision is lost");
    for (line, record) in text.lines().zip(&records) {
        for secret in
            ["s3cr3t", "hunter2", "client_secret=abc", "ann@", "bob@", "4111111111111111", "A-1"]
        {
            assert!(!record.contains(secret), "{secret} is left of {line}: {record}");
        }
    }
    let of = |id: &str| -> Value {
        let text = format!("\"decision_id\":\"{id}\"");
        let spaced = format!("\"decision_id\": \"{id}\"");
        let record = records.iter().find(|r| r.contains(&text) || r.contains(&spaced));
        serde_json::from_str(record.unwrap()).unwrap()
    };
    let http = |id: &str| of(id)["input"]["attributes"]["request"]["http"].clone();
    assert_eq!(
        http("envoy-body")["body"],
        r#"{"username":"alice","password":"[erased:named]"}"#,
        "JSON stays JSON"
    );
    assert_eq!(http("envoy-body")["path"], "/login?access_token=%5Berased%3Anamed%5D&x=1");
    assert_eq!(
        of("form")["input"]["body"],
        "grant_type=password&username=alice&password=%5Berased%3Anamed%5D&client_secret=%5Berased%3Anamed%5D"
    );
    let members = of("two-emails-as-keys")["input"]["members"].clone();
    assert_eq!(members, json!({"[erased:email]": "admin", "[erased:email]-2": "viewer"}));
    assert_eq!(of("card-then-expiry")["input"]["note"], "[erased:card] 12/29 737");
    assert_eq!(of("qty-then-card")["input"]["note"], "pay 2 [erased:card]");
    assert_eq!(of("card-then-cvv")["input"]["note"], "card [erased:card] 737");
    assert_eq!(of("case-p-envoy")["input"]["parsed_query"]["page"][0], "2");
    let list = of("list");
    assert_eq!(list.get("log"), None);
    assert_eq!(list["erased"], json!(["/input/ssn_no", "/log"]));
}

/// A text in encodings, one inside the other.
type Encoding = fn(&str) -> String;
const ENCODINGS: [(&str, Encoding); 13] = [
    ("XML", |t| format!("<r><note>{t}</note></r>")),
    ("multipart", |t| {
        format!("--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n{t}\r\n--b--\r\n")
    }),
    ("JSON", |t| json!({"n": [1, {"note": t}]}).to_string()),
    ("JSON text", |t| json!(t).to_string()),
    ("a form", |t| format!("a=b&note={}&c=d", percent(t))),
    ("a query", |t| format!("https://app.example/cb?x=1&state={}#f", percent(t))),
    ("base64", |t| STANDARD.encode(t)),
    ("base64url", |t| URL_SAFE_NO_PAD.encode(t)),
    ("base64 in a path", |t| format!("/v1/state/{}/next", URL_SAFE_NO_PAD.encode(t))),
    ("base64 in lines", |t| {
        STANDARD
            .encode(t)
            .as_bytes()
            .chunks(76)
            .map(|line| format!("{}\n", std::str::from_utf8(line).unwrap()))
            .collect()
    }),
    ("a log line", |t| {
        format!("2026-11-24 level=info body={}", json!(json!({"note": t}).to_string()))
    }),
    ("cut JSON", |t| {
        json!({"a": {"note": t}, "z": 1}).to_string().trim_end_matches('}').to_owned()
    }),
    ("percent", percent),
];

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect()
}

/// Secrets as they stand at first: how they look, or by a name.
fn planted() -> Vec<(&'static str, String)> {
    let token = format!("ghp_{}", "16C7e42F292c6912E7710c838347Ae178B4a");
    vec![
        ("canary@secret.example", "mail canary@secret.example now".into()),
        ("16C7e42F292c6912E7710c838347Ae178B4a", format!("it is {token}, I think")),
        ("canary-5Ecr3t", r#"{"user":"alice","password":"canary-5Ecr3t"}"#.into()),
        ("canary-5Ecr3t", "grant_type=password&password=canary-5Ecr3t".into()),
        ("canary%5Ecr3t/x", "client_secret=canary%255Ecr3t%2Fx&b=1".into()),
        ("canary5Ecr3t", "Authorization: Bearer canary5Ecr3t".into()),
        ("4111 1111 1111 1111", "card 4111 1111 1111 1111 12/29".into()),
        ("p@ss:canary", "postgres://app:p@ss:canary@db:5432/x".into()),
    ]
}

/// All that a record says, in all that may be decoded of it.
fn opened(text: &str, depth: usize, out: &mut Vec<String>) {
    if depth == 0 {
        return;
    }
    out.push(text.to_owned());
    let mut inner = Vec::new();
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        strings(&value, &mut inner);
    }
    for part in text.split(|c: char| c.is_whitespace() || "&=?/#\"\\{}[],:".contains(c)) {
        let bytes = part.as_bytes();
        if part.contains('%') {
            let mut plain = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                let hex = part.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
                match (bytes[at], hex) {
                    (b'%', Some(b)) => {
                        plain.push(b);
                        at += 3;
                    }
                    (b, _) => {
                        plain.push(b);
                        at += 1;
                    }
                }
            }
            inner.extend(String::from_utf8(plain).ok());
        }
        let bare: String = part
            .chars()
            .map(|c| match c {
                '-' => '+',
                '_' => '/',
                c => c,
            })
            .collect();
        if bare.len() >= 8 {
            let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
            inner.extend(engine.decode(bare).ok().and_then(|b| String::from_utf8(b).ok()));
        }
    }
    let joined: String = text.split_ascii_whitespace().collect();
    inner.extend(STANDARD.decode(joined).ok().and_then(|b| String::from_utf8(b).ok()));
    for text in inner.iter().filter(|inner| *inner != text) {
        opened(text, depth - 1, out);
    }
}

fn strings(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|v| strings(v, out)),
        Value::Object(all) => all.iter().for_each(|(k, v)| {
            out.push(k.clone());
            strings(v, out);
        }),
        _ => {}
    }
}

#[test]
fn no_secret_is_left_in_any_encoding_nor_in_two() {
    for (canary, text) in planted() {
        for (first, encode) in ENCODINGS {
            for (second, wrap) in
                ENCODINGS.into_iter().chain([("nothing", str::to_owned as Encoding)])
            {
                let input = json!({"x": wrap(&encode(&text)), "y": 1});
                let event = decision("d", &input);
                let record = one(&event, shared());
                let mut all = Vec::new();
                opened(&record.to_string(), 6, &mut all);
                let left = all.iter().find(|text| text.contains(canary));
                assert_eq!(left, None, "{canary} in {first} in {second}: {event}");
            }
        }
    }
}

#[test]
fn what_is_masked_inside_an_encoding_stays_in_that_encoding() {
    let secret = r#"{"user":"bob","password":"canary-5Ecr3t"}"#;
    let clean = json!({"user": "bob", "password": "[erased:named]"});
    let input = json!({
        "json": secret,
        "base64": STANDARD.encode(secret),
        "url": URL_SAFE_NO_PAD.encode(secret),
        "query": format!("/x?a=1&state={}&b=2", percent(secret)),
    });
    let record = one(&decision("d", &input), detectors());
    let input = &record["input"];
    let parsed = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    assert_eq!(parsed(input["json"].as_str().unwrap().as_bytes()), clean);
    assert_eq!(parsed(&STANDARD.decode(input["base64"].as_str().unwrap()).unwrap()), clean);
    assert_eq!(parsed(&URL_SAFE_NO_PAD.decode(input["url"].as_str().unwrap()).unwrap()), clean);
    let query = input["query"].as_str().unwrap();
    assert!(
        query.starts_with("/x?a=1&state=%7B%22user%22%3A%22bob%22") && query.ends_with("&b=2"),
        "{query}"
    );
    assert_eq!(
        record["masked"],
        json!(["/input/json", "/input/base64", "/input/url", "/input/query"])
    );
}

#[test]
fn members_of_one_type_keep_it() {
    for (name, value) in [
        ("erased", json!(["/input/x"])),
        ("masked", json!(["/input/x"])),
        ("custom", json!({"tier": "gold"})),
        ("nd_builtin_cache", json!({"time.now_ns": {"[]": 1}})),
        ("intermediate_results", json!({"allow": true})),
        ("requested_by", json!("10.1.2.3:40022")),
        ("query", json!("data.authz.allow")),
    ] {
        // A member of the input by that name has the same value, and is taken out: so the other is.
        let input = json!({"of": {name: value}});
        let mut event: Value = serde_json::from_str(&decision("d", &input)).unwrap();
        event[name] = value.clone();
        let rules = Protection {
            rules: vec![rule("/input/of/*", Action::Replace("1".into()))],
            ..Protection::default()
        };
        let record = one(&event.to_string(), rules);
        let kind = |v: &Value| (v.is_object(), v.is_array(), v.is_string());
        assert_eq!(kind(&record[name]), kind(&value), "{name}: {record:#}");
        assert_eq!(record["input"]["of"][name], 1);
    }
}

#[test]
fn what_is_taken_out_once_is_taken_out_everywhere() {
    let secret = "Tr0ub4dor&3 \"x\"";
    let elsewhere = json!({
        "note": format!("he wrote {secret} on it"),
        "form": format!("x={}&y=1", percent(secret)),
        "json": json!({"deep": json!({"n": secret}).to_string()}).to_string(),
        "base64": STANDARD.encode(format!("it is {secret}!")),
        "list": [secret],
    });
    let mut by_name = elsewhere.clone();
    by_name["login"] = json!({"password": secret});
    let mut by_rule = elsewhere;
    by_rule["login"] = json!({"entry": secret});
    let rules = Protection {
        rules: vec![rule("/input/login/entry", Action::Erase)],
        ..Protection::default()
    };
    for (input, protection) in [(by_name, detectors()), (by_rule, rules)] {
        let record = one(&decision("d", &input), protection);
        let mut all = Vec::new();
        opened(&record.to_string(), 6, &mut all);
        for text in &all {
            assert!(!text.contains("Tr0ub4dor"), "{record:#}");
        }
        assert_eq!(
            record["input"]["note"].as_str().unwrap().len(),
            "he wrote  on it".len() + record["input"]["list"][0].as_str().unwrap().len()
        );
    }
}

#[test]
fn a_word_that_was_a_secret_stays_a_word_elsewhere() {
    let input =
        json!({"password": "password", "grant_type": "password", "token": "abc", "abc": "abcdef"});
    let record = one(&decision("d", &input), detectors());
    assert_eq!(
        record["input"],
        json!({"password": "[erased:named]", "grant_type": "password", "token": "[erased:named]", "abc": "abcdef"})
    );
}

#[test]
fn copies_of_the_decision_go_and_other_members_stay() {
    let event = decision("d-1", &json!({"card_no": "A-1"}));
    let protection = || Protection {
        rules: vec![rule("/input/card_no", Action::Erase)],
        ..Protection::default()
    };
    let copies = [
        json!(event),
        json!(format!("2026-11-24T12:48:50Z stdout F {event}")),
        json!(json!({"log": event}).to_string()),
        json!(STANDARD.encode(&event)),
        json!(event[20..].to_owned()),
        serde_json::from_str(&event).unwrap(),
        json!({"deeper": [{"line": event}]}),
        json!({"decision_id": "d-1", "input": {"card_no": "A-1"}}),
    ];
    for copy in copies {
        let mut whole: Value = serde_json::from_str(&event).unwrap();
        whole["log"] = copy.clone();
        whole["kubernetes"] = json!({"pod": "opa-1", "labels": {"input": "x"}});
        let record = one(&whole.to_string(), protection());
        assert!(!record.to_string().contains("A-1"), "{copy}: {record}");
        assert_eq!(record["kubernetes"], json!({"pod": "opa-1", "labels": {"input": "x"}}));
        // The same around it.
        let around = json!({"log": event, "copy": copy, "stream": "stdout"});
        let record = one(&around.to_string(), protection());
        assert!(!record.to_string().contains("A-1"), "around: {copy}: {record}");
        assert_eq!(record["docket"]["agent"]["stream"], "stdout");
    }
}

#[test]
fn many_addresses_as_keys_are_many_keys() {
    let members: Value = (0..3000)
        .map(|i| (format!("user{i}@example.com"), json!(i)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let began = std::time::Instant::now();
    let record = one(&decision("d", &json!({"members": members})), detectors());
    assert_eq!(record["input"]["members"].as_object().unwrap().len(), 3000);
    assert!(
        !record.to_string().contains('@'.to_string().as_str())
            || !record.to_string().contains("@example")
    );
    assert!(began.elapsed().as_secs() < 20);
}

#[test]
fn who_asked_keeps_a_name_that_says_nothing() {
    let hash = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
    let protection = Protection { pseudonyms: Some(hash), ..detectors() };
    let input =
        json!({"user": {"id": "ann@example.com"}, "cc": ["ann@example.com", "bob@example.com"]});
    let record = one(&decision("d", &input), protection);
    let subject = record["docket"]["subject"].as_str().unwrap();
    assert!(keys::is_pseudonym(subject), "{record}");
    assert_eq!(record["input"]["user"]["id"], subject);
    assert_eq!(record["input"]["cc"], json!([subject, "[erased:email]"]));
}

#[test]
fn what_is_sealed_is_quoted_nowhere_and_opens() {
    let key = || Arc::new(Key::new("k1", &"ab".repeat(32)).unwrap());
    let protection = Protection {
        rules: vec![
            rule("/input/user", Action::Encrypt(key())),
            rule("/result/reason", Action::Encrypt(key())),
            rule("/request_context", Action::Encrypt(key())),
        ],
        ..detectors()
    };
    let event = r#"{"decision_id":"d","path":"a/b","timestamp":"2026-11-24T12:48:50Z","input":{"user":"alice-7","action":"read","note":"alice-7 reads"},"result":{"allow":false,"reason":"alice-7 may not"},"request_context":{"http":{"headers":{"x-user":["alice-7"]}}}}"#;
    let records = records(event, protection);
    let record: Value = serde_json::from_str(&records[0]).unwrap();
    assert!(!records[0].contains("alice-7"), "{record}");
    assert_eq!(record["docket"].get("subject"), None, "{record}");
    assert_eq!(record["docket"]["reasons"], json!([]));
    assert_eq!(record["docket"]["action"], "read");
    assert_eq!(record["docket"]["verdict"], "deny");
    let keys = [("k1".to_owned(), Key::new("k1", &"ab".repeat(32)).unwrap())].into();
    let (text, opened, left) = keys::open_all(&records[0], &keys);
    assert_eq!((opened, left), (3, Vec::new()));
    let open: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(open["input"]["user"], "alice-7");
    assert_eq!(open["request_context"]["masked"]["http"]["headers"]["x-user"][0], "alice-7");
}

#[test]
fn rules_never_make_a_record_that_docket_refuses() {
    let hash = || Action::Hash(hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef"));
    for path in [
        "/request_context",
        "/nd_builtin_cache",
        "/custom",
        "/intermediate_results",
        "/requested_by",
    ] {
        for action in [
            hash(),
            Action::Replace("7".into()),
            Action::Replace("null".into()),
            Action::Replace("[1]".into()),
        ] {
            let protection =
                Protection { rules: vec![rule(path, action)], ..Protection::default() };
            let event = r#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","request_context":{"a":1},"nd_builtin_cache":{"a":1},"custom":{"a":1},"intermediate_results":{"a":1},"requested_by":"x"}"#;
            let records = records(event, protection);
            Event::parse(records[0].as_bytes()).unwrap();
        }
    }
}

#[test]
fn paths_that_say_what_was_done_hold_no_secret() {
    let protection = Protection { rules: vec![rule("/input/*/age", Action::Erase)], ..detectors() };
    let record = one(&decision("d", &json!({"ann@example.com": {"age": 7}})), protection);
    assert!(!record.to_string().contains("ann@"), "{record}");
}

#[test]
fn documents_within_documents_are_no_way_to_break_it() {
    let deep = |inner: &str| format!("{}{}{}", "[".repeat(100), json!(inner), "]".repeat(100));
    let mut text = r#"{"password":"canary-5Ecr3t"}"#.to_owned();
    for _ in 0..7 {
        text = deep(&text);
    }
    let record = records(&decision("d", &json!({"x": text})), shared());
    assert_eq!(record.len(), 1);
    assert!(!record[0].contains("canary-5Ecr3t"), "{}", &record[0][..200]);
    for text in [
        "{\"a\":".repeat(50_000),
        "%2525".repeat(50_000),
        "eyJhIjoi".repeat(50_000),
        "password=".repeat(50_000),
        "[{\"".repeat(50_000),
        "\"\\".repeat(50_000),
    ] {
        let began = std::time::Instant::now();
        assert_eq!(
            records(&decision("d", &json!({"x": text, "password": "hunter2"})), shared()).len(),
            1
        );
        assert!(began.elapsed().as_secs() < 10, "{}", &text[..20]);
    }
}
