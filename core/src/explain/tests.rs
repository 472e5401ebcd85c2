use std::io::Read;

use super::*;
use crate::decision::event::Event;
use crate::decision::verdict::{self, Verdict};

pub fn bundle(files: &[(&str, &str)]) -> Bundle {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
    Bundle::of(files.collect()).unwrap()
}

fn recorded<'a>(path: &'a str, input: &'a str, result: &'a str) -> Recorded<'a> {
    Recorded { path, input: Some(input), result: Some(result), ..Recorded::default() }
}

/// What was said of each definition: where, how, and at which line and condition it ended.
fn lines(said: &RuleSaid) -> Vec<String> {
    let line = |d: &DefinitionSaid| {
        let unmet = d.unmet.as_ref().map(|u| format!(", unmet {}: {}", u.line, u.text));
        format!("{}:{} {:?}{}", d.file, d.line, d.outcome, unmet.unwrap_or_default())
    };
    said.definitions.iter().map(line).collect()
}

const POLICY: &str = r#"package shop.orders

import rego.v1

# Who may read an order.
default allow := false

allow if {
	input.method == "GET"
	user_is_owner
}

allow if {
	some role in data.roles[input.user]
	role == "support"
	not suspended
}

user_is_owner if {
	input.order.owner == input.user
}

suspended if input.user in data.suspended

tier := "gold" if {
	input.spent > 1000
} else := "silver" if {
	input.spent > 100
} else := "none"

deny contains sprintf("%s is too much", [item.name]) if {
	some item in input.items
	item.amount > 10
}

deny contains "closed" if input.closed
"#;

const DATA: &str = r#"{"roles": {"sam": ["support"], "bob": ["buyer"]}, "suspended": ["sam"]}"#;

fn shop() -> Bundle {
    bundle(&[("orders.rego", POLICY), ("data.json", DATA)])
}

#[test]
fn a_denial_names_the_default_and_what_was_not_met() {
    let input = r#"{"method":"GET","user":"bob","order":{"owner":"eve"}}"#;
    let said = explain(&shop(), &recorded("shop/orders/allow", input, "false")).unwrap();
    assert!(said.reproduced, "{said:?}");
    assert_eq!((said.query.as_str(), said.rules.len()), ("data.shop.orders.allow", 1));
    let allow = &said.rules[0];
    assert_eq!(
        lines(allow),
        [
            "orders.rego:6 Default",
            "orders.rego:8 NotMet, unmet 10: user_is_owner",
            "orders.rego:13 NotMet, unmet 15: role == \"support\"",
        ]
    );
    // What the condition rests on is explained, too, with what stood in the input.
    let unmet = allow.definitions[1].unmet.as_ref().unwrap();
    let owner = &unmet.because[0];
    assert_eq!(owner.name, "data.shop.orders.user_is_owner");
    assert_eq!(lines(owner), ["orders.rego:19 NotMet, unmet 20: input.order.owner == input.user"]);
    let input = &owner.definitions[0].unmet.as_ref().unwrap().input;
    assert_eq!(
        *input,
        [
            ("input.order.owner".to_owned(), Some("eve".into())),
            ("input.user".to_owned(), Some("bob".into()))
        ]
    );
}

#[test]
fn what_must_not_be_and_is_is_explained() {
    let input = r#"{"method":"PUT","user":"sam"}"#;
    let said = explain(&shop(), &recorded("shop/orders/allow", input, "false")).unwrap();
    let allow = &said.rules[0];
    assert_eq!(
        lines(allow)[1..],
        [
            "orders.rego:8 NotMet, unmet 9: input.method == \"GET\"",
            "orders.rego:13 NotMet, unmet 16: not suspended",
        ]
    );
    let unmet = allow.definitions[2].unmet.as_ref().unwrap();
    assert_eq!(lines(&unmet.because[0]), ["orders.rego:23 Gave"]);
}

#[test]
fn an_allowed_one_names_the_rule() {
    let input = r#"{"method":"GET","user":"eve","order":{"owner":"eve"}}"#;
    let said = explain(&shop(), &recorded("shop/orders/allow", input, "true")).unwrap();
    assert!(said.reproduced);
    let lines = lines(&said.rules[0]);
    assert_eq!(lines[0], "orders.rego:8 Gave");
    assert!(lines.contains(&"orders.rego:6 Idle".to_owned()), "{lines:?}");
}

#[test]
fn branches_and_sets_and_parts_of_results() {
    let tier = |spent: &str, result: &str| {
        let said = explain(&shop(), &recorded("shop/orders/tier", spent, result)).unwrap();
        assert!(said.reproduced, "{said:?}");
        lines(&said.rules[0])
    };
    let gold = tier(r#"{"spent":2000}"#, r#""gold""#);
    assert_eq!(
        gold,
        ["orders.rego:25 Gave", "orders.rego:27 NotReached", "orders.rego:29 NotReached"]
    );
    let silver = tier(r#"{"spent":500}"#, r#""silver""#);
    assert_eq!(silver[0], "orders.rego:27 Gave");
    assert_eq!(silver[1], "orders.rego:25 NotMet, unmet 26: input.spent > 1000");
    let input = r#"{"items":[{"name":"cat","amount":1},{"name":"dog","amount":11}]}"#;
    let said =
        explain(&shop(), &recorded("shop/orders/deny", input, r#"["dog is too much"]"#)).unwrap();
    assert!(said.reproduced, "{said:?}");
    let deny = &said.rules[0];
    assert_eq!(
        lines(deny),
        ["orders.rego:31 Gave", "orders.rego:36 NotMet, unmet 36: input.closed"]
    );
    assert_eq!(deny.definitions[0].value, Some(serde_json::json!(["dog is too much"])));
}

#[test]
fn a_whole_package_and_an_undefined_rule() {
    let input = r#"{"spent":1,"items":[]}"#;
    let result = r#"{"allow":false,"deny":[],"tier":"none"}"#;
    let said = explain(&shop(), &recorded("shop/orders", input, result)).unwrap();
    assert!(said.reproduced, "{said:?}");
    let names: Vec<&str> =
        said.rules.iter().map(|rule| rule.name.rsplit('.').next().unwrap()).collect();
    assert_eq!(names, ["allow", "user_is_owner", "suspended", "tier", "deny"]);
    let undefined =
        Recorded { path: "shop/orders/suspended", input: Some("{}"), ..Recorded::default() };
    let said = explain(&shop(), &undefined).unwrap();
    assert!(said.reproduced && said.result.is_none());
    assert_eq!(
        lines(&said.rules[0]),
        ["orders.rego:23 NotMet, unmet 23: input.user in data.suspended"]
    );
}

#[test]
fn old_rego_is_read() {
    let old = "package old\n\ndefault allow = false\n\nallow {\n  input.a == 1\n  input.b == 2\n}\n\ndeny[msg] {\n  input.c\n  msg := \"no c\"\n}\n";
    let bundle = bundle(&[("old.rego", old)]);
    let said = explain(&bundle, &recorded("old/allow", r#"{"a":1,"b":3}"#, "false")).unwrap();
    assert!(said.reproduced, "{said:?}");
    assert_eq!(
        lines(&said.rules[0]),
        ["old.rego:3 Default", "old.rego:5 NotMet, unmet 7: input.b == 2"]
    );
    let said = explain(&bundle, &recorded("old/deny", r#"{"c":true}"#, r#"["no c"]"#)).unwrap();
    assert!(said.reproduced, "{said:?}");
    assert_eq!(lines(&said.rules[0]), ["old.rego:10 Gave"]);
}

#[test]
fn what_is_not_reproduced_says_why() {
    let why = |bundle: &Bundle, recorded: &Recorded<'_>| {
        let said = explain(bundle, recorded).unwrap();
        assert!(!said.reproduced);
        said.differs.join("; ")
    };
    let masked = Recorded {
        masked: Some(r#"["/input/user"]"#),
        ..recorded("shop/orders/allow", r#"{"method":"GET","user":"**"}"#, "true")
    };
    assert!(why(&shop(), &masked).contains("input.user was masked before it was logged"));
    let no_data = bundle(&[("orders.rego", POLICY)]);
    let said = why(&no_data, &recorded("shop/orders/allow", "{}", "true"));
    assert!(
        said.contains("lacks data that its policies use: data.roles, data.suspended"),
        "{said}"
    );
    let imports = |more: &str| {
        let text = format!(
            "package p\nimport rego.v1\nimport data.roles\nimport data.a.b as c # roles\nallow if input.roles == 1\n{more}"
        );
        why(&bundle(&[("p.rego", &text)]), &recorded("p/allow", "{}", "true"))
    };
    assert!(!imports("").contains("lacks data"), "nothing uses it");
    assert!(imports("x if roles[_]\n").contains("its policies use: data.roles"));
    assert!(imports("x := c\n").contains("its policies use: data.a"));
    let http = bundle(&[(
        "p.rego",
        "package p\nimport rego.v1\nallow if http.send({\"method\": \"get\", \"url\": input.url}).status_code == 200\n",
    )]);
    let said = why(&http, &recorded("p/allow", r#"{"url":"http://x"}"#, "true"));
    assert!(said.contains("http.send"), "{said}");
    let said = why(&shop(), &recorded("shop/orders/tier", r#"{"spent":1}"#, r#""gold""#));
    assert!(said.contains("not the one that decided"), "{said}");
}

#[test]
fn a_bundle_that_does_not_hold_what_was_asked_for_says_what_it_holds_and_nothing_is_guessed() {
    // The record would give reasons to guess at: it was masked, and has no input.
    let of = |path, result| {
        let masked = Some(r#"["/input/user"]"#);
        let decision = Recorded { masked, input: None, ..recorded(path, "{}", result) };
        let said = explain(&shop(), &decision).unwrap();
        assert!(!said.reproduced && said.differs.is_empty(), "{said:?}");
        let text = story::explanation(&said, "policies");
        assert!(text.contains("not the bundle that decided") && !text.contains("may be"), "{text}");
        said.lacks.unwrap()
    };
    assert_eq!(
        of("http/authz/allow", "true"),
        "the decision asked for data.http.authz.allow; the bundle has no such package: it has shop.orders"
    );
    let said = of("shop/orders/nothing", "true");
    assert!(said.starts_with("the decision asked for data.shop.orders.nothing; the bundle has its package shop.orders, but no such rule: it has allow, "), "{said}");
    // Undefined is what it was, and here, too; but not for the same reason.
    let undefined = Recorded { result: None, ..recorded("http/authz/allow", "{}", "true") };
    let said = explain(&shop(), &undefined).unwrap();
    assert!(said.reproduced && said.lacks.is_some(), "{said:?}");
    // Data, a part of a result, a whole package and what stands above it are there.
    for path in ["roles", "roles/sam", "shop/orders", "shop", "shop/orders/allow"] {
        assert_eq!(explain(&shop(), &recorded(path, "{}", "1")).unwrap().lacks, None, "{path}");
    }
    let hyphen = bundle(&[("p.rego", "package a[\"b-c\"]\nimport rego.v1\nallow := true\n")]);
    let said = explain(&hyphen, &recorded("a/b-c/allow", "{}", "true")).unwrap();
    assert_eq!((said.lacks, said.reproduced), (None, true));
}

#[test]
fn a_bundle_is_read_as_opa_does() {
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let bundle = Bundle::of(vec![
        file("/a/b/data.json", r#"{"c":1}"#),
        file("/a/data.json", r#"{"x":2}"#),
        file("./p.rego", "package p"),
        file("p_test.rego", "package p_test"),
        file(".manifest", r#"{"revision":"r7"}"#),
        file("a/data.yaml", "y: [1]"),
        file("policy.wasm", ""),
    ])
    .unwrap();
    assert_eq!(bundle.data, serde_json::json!({"a": {"b": {"c": 1}, "x": 2, "y": [1]}}));
    assert_eq!(bundle.policies.len(), 1);
    assert_eq!((bundle.revision.as_deref(), bundle.unread.len()), (Some("r7"), 1));
    assert!(Bundle::of(vec![file("data.json", "{}")]).unwrap_err().contains("no .rego"));
    assert!(Bundle::of(vec![file("x/data.json", "{")]).unwrap_err().starts_with("x/data.json: "));
    let bad = Bundle::of(vec![file("p.rego", "package p"), file("x/data.yml", "a: 1\nb: [")]);
    assert!(bad.unwrap_err().starts_with("x/data.yml: line "));
    let list = Bundle::of(vec![file("p.rego", "package p"), file("data.yaml", "- 1")]);
    assert!(list.unwrap_err().contains("must hold an object"));
}

fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[156] = kind;
    block[257..262].copy_from_slice(b"ustar");
    block.extend_from_slice(content);
    block.resize(512 + content.len().div_ceil(512) * 512, 0);
    block
}

#[test]
fn archives_are_unpacked() {
    let mut tar = entry("dir/", b'5', b"");
    tar.extend(entry("a.rego", b'0', &[b'x'; 513]));
    tar.extend(entry("pax", b'x', b"20 path=long/b.rego\n"));
    tar.extend(entry("short", b'0', b"y"));
    tar.extend(entry("long", b'L', b"gnu/c.rego\0"));
    tar.extend(entry("short", b'0', b"z"));
    tar.extend([0; 1024]);
    let names = |files: Vec<(String, Vec<u8>)>| -> Vec<(String, usize)> {
        files.into_iter().map(|(name, bytes)| (name, bytes.len())).collect()
    };
    let wanted =
        [("a.rego", 513), ("long/b.rego", 1), ("gnu/c.rego", 1)].map(|(n, l)| (n.to_owned(), l));
    assert_eq!(names(unpack(&tar).unwrap()), wanted);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    assert_eq!(names(unpack(&gz.finish().unwrap()).unwrap()), wanted);
    assert!(unpack(&tar[..700]).unwrap_err().contains("cut off"));
    assert!(unpack(&[b'x'; 600]).unwrap_err().contains("no tar"));
}

/// What stands in other packages, or under a name with dots, is found by every way of naming it.
#[test]
fn rules_are_known_by_imports_and_by_names_with_dots() {
    let lib = r#"package lib.helpers

roles contains "manager"
level(role) := 2 if role == "staff"
"#;
    let text = r#"package shop

import data.lib.helpers
import data.lib.helpers as h
import data.lib.helpers.roles

cfg.limit := 5
deny.network contains "closed" if input.closed

a if "admin" in h.roles
b if "admin" in roles
c if helpers.level(input.role) > 2
d if cfg.limit > 9
e if count(deny.network) > 0
"#;
    let bundle = bundle(&[("lib.rego", lib), ("shop.rego", text)]);
    let unmet = |rule: &str| {
        let path = format!("shop/{rule}");
        let input = r#"{"role":"staff"}"#;
        let said = explain(&bundle, &recorded(&path, input, "true")).unwrap();
        said.rules[0].definitions[0].unmet.clone().unwrap()
    };
    let names = |rule: &str| -> Vec<String> {
        unmet(rule).because.iter().map(|said| said.name.clone()).collect()
    };
    assert_eq!(names("a"), ["data.lib.helpers.roles"]);
    assert_eq!(names("b"), ["data.lib.helpers.roles"]);
    assert_eq!(unmet("c").calls, [("helpers.level(input.role)".to_owned(), Some(2.into()))]);
    assert_eq!(names("d"), ["data.shop.cfg.limit"]);
    assert_eq!(unmet("d").because[0].value, Some(5.into()));
    assert_eq!(names("e"), ["data.shop.deny.network"]);
}

/// Under `with` other things are true; where all conditions are met and there is no value, it is the value that is missing.
#[test]
fn what_is_asked_of_another_input_says_nothing_of_this_one_and_a_value_may_be_missing() {
    let text = r#"package shop

c if input.state == "green"
w if c with input.state as "red"
tier := "gold" if input.spent > 100
allow if input.ok
decision := {"allow": allow, "tier": tier, "missing": input.missing, "state": input.state}
"#;
    let bundle = bundle(&[("shop.rego", text)]);
    let unmet = |rule: &str| {
        let path = format!("shop/{rule}");
        let input = r#"{"state":"green","ok":true}"#;
        let said = explain(&bundle, &recorded(&path, input, "true")).unwrap();
        (said.rules[0].definitions[0].unmet.clone().unwrap(), story::explanation(&said, "b"))
    };
    let (with, _) = unmet("w");
    assert!(with.text.contains(" with ") && with.input.is_empty() && with.because.is_empty());
    let (value, story) = unmet("decision");
    assert!(value.value && value.text.starts_with('{'), "{value:?}");
    assert_eq!(value.input, [("input.missing".to_owned(), None)]);
    let names: Vec<&str> = value.because.iter().map(|said| said.name.as_str()).collect();
    assert_eq!(names, ["data.shop.tier"]);
    assert!(story.contains("no value: {") && story.contains("data.shop.tier is undefined"));
}

/// Who failed there and fails here has done the same; no rule has said anything.
#[test]
fn an_evaluation_that_fails_is_as_recorded_if_it_failed() {
    let text = "package p\n\ndefault allow := false\nallow if f(input.a) == 1\nf(x) := 1 if x > 0\nf(x) := 2 if x > 1\n";
    let bundle = bundle(&[("p.rego", text)]);
    let error = r#"{"code":"eval_conflict_error","message":"functions must not"}"#;
    let failed = Recorded {
        path: "p/allow",
        input: Some(r#"{"a":2}"#),
        error: Some(error),
        ..Recorded::default()
    };
    let said = explain(&bundle, &failed).unwrap();
    assert!(said.reproduced && said.rules.is_empty(), "{said:?}");
    let story = story::explanation(&said, "b");
    assert!(story.contains("It fails here, too:\n    p.rego:"), "{story}");
    let said = explain(&bundle, &Recorded { error: None, ..failed }).unwrap();
    assert!(!said.reproduced && said.rules.is_empty(), "{said:?}");
    let input = Some(r#"{"a":1}"#);
    let said = explain(&bundle, &Recorded { input, ..failed }).unwrap();
    assert!(!said.reproduced, "it does not fail here: {said:?}");
    assert!(said.differs.iter().any(|why| why.contains("OPA's evaluation failed")), "{said:?}");
}

/// A rule that gave its value is never said not to be met, whatever the value looks like.
#[test]
fn whoever_gave_the_value_is_named_whatever_the_value_is() {
    for value in [
        r#"{"allowed": true, "why": "role"}"#,
        r#"{ "allowed": true, "headers": {"x": input.u, "y": [1, 2]}, "n": {1, 2} }"#,
        "(1 + 2) * 3",
        "(1 + 2) * (3 + 4)",
        r#"[x | some x in [1, 2]]"#,
        r#"{k: v | some k, v in {"a": 1}}"#,
        r#"{"a", "b"}"#,
        r#"[{"a": 1, "b": 2}, "c"]"#,
        r#"sprintf("%s is (not) %d", [input.u, 2])"#,
        r#"{"a": "}", "b": input.u}"#,
        "`raw`",
        r#"{"a": 1, "b": 2}["a"]"#,
        "-1",
    ] {
        let text = format!(
            "package p\n\ndefault answer := {{\"allowed\": false, \"why\": \"default\"}}\nanswer := {value} if {{\n\tinput.a == 1\n\tinput.b == 2\n}} else := {{\"allowed\": false, \"why\": \"blocked\"}} if {{\n\tinput.a == 2\n}}\ns contains {value} if input.a == 1\nt contains {value}\n"
        );
        let bundle = bundle(&[("p.rego", &text)]);
        let first = |path: &str, input: &str| {
            let said = explain(&bundle, &recorded(path, input, "0")).unwrap();
            let all = lines(&said.rules[0]);
            let gave = all.iter().filter(|l| l.contains("Gave") || l.contains("Default")).count();
            assert_eq!(gave, 1, "{value}: {all:?}");
            all[0].clone()
        };
        let given = first("p/answer", r#"{"a":1,"b":2,"u":"x"}"#);
        assert_eq!(given, "p.rego:4 Gave", "{value}");
        assert_eq!(first("p/answer", r#"{"a":2,"u":"x"}"#), "p.rego:7 Gave", "{value}");
        assert_eq!(first("p/answer", r#"{"a":3,"u":"x"}"#), "p.rego:3 Default", "{value}");
        assert_eq!(first("p/s", r#"{"a":1,"u":"x"}"#), "p.rego:10 Gave", "{value}");
        assert_eq!(first("p/t", r#"{"u":"x"}"#), "p.rego:11 Gave", "{value}");
    }
}

/// A function has no value without its arguments: what it said of these is told, and never that it is undefined.
#[test]
fn what_functions_said_is_told_by_their_calls() {
    let rules = "package rules\nlong(list) := n if { n := count(list); n > 2 }";
    let text = r#"package http.authz

default allow := false
allow if not denied(input.path)
allow if data.rules.long(input.list)
allow if {
	some x in input.list
	not denied(concat("(", [x, input.path])); mark(x) == mark(")")
}
denied(p) if startswith(p, "/admin")
mark(x) := upper(x)
"#;
    let bundle = bundle(&[("a.rego", text), ("rules.rego", rules)]);
    let input = r#"{"path":"/admin/x","list":["a","b"]}"#;
    let said = explain(&bundle, &recorded("http/authz/allow", input, "false")).unwrap();
    assert!(said.reproduced, "{said:?}");
    let unmet = |at: usize| said.rules[0].definitions[at].unmet.as_ref().unwrap();
    assert_eq!(unmet(1).calls, [("denied(input.path)".to_owned(), Some(true.into()))]);
    assert_eq!(unmet(2).calls, [("data.rules.long(input.list)".to_owned(), None)]);
    // Of two values of x nothing is one answer; what does not depend on it is.
    assert_eq!(unmet(3).calls, [("mark(\")\")".to_owned(), Some(")".into()))]);
    assert!(
        said.rules[0]
            .definitions
            .iter()
            .all(|d| { d.unmet.as_ref().is_none_or(|unmet| unmet.because.is_empty()) })
    );
    let story = story::explanation(&said, "policies");
    assert!(story.contains("        denied(input.path) is true\n"), "{story}");
    assert!(!story.contains("denied is undefined"), "{story}");
}

/// What a real OPA decided and wrote, with its policies: each is reproduced, and each denial has a line.
#[test]
fn the_samples_of_a_real_opa_are_explained() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data");
    let bytes = std::fs::read(format!("{data}/decisions-opa-1.22.2.ndjson.gz")).unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    let files = ["app.rego", "decision.rego", "envoy.rego", "k8s.rego"]
        .map(|name| (name.to_owned(), std::fs::read(format!("{data}/policies/{name}")).unwrap()));
    let bundle = Bundle::of(files.to_vec()).unwrap();
    let (mut denials, mut missed) = (0, Vec::new());
    // Every seventh: the whole lot takes minutes.
    let step = if std::env::var_os("DOCKET_FULL").is_some() { 1 } else { 7 };
    for line in text.lines().step_by(step) {
        let event = Event::parse(line.as_bytes()).unwrap();
        if event.path.is_empty() || event.error.is_some() {
            continue;
        }
        let recorded = Recorded {
            path: &event.path,
            result: event.result,
            input: event.input,
            ..Recorded::default()
        };
        let said = explain(&bundle, &recorded).unwrap();
        if !said.reproduced {
            missed.push(format!("{} {} {:?}", event.path, event.decision_id, said.result));
        }
        if verdict::judge(&event, &verdict::Rules::default()).verdict == Verdict::Deny {
            denials += 1;
            let gave = said.rules.iter().flat_map(|rule| &rule.definitions);
            let gave = gave.filter(|d| matches!(d.outcome, Outcome::Gave | Outcome::Default));
            assert!(gave.count() > 0, "{} {}: {said:?}", event.path, event.decision_id);
        }
    }
    assert!(denials > 50, "{denials}");
    assert_eq!(missed, Vec::<String>::new());
}

/// The samples of examples/why, as people see them.
#[test]
fn a_story_has_eighty_columns_and_names_the_line() {
    use crate::decision::record::{Record, Rules, write};
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/why");
    let text = std::fs::read_to_string(format!("{examples}/decisions.ndjson")).unwrap();
    let files = ["app.rego", "decision.rego", "envoy.rego", "k8s.rego"].map(|name| {
        (name.to_owned(), std::fs::read(format!("{examples}/policies/{name}")).unwrap())
    });
    let bundle = Bundle::of(files.to_vec()).unwrap();
    let stories: Vec<String> = text
        .lines()
        .map(|line| {
            let event = Event::parse(line.as_bytes()).unwrap();
            let mut record = Vec::new();
            write(&event, &[], None, &Rules::default(), &mut record);
            let recorded = Recorded {
                path: &event.path,
                result: event.result,
                input: event.input,
                ..Recorded::default()
            };
            let said = explain(&bundle, &recorded).unwrap();
            let record = Record::parse(&record).unwrap();
            format!("{}\n{}", story::decision(&record), story::explanation(&said, "policies"))
        })
        .collect();
    for line in stories.iter().flat_map(|story| story.lines()) {
        // A value is not broken: it is to be copied.
        let value = line.trim_start().starts_with('"');
        assert!(line.chars().count() <= 80 || value, "{line}");
    }
    let envoy = stories.iter().find(|story| story.starts_with("DENY  envoy/authz/allow")).unwrap();
    for wanted in [
        "  decision  438ee5cd-9339-40c6-a799-673641a06288\n",
        "  what      DELETE /api/v1/items/97\n",
        "as it was recorded.",
        "  envoy.rego:5  gave it, since no other was met\n      default allow := false\n",
        "input.attributes.request.http.method is \"DELETE\"",
    ] {
        assert!(envoy.contains(wanted), "{wanted:?} is not in\n{envoy}");
    }
    let pod = stories.iter().find(|story| story.starts_with("DENY  kubernetes/admission")).unwrap();
    assert!(pod.contains("  k8s.rego:5  gave it\n"), "{pod}");
}

#[test]
fn what_a_terminal_would_obey_is_not_printed() {
    let said = Explanation {
        evaluated_by: "regorus".into(),
        beyond_regorus: None,
        failed: None,
        query: "data.p".into(),
        result: Some("\u{1b}[2J".into()),
        recorded: None,
        reproduced: false,
        uncertain: false,
        differs: vec![format!("{} \u{1b}]0;x", "word ".repeat(40))],
        lacks: None,
        left_out: vec![],
        rules: vec![],
    };
    let text = story::explanation(&said, "\u{7}policies");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(text.contains("NOT REPRODUCED"));
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_long_value_stands_on_one_line() {
    use crate::decision::record::{Record, Rules, write};
    let long = format!("{} {}", "x".repeat(90), "y".repeat(90));
    let decision = format!(
        r#"{{"decision_id":"d","path":"a","result":true,"timestamp":"2026-11-24T12:48:50Z","input":{{"tracestate":"{long}"}}}}"#
    );
    let (event, mut record) = (Event::parse(decision.as_bytes()).unwrap(), Vec::new());
    write(&event, &[], None, &Rules::default(), &mut record);
    let text = story::decision(&Record::parse(&record).unwrap());
    assert!(text.contains(&format!("\n      \"tracestate\": \"{long}\"\n")), "{text}");
}
