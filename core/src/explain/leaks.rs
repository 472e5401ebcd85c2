//! What is erased from a decision is in no explanation of it, however a policy turns it round; and what is not is still told.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::decision::event::Event;
use crate::decision::record::Record;
use crate::protect::Protection;
use crate::protect::detect::{Act, Detect};
use crate::protect::detector;
use crate::protect::record::{Rules, make};

const PASSWORD: &str = "Tr0ub4dor&3xyz";
const OPAQUE: &str = "opaque-0f9a8b7c6d5e4f3a2b1c";
const KEY: &str = "sekrit-value-123456";
const HORSE: &str = "correct-horse-data-secret";
const BASIC: &str = "hunter-and-gatherer";
const JWT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwic3ViIjoicXVpbmN5LXdvdGFuIiwiZXhwIjoxODk1OTQ1MDAwfQ.tYX0OCQZHBM7a9wHJAHbI_1MItYx2SuVFbAtbA2UCwc";
/// In the token's claims.
const SUBJECT: &str = "quincy-wotan";
const EXPIRES: &str = "1895945000";

fn input() -> String {
    let basic = STANDARD.encode(format!("kim:{BASIC}"));
    format!(
        r#"{{"user":"kim","role":"viewer","method":"GET","path":["orders","17"],"password":"{PASSWORD}","headers":{{"authorization":"Bearer {JWT}","x-api-key":"{OPAQUE}","proxy-authorization":"Basic {basic}"}},"keys":[{{"name":"api_key","value":"{KEY}"}}],"body":"{{\"password\":\"{PASSWORD}\"}}"}}"#
    )
}

fn data() -> String {
    format!(
        r#"{{"sessions":{{"aaa":{{"active":true}}}},"pw":{{"kim":"{HORSE}"}},"roles":{{"kim":["viewer"]}}}}"#
    )
}

/// The three that people see of it, one after the other.
fn shown(policy: &str, input: &str, path: &str) -> (Explanation, String) {
    let files = [("c.rego", policy), ("data.json", &data())];
    let bundle = super::tests::bundle(&files);
    let plain = Recorded { path, input: Some(input), ..Recorded::default() };
    let before = explain(&bundle, &plain).unwrap();
    let result = before.result.as_ref().map(Json::to_string);
    let result = result.map(|result| format!(r#","result":{result}"#)).unwrap_or_default();
    let decision = format!(
        r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","path":"{path}","input":{input}{result}}}"#
    );
    let event = Event::parse(decision.as_bytes()).unwrap();
    let detect = Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase))));
    let protection = Some(Arc::new(Protection { detect, ..Protection::default() }));
    let rules = Rules { protection, ..Rules::default() };
    let mut record = Vec::new();
    make(&event, &[], None, &rules, &mut record).unwrap();
    let record = String::from_utf8(record).unwrap();
    let recorded = Recorded { result: event.result, shown: Some(&record), ..plain };
    let said = explain(&bundle, &recorded).unwrap();
    assert_eq!(
        (said.reproduced, said.uncertain, said.result.is_some()),
        (true, before.uncertain, before.result.is_some())
    );
    let record = without_result(&record, &said).unwrap_or(record);
    let record = Record::parse(record.as_bytes()).unwrap();
    let (story, explanation) = (story::decision(&record), story::explanation(&said, "b"));
    let json = format!("{}\n{}", record.raw, serde_json::to_string_pretty(&said).unwrap());
    let all = format!("{story}\n{explanation}\n{json}");
    let told = page::Told { record, story, findings: Vec::new(), explanation };
    let page = page::page("d", &[told], 0, &[]);
    (said, format!("{all}\n{page}"))
}

/// Neither a secret nor a part of one, but for what the policy says itself.
fn assert_none(text: &str, policy: &str) {
    let (lower, policy) = (text.to_lowercase(), policy.to_lowercase());
    let encoded = STANDARD.encode(format!("kim:{BASIC}"));
    let hexed = crate::decision::ids::hex(PASSWORD.as_bytes());
    let again = STANDARD.encode(PASSWORD);
    let backwards: String = PASSWORD.chars().rev().collect();
    let secrets = [PASSWORD, OPAQUE, KEY, HORSE, BASIC, JWT, SUBJECT, EXPIRES];
    for secret in secrets.into_iter().chain([&*encoded, &hexed, &again, &backwards]) {
        for part in secret.to_lowercase().as_bytes().windows(6) {
            let part = std::str::from_utf8(part).unwrap();
            assert!(policy.contains(part) || !lower.contains(part), "{part}: {text}");
        }
    }
}

/// Conditions that are not met, with what they need before them.
const LEAKS: [&str; 44] = [
    "input.password == \"x\"",
    "p := input.password; p == \"x\"",
    "p = input.password; p == \"x\"",
    "\"x\" == input[\"password\"]",
    "lower(input.password) == \"x\"",
    "upper(input.password) == \"x\"",
    "x := concat(\"-\", [input.user, input.password]); x == \"y\"",
    "x := sprintf(\"%s!\", [input.password]); x == \"y\"",
    "crypto.sha256(input.password) == \"abc\"",
    "base64.encode(input.password) == \"x\"",
    "hex.encode(input.password) == \"x\"",
    "strings.reverse(input.password) == \"x\"",
    "substring(input.password, 0, 7) == \"x\"",
    "x := substring(input.password, 2, -1); x == \"y\"",
    "x := {input.password: 1}; x[\"y\"] == 1",
    "x := {\"k\": {input.password}}; x.k == \"y\"",
    "x := [c | some c in split(input.password, \"\")]; x == \"y\"",
    "x := {lower(v) | some v in input.headers}; x == {\"y\"}",
    "some k in input.keys; k.value == \"zz\"",
    "some k in input.keys; k == \"zz\"",
    "every k in input.keys { k.value == \"zz\" }",
    "every h in input.headers { startswith(h, \"zz\") }",
    "input.keys[_].value == \"zz\"",
    "k := input.keys[i]; object.get(k, \"value\", \"\") == \"zz\"",
    "print(input.password); trace(input.password); input.password == \"zz\"",
    "parts := split(input.headers.authorization, \" \"); parts[1] == \"letmein\"",
    "h := input.headers; h.authorization == \"x\"",
    "name := \"authorization\"; input.headers[name] == \"x\"",
    "token == \"x\"",
    "data.sessions[token].active",
    "io.jwt.verify_hs256(token, \"other\")",
    "claims.aud == \"x\"",
    "[_, payload, _] := io.jwt.decode(token); payload.exp < 5",
    "[_, payload, _] = io.jwt.decode(token); payload.sub == \"x\"",
    "payload := io.jwt.decode(token)[1]; payload.sub == \"x\"",
    "input.password == data.pw[input.user]",
    "x := data.pw[input.user]; x == \"y\"",
    "x := data.pw; x[input.user] == \"y\"",
    "some u, p in data.pw; p == input.user",
    "b := base64.decode(trim_prefix(input.headers[\"proxy-authorization\"], \"Basic \")); b == \"x\"",
    "b := json.unmarshal(input.body); b.password == \"x\"",
    "walk(input, [at, value]); value == \"zz\"",
    "same(input.password) == \"x\"",
    "found[\"y\"] == 1",
];

fn policy(condition: &str) -> String {
    let body = condition.replace("; ", "\n\t");
    format!(
        r#"package c
import rego.v1
default allow := false
allow if {{
	{body}
}}
token := trim_prefix(input.headers.authorization, "Bearer ")
claims := io.jwt.decode(token)[1]
same(x) := concat("", [x, "!"])
found[v] := 1 if some v in input.headers
seen contains v if some v in input.headers
seen contains lower(input.password)
made := {{"by": input.user, "with": claims, "all": seen}}
again := base64.decode(base64.encode(input.password))
reasons contains sprintf("%s may not, with %s", [input.user, claims.sub])
reasons contains sprintf("%s may not %s", [input.user, input.method]) if claims.sub
"#
    )
}

#[test]
fn no_secret_is_in_an_explanation_however_it_is_turned_round() {
    for condition in LEAKS {
        let policy = policy(condition);
        let (said, text) = shown(&policy, &input(), "c/allow");
        assert_none(&text, &policy);
        assert!(text.contains("[erased:"), "{condition}: {text}");
        let unmet = said.rules[0].definitions.iter().find_map(|d| d.unmet.as_ref());
        assert!(unmet.is_some_and(|unmet| ends_so(condition, &unmet.text)), "{condition}: {text}");
    }
}

/// But for the literals that it has.
fn ends_so(condition: &str, text: &str) -> bool {
    let before = text.split(" == ").next().unwrap();
    condition.rsplit("; ").next().unwrap().starts_with(before.split('"').next().unwrap())
}

#[test]
fn nor_is_one_in_a_result_that_is_made_of_it() {
    let policy = policy("input.method == \"PUT\"");
    for path in ["token", "claims", "found", "seen", "made", "again", "reasons", ""] {
        let (_, text) = shown(&policy, &input(), format!("c/{path}").trim_end_matches('/'));
        assert_none(&text, &policy);
        assert!(text.contains("[erased:"), "{path}: {text}");
        let told = path != "reasons" || text.contains("kim may not GET");
        assert!(told, "{text}");
    }
}

/// Beside secrets, and calculated with them or from what is none.
#[test]
fn what_is_no_secret_is_told() {
    for (condition, told) in [
        ("input.method == \"PUT\"", "input.method is \"GET\""),
        ("u := input.user; u == \"x\"", "u is \"kim\""),
        ("some role in data.roles[input.user]; role == \"admin\"", "role is \"viewer\""),
        ("input.password; lower(input.method) == \"put\"", "lower(input.method) is \"get\""),
        ("p := input.path; p[0] == \"x\"", "p[0] is \"orders\""),
        ("x := count(input.path); x == 7", "x is 2"),
        ("x := concat(\"/\", input.path); x == \"y\"", "x is \"orders/17\""),
        ("claims.iss == \"https://idp.example/\"; input.role == \"x\"", "claims.iss"),
        ("some k in input.keys; k.name == \"x\"", "k.name is \"api_key\""),
        ("h := input.headers; input.role == \"x\"", "input.role is \"viewer\""),
        (
            "x := sprintf(\"%s is not %s\", [input.user, input.role]); x == \"y\"",
            "x is \"kim is not viewer\"",
        ),
        ("startswith(input.password, \"x\")", "startswith(input.password, \"x\")"),
    ] {
        let policy = policy(condition);
        let (_, text) = shown(&policy, &input(), "c/allow");
        assert_none(&text, &policy);
        assert!(text.contains(told), "{condition}: {text}");
    }
}

/// A docket record has marks where secrets were: what is cut out of one says nothing.
#[test]
fn marks_are_not_cut_up() {
    let input = r#"{"user":"kim","headers":{"authorization":"[erased:named]"}}"#;
    for condition in [
        "t := substring(input.headers.authorization, 7, -1); t == \"named\"",
        "t := split(input.headers.authorization, \":\"); t[1] == \"named\"",
        "trim_prefix(input.headers.authorization, \"[era\") == \"x\"",
        "t := trim(input.headers.authorization, \"[]\"); t == \"x\"",
    ] {
        let (_, text) = shown(&policy(condition), input, "c/allow");
        for part in ["\":named]", "\"named]\"", "\"sed:named]\"", "\"erased:named\""] {
            assert!(!text.contains(part), "{condition}: {text}");
        }
        assert!(text.contains("[erased:derived]"), "{condition}: {text}");
    }
}

#[test]
fn literals_of_policies_are_told_unless_they_look_like_secrets() {
    let github = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let told = |condition: &str| shown(&policy(condition), &input(), "c/allow").1;
    let text = told(&format!("input.user == \"{github}\""));
    assert!(!text.contains(github) && text.contains("input.user is \"kim\""), "{text}");
    assert!(!told(&format!("t := \"{github}\"; input.user == t")).contains(github));
    assert!(!told("input.password == \"swordfish\"").contains("swordfish"));
    assert!(told("input.user == \"letmein\"").contains("input.user == \"letmein\""));
}

#[test]
fn what_names_a_value() {
    for (reference, name) in [
        ("input.x.password", Some("password")),
        ("input.headers[\"x-key\"]", Some("x-key")),
        ("data.pw[input.user]", Some("pw")),
        ("data.pw[input.a[0]]", Some("pw")),
        ("k.value, in turn,", Some("value")),
        ("input.keys[0]", Some("keys")),
        ("p", Some("p")),
        ("lower(input.x)", None),
    ] {
        assert_eq!(secrets::named(reference).as_deref(), name, "{reference}");
    }
}
