//! What `docket why` tells of policies as people write them: who gave which message, which elements were tried, and nothing twice.

use super::tests::bundle as files;
use super::*;

fn said(text: &str, path: &str, input: &str, result: Option<&str>) -> (Explanation, String) {
    let bundle = files(&[("c.rego", text)]);
    let recorded = Recorded { path, input: Some(input), result, ..Recorded::default() };
    let said = explain(&bundle, &recorded).unwrap();
    let story = story::explanation(&said, "b");
    assert!(said.reproduced, "{story}");
    (said, story)
}

#[test]
fn which_definition_gave_which_message_is_told() {
    let text = r#"package k
import rego.v1
deny contains msg if {
	some c in input.containers
	not startswith(c.image, "reg/")
	msg := sprintf("%s is not ours", [c.image])
}
deny contains "it is privileged" if input.privileged
deny contains "it has no owner" if not input.owner
violation contains {"msg": msg} if {
	some msg in deny
}
reasons[name] := msg if {
	some c in input.containers
	name := c.name
	msg := concat(" of ", [c.image, "elsewhere"])
}
reasons["pod"] := "privileged" if input.privileged
reasons["never"] := "x" if input.never
"#;
    let input = r#"{"privileged":true,"owner":"x","containers":[{"name":"a","image":"b/a"},{"name":"b","image":"reg/b"},{"name":"c","image":"b/c"}]}"#;
    let denied = r#"["b/a is not ours","b/c is not ours","it is privileged"]"#;
    let (_, story) = said(text, "k/deny", input, Some(denied));
    for line in [
        "  c.rego:3  gave \"b/a is not ours\", \"b/c is not ours\"\n",
        "  c.rego:8  gave \"it is privileged\"\n",
        "  c.rego:9  not met\n",
    ] {
        assert!(story.contains(line), "{line}: {story}");
    }
    let reasons = r#"{"a":"b/a of elsewhere","b":"reg/b of elsewhere","c":"b/c of elsewhere","pod":"privileged"}"#;
    let (told, story) = said(text, "k/reasons", input, Some(reasons));
    assert!(story.contains("  c.rego:18  gave \"pod\": \"privileged\"\n"), "{story}");
    assert!(story.contains("  c.rego:13  gave \"a\": \"b/a of elsewhere\", \"b\": "), "{story}");
    assert!(story.contains("  c.rego:19  not met\n"), "{story}");
    assert_eq!(told.rules[0].definitions[1].value, Some(serde_json::json!({"pod": "privileged"})));
    // As Gatekeeper and v0 have it.
    let old = "package k\nviolation[{\"msg\": msg}] {\n\tinput.privileged\n\tmsg := \"it is privileged\"\n}\n\
        violation[{\"msg\": msg}] {\n\tc := input.containers[_]\n\tc.name == \"a\"\n\tmsg := c.image\n}\n\
        level[c.name] = n { c := input.containers[_]; n := count(c.image) }\nlevel[\"pod\"] = 9 { input.owner }\n";
    let both = r#"[{"msg":"it is privileged"},{"msg":"b/a"}]"#;
    let (_, story) = said(old, "k/violation", input, Some(both));
    assert!(story.contains("c.rego:2  gave {\"msg\":\"it is privileged\"}"), "{story}");
    assert!(story.contains("c.rego:6  gave {\"msg\":\"b/a\"}"), "{story}");
    let (_, story) = said(old, "k/level", input, Some(r#"{"a":3,"b":5,"c":3,"pod":9}"#));
    assert!(
        story.contains("gave \"pod\": 9") && story.contains("gave \"a\": 3, \"b\": 5"),
        "{story}"
    );
}

/// Another definition may have given more, where what one gave is not all.
#[test]
fn of_a_partial_object_each_definition_counts() {
    let text = "package c\nimport rego.v1\nwhy[\"a\"] := 1 if input.n == 1\nwhy[\"b\"] := 2 if input.user in data.users\n";
    let (said, story) = said(text, "c/why", r#"{"n":1,"user":"ann"}"#, Some(r#"{"a":1}"#));
    assert!(said.uncertain, "{story}");
}

#[test]
fn of_a_package_each_rule_is_told_once() {
    let text = r#"package api
import rego.v1
default allow := false
allow if {
	is_member
	input.method == "GET"
}
allow if {
	is_member
	is_owner
}
is_member if "member" in input.roles
is_owner if { is_member; input.owner == input.user }
status := 403 if not allow
"#;
    let input = r#"{"roles":["guest"],"method":"POST","user":"a","owner":"b"}"#;
    let (_, story) = said(text, "api", input, Some(r#"{"allow":false,"status":403}"#));
    assert_eq!(story.matches("c.rego:12  not met").count(), 1, "{story}");
    assert_eq!(story.matches("data.api.is_member is undefined, as above (c.rego:12)").count(), 3);
    // What was not told there, since it goes without saying of what is met, is told where it matters.
    let text = "package c\nimport rego.v1\nlocked if old\nold if input.age > 50\nenter if not locked\nagain if not locked\n";
    let (_, story) = said(text, "c/locked", r#"{"age":60}"#, Some("true"));
    assert!(!story.contains("data.c.old"), "{story}");
    let (_, story) = said(text, "c", r#"{"age":60}"#, Some(r#"{"locked":true,"old":true}"#));
    assert_eq!(story.matches("data.c.old is true\n").count(), 1, "{story}");
    assert!(story.contains("data.c.locked is true, as above (c.rego:3)"), "{story}");
}

#[test]
fn what_variables_stood_for_is_told_however_they_are_bound() {
    let text = "package c\nCONDITION\n";
    let roles: Vec<String> = (10..35).map(|n| format!("\"r{n}\"")).collect();
    let input = format!(
        r#"{{"path":"orders/7","x":1,"z":2,"roles":[{}],"user":{{"name":"ann","team":"ops"}},"pods":[{{"security":{{"privileged":false}}}},{{}}]}}"#,
        roles.join(",")
    );
    for (body, told) in [
        (r#"[a, b] := split(input.path, "/"); b == "8""#, r#"b is "7""#),
        (r#"[a, b] = split(input.path, "/"); b == "8""#, r#"b is "7""#),
        (r#"[a, b, c] = split(input.path, "/")"#, r#"split(input.path, "/") is ["orders","7"]"#),
        (r#"{"name": n, "team": t} = input.user; t == "dev""#, r#"t is "ops""#),
        (r#"{"q": y} = input"#, r#"object.keys(input) is ["path","pods","roles","user","x","z"]"#),
        (r#"{"q": y} := input"#, r#"object.keys(input) is ["path","pods","roles","user","x","z"]"#),
        (
            r#"some i; input.roles[i] == "admin""#,
            r#"input.roles[i], in turn (the first 5 of 25), is ["r10","r11","r12","r13","r14"]"#,
        ),
        (r#"input.roles[i] == "admin""#, r#"in turn (the first 5 of 25), is ["r10","#),
        (r#"r = input.roles[_]; r == "admin""#, r#"r, in turn (the first 5 of 25), is ["r10","#),
        (r#"some r in input.roles; r == "admin""#, r#"r, in turn (the first 5 of 25), is ["r10","#),
        (
            r#"c = input.pods[_]; c.security.privileged"#,
            r#"c.security.privileged, in turn, is [false]"#,
        ),
        (
            r#"every r in input.roles { r == "r10" }"#,
            r#"r, where it fails (the first 5 of 24), is ["r11","#,
        ),
    ] {
        let text = text.replace("CONDITION", &format!("import rego.v1\nok if {{ {body} }}"));
        let (_, story) = said(&text, "c/ok", &input, None);
        let flat = story.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(told) && !flat.contains("i is not there"), "{body}: {story}");
    }
    let names = |text: &str| texts::unified(text).into_iter().collect::<String>();
    assert_eq!(names("[a, _] = f(x)"), "_a");
    assert_eq!(names("input.r = {\"k=v\": y}"), "y");
    assert_eq!(names("a == b; c := d; e >= f; g != h"), "");
    assert_eq!(names("r = input.x[i]"), "r");
}

/// What a variable that is unified stands for rests on what it is unified with.
#[test]
fn what_is_unified_with_what_is_erased_is_doubted() {
    let text = "package c\nimport rego.v1\nok if { claims = input.token; claims.sub == \"bob\" }\n";
    let bundle = files(&[("c.rego", text)]);
    let recorded = Recorded {
        path: "c/ok",
        input: Some(r#"{"token":{"sub":"x"}}"#),
        erased: Some(r#"["/input/token/sub"]"#),
        ..Recorded::default()
    };
    let said = explain(&bundle, &recorded).unwrap();
    assert!(said.uncertain, "{}", story::explanation(&said, "b"));
}

/// By how far numbers may be off, and not by what they are made of.
#[test]
fn numbers_that_are_far_apart_are_certain() {
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDB9.c2ln"; // {"exp":1700000000}
    let input = format!(
        r#"{{"token":"{token}","exp":1700000000,"price":19.99,"big":12345678901234567890123,"nine":0.9,"three":3}}"#
    );
    let text = r#"package c
import rego.v1
ok if {
	[_, claims, _] := io.jwt.decode(input.token)
	now := time.now_ns() / 1000000000
	CONDITION
	input.never
}
expired if input.exp < time.now_ns() / 1000000000
odd if ceil(10 / 3) == 3
third if 10 / 3 == 3.3333333333333335
"#;
    let at = 1_795_524_530_000_000_000_i64;
    for (condition, certain) in [
        ("claims.exp < now", true),
        ("claims.exp > now", true),
        ("not claims.exp > now", true),
        ("claims.exp + 95524530 < now", false),
        ("claims.exp + 95524520 < now", true),
        ("time.now_ns() / 1e9 - claims.exp > 3600", false),
        ("time.now_ns() / 1000000000 - claims.exp > 3600", true),
        ("input.price * 1.2 > 100", true),
        ("input.price * 100 == 1999", false),
        ("input.nine / 3 == 0.3", false),
        ("input.big > 5", true),
        ("input.big == 12345678901234567890123", false),
        ("10 / 5 == 2", true),
        ("input.three / 2 > 1.5", false),
        ("(input.price + 1) / -2 > 0", true),
        ("floor(input.price / 2) == 3", false),
        ("not expired", true),
        ("expired", true),
        ("third", false),
        ("odd", false),
        ("not third", false),
    ] {
        let text = text.replace("CONDITION", condition);
        let bundle = files(&[("c.rego", &text)]);
        let recorded = Recorded {
            path: "c/ok",
            input: Some(&input),
            timestamp: Some(at),
            ..Recorded::default()
        };
        let said = explain(&bundle, &recorded).unwrap();
        let story = story::explanation(&said, "b");
        assert!(said.reproduced && said.uncertain != certain, "{condition}: {story}");
        assert_eq!(said.beyond_regorus.is_some(), !certain, "{condition}: {story}");
    }
}

/// Nothing that was erased is shown by what is new.
#[test]
fn secrets_are_in_no_message_no_name_and_no_element() {
    let secret = "Zq8vXw3LmN7pRt5K";
    let text = r#"package c
import rego.v1
deny contains msg if { some k in input.keys; msg := sprintf("no %s", [k]) }
deny contains "plain" if input.n == 1
why[k] := "bad" if some k in input.keys
why["plain"] := strings.reverse(input.password) if input.n == 1
tried if { k = input.keys[_]; k == "x" }
part if { [a, b] = split(input.password, "5"); a == "x" }
named if { {"x": y} = input }
"#;
    let input = format!(
        r#"{{"n":1,"keys":["{secret}","{secret}b","c","d","e","f","g"],"password":"{secret}","{secret}":1}}"#
    );
    let shown = r#"{"decision_id":"d","input":{"n":1,"keys":"[erased:named]","password":"[erased:named]"},"docket":{}}"#;
    for path in ["c/deny", "c/why", "c/tried", "c/part", "c/named", "c"] {
        let recorded =
            Recorded { path, input: Some(&input), shown: Some(shown), ..Recorded::default() };
        let said = explain(&files(&[("c.rego", text)]), &recorded).unwrap();
        let all = story::explanation(&said, "b") + &serde_json::to_string(&said).unwrap();
        let reversed: String = secret.chars().rev().collect();
        for part in [secret, "Zq8vXw", "mN7pRt", reversed.as_str()] {
            assert!(!all.contains(part), "{path}: {all}");
        }
    }
}
