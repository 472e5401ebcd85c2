use std::sync::LazyLock;

use ring::hmac;

use super::super::detector::ALL;
use super::*;

fn all() -> Detect {
    Detect::new(ALL.map(|_| Some(Act::Erase)))
}

fn cleaned(event: &str) -> (String, Vec<(&'static str, String)>) {
    let mut node = Node::Raw(event);
    let mut hits = Vec::new();
    all().apply(event, &mut node, None, &mut hits, &mut Taken::default());
    (node.to_text(), hits.into_iter().map(|h| (h.detector.name(), h.place)).collect())
}

/// What compares, assigns or leads to a value is no part of it.
#[test]
fn a_value_is_found_behind_every_operator() {
    for by in ["=", "==", "===", "!=", "!==", ":=", "=>", "->", ":"] {
        for text in [format!("password {by} 'qwertyu98765'"), format!("password{by}qwertyu98765")] {
            let (left, _) = cleaned(&format!(r#"{{"query":{text:?}}}"#));
            assert!(!left.contains("qwertyu98765"), "{text}: {left}");
            assert!(left.contains(by), "{text}: {left}");
        }
    }
}

#[test]
fn each_finds_its_own() {
    for (detector, secret, left) in [
        (
            "jwt",
            "x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk y",
            "x [erased:jwt] y",
        ),
        (
            "jwt",
            "eyJhbGciOiJSU0EtT0FFUCJ9.OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGe.48V1_ALb6US04U3b.5eym8TW_c8SuK0lt.XFBoMYUZ",
            "[erased:jwt]",
        ),
        ("authorization", "Basic dXNlcjpwYXNzd29yZA==", "Basic [erased:authorization]"),
        ("authorization", "bearer 2YotnFZFEjr1zCsicMWpAA", "bearer [erased:authorization]"),
        (
            "private_key",
            "-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEE\\n-----END EC PRIVATE KEY-----\\n",
            "[erased:private_key]\\n",
        ),
        ("private_key", "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3Blbn cut", "[erased:private_key]"),
        ("aws_key", "id=AKIAIOSFODNN7EXAMPLE;", "id=[erased:aws_key];"),
        ("api_token", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "[erased:api_token]"),
        ("api_token", "xoxb-123456789012-abcdefghijkl", "[erased:api_token]"),
        (
            "url_password",
            "postgres://app:hunter2@db:5432/x",
            "postgres://app:[erased:url_password]@db:5432/x",
        ),
        ("card", "4111 1111 1111 1111", "[erased:card]"),
        ("card", "card 378282246310005.", "card [erased:card]."),
        ("email", "mail bob.smith+x@mail.example.co.uk now", "mail [erased:email] now"),
        ("iban", "GB82 WEST 1234 5698 7654 32", "[erased:iban]"),
        ("iban", "DE89370400440532013000", "[erased:iban]"),
        ("ssn", "ssn 219-09-9999", "ssn [erased:ssn]"),
    ] {
        let (text, hits) =
            cleaned(&format!(r#"{{"decision_id":"d","input":{{"a":["{secret}"]}}}}"#));
        assert_eq!(
            text,
            format!(r#"{{"decision_id":"d","input":{{"a":["{left}"]}},"masked":["/input/a/0"]}}"#),
            "{secret}"
        );
        assert_eq!(hits, [(detector, "/input/a/*".to_owned())], "{secret}");
    }
}

#[test]
fn names_tell_and_names_hold() {
    let (text, hits) = cleaned(
        r#"{"input":{"Client-Secret":"hunter2","headers":{"cookie":["a=b","c=d"],"authorization":"Digest x"},"token":{"valid":true},"password":null,"bob@example.com":1,"n":4111111111111111}}"#,
    );
    assert_eq!(
        text,
        r#"{"input":{"Client-Secret":"[erased:named]","headers":{"cookie":["[erased:named]","[erased:named]"],"authorization":"[erased:named]"},"token":{"valid":true},"password":null,"[erased:email]":1,"n":"[erased:card]"},"masked":["/input/Client-Secret","/input/headers/cookie/0","/input/headers/cookie/1","/input/headers/authorization","/input","/input/n"]}"#
    );
    assert!(
        hits.contains(&("email", "/input".into()))
            && hits.contains(&("named", "/input/headers/cookie/*".into())),
        "{hits:?}"
    );
}

#[test]
fn escapes_hide_nothing() {
    let (text, _) = cleaned(
        r#"{"input":{"a":"bob\u0040example.com","b":"\u0041KIAIOSFODNN7EXAMPLE","p\u0061ssword":"x"}}"#,
    );
    assert!(
        text.contains(
            r#""a":"[erased:email]","b":"[erased:aws_key]","p\u0061ssword":"[erased:named]""#
        ),
        "{text}"
    );
}

#[test]
fn what_is_no_secret_stays_as_it_was() {
    for text in [
        r#"{"decision_id":"4ca636c1-55e4-417a-b1d8-4aceb67960d1","labels":{"id":"bob"},"input":{"user":"bob","path":["salary","bob"],"n":1764086400000000000}}"#,
        r#"{"input":{"message":"Bearer authentication is basic knowledge; token expired at 12:00","at":"@","card":"4111 1111 1111 1112"}}"#,
        r#"{"input":{"uuid":"12345678-1234-1234-1234-123456789012","phone":"+49 30 1234567","ref":"DE89370400440532013001","url":"https://example.com:8080/a@b"}}"#,
        r#"{"input":{"tokens":3,"secret":"","resource":{"kind":"Secret","name":"db"},"sk":"sk-short"},"path":"token/secret","metrics":{"n":4111111111111111}}"#,
    ] {
        assert_eq!(cleaned(text), (text.to_owned(), Vec::new()));
    }
}

#[test]
fn hashes_join_and_counts_change_nothing() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
    let mut acts = ALL.map(|_| None);
    acts[Detector::Email as usize] = Some(Act::Hash(key));
    acts[Detector::Jwt as usize] = Some(Act::Count);
    let detect = Detect::new(acts);
    let event = r#"{"input":{"a":"bob@example.com","b":"bob@example.com","c":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x","password":"stays"}}"#;
    let mut node = Node::Raw(event);
    let mut hits = Vec::new();
    detect.apply(event, &mut node, None, &mut hits, &mut Taken::default());
    let value: serde_json::Value = serde_json::from_str(&node.to_text()).unwrap();
    assert!(
        value["input"]["a"] == value["input"]["b"]
            && value["input"]["a"].as_str().unwrap().starts_with("hmac:"),
        "{value}"
    );
    assert!(
        value["input"]["c"].as_str().unwrap().starts_with("eyJ")
            && value["input"]["password"] == "stays"
    );
    assert_eq!(hits.len(), 3);
}

/// Whatever is found when all is looked for was suspected, however it is written in JSON.
fn suspected(detect: &Detect, text: &str) -> Result<(), String> {
    let plain = serde_json::to_string(text).unwrap();
    let go = plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let ascii: String = plain
        .chars()
        .map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", c as u32) })
        .collect();
    let twice = serde_json::to_string(&plain).unwrap();
    for written in [text, &plain, &go, &ascii, &twice, &format!("{{\"n\":{plain}}}")] {
        let suspects = detect.prefilter.of(written);
        let missed =
            |d: &Detector| suspects & d.bit() == 0 && !detect.patterns.find(*d, text).is_empty();
        if let Some(missed) = ALL.iter().find(|d| missed(d)) {
            return Err(format!("{missed:?} is not suspected in {written}"));
        }
    }
    Ok(())
}

const FRAGMENTS: [&str; 47] = [
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ",
    "Bearer 2YotnFZFEjr1zCsicMWpAA",
    "BASIC\tdXNlcjpwYXNzd29yZA==",
    "bearer ",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    "-----begin private key-----x-----end private key-----",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefghij0123456789abcdef",
    "sk-0123456789abcdefghij",
    "SG.0123456789abcdefghij.0123456789abcdefghij",
    "xoxb-0123456789ab",
    "postgres://u:p@h",
    "bob@example.com",
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "378282246310005",
    "4222222222222",
    "DE89370400440532013000",
    "GB82 WEST 1234 5698 7654 32",
    "NO9386011117947",
    "de89370400440532013000",
    "gb82 west 1234 5698 7654 32",
    "4111\u{a0}1111\u{2009}1111\u{202f}1111",
    "4111.1111.1111.1111",
    "\u{a0}",
    "\u{2011}",
    ".",
    "078-05-1120",
    "1",
    "23",
    "456",
    "7890",
    "-",
    " ",
    "_",
    "A",
    "\n",
    "\t",
    "\"",
    "\\",
    "<",
    "&",
    "\u{2028}",
    "é",
    "x",
    "key",
];

proptest::proptest! {
    #[test]
    fn nothing_is_found_that_was_not_suspected(parts in proptest::collection::vec(0..FRAGMENTS.len(), 1..9)) {
        static ALL_ON: LazyLock<Detect> = LazyLock::new(all);
        let text: String = parts.iter().map(|i| FRAGMENTS[*i]).collect();
        proptest::prop_assert_eq!(suspected(&ALL_ON, &text), Ok(()));
    }
}

#[test]
fn names_that_tell_are_suspected_wherever_they_stand() {
    let detect = all();
    for name in [
        "password",
        "db_password",
        "X-Api-Key",
        "clientSecret",
        "otp",
        "pin",
        "user[pass]",
        "JSESSIONID",
    ] {
        for text in [
            format!("{{\"{name}\":\"x1\"}}"),
            format!("{{\"a\":1,\"{name}\" : [\"x\"]}}"),
            format!("{{\"{name}\":123456}}"),
            format!("{name}=abc"),
            format!("a=b&{name}=abc"),
            format!("{{\"q\":\"a=b\\u0026{name}=abc\"}}"),
            format!("{{\"q\":\"x\\n{name}: abc\"}}"),
            format!("{{\"q\":\"{{\\\"{name}\\\":\\\"abc\\\"}}\"}}"),
            format!("{{\"name\":\"{name}\",\"value\":\"abc\"}}"),
            format!("{{\"q\":\"- name: {name}\\n  value: abc\"}}"),
            format!("{{\"q\":\"{{\\\"y\\\":\\\"- name: {name}\\\\n  value: abc\\\"}}\"}}"),
            format!("kind: {name}\ndata:\n  a: b"),
        ] {
            assert_ne!(detect.prefilter.of(&text) & Detector::Named.bit(), 0, "{text}");
        }
        assert_eq!(detect.prefilter.of(&format!("{{\"{name}\":true}}")), 0, "{name}");
    }
}

#[test]
fn what_is_no_secret_is_not_suspected() {
    for text in [
        r#"{"a":"task-1 msg. asia basics eyjafjallajokull","path":"/x?a=1\u0026b=2","monkey":"x","keys":["a"],"passed":"yes"}"#,
        r#"{"id":"550e8400-e29b-41d4-a716-44665544000f","at":"2026-11-25T12:00:00.123456789Z","n":[1,23,456789],"ip":"10.0.0.1"}"#,
    ] {
        assert_eq!(all().prefilter.of(text), 0, "{text}");
    }
}
