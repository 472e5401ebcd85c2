//! Of what nobody can know here it is said so, and what may be known is.

use super::tests::bundle as files;
use super::*;

fn said(text: &str, data: &str, recorded: &Recorded<'_>) -> (Explanation, String) {
    let bundle = files(&[("c.rego", text), ("data.yaml", data)]);
    let said = explain(&bundle, recorded).unwrap();
    let story = story::explanation(&said, "b");
    (said, story)
}

fn denied<'a>(path: &'a str, input: &'a str) -> Recorded<'a> {
    Recorded { path, input: Some(input), result: Some("false"), ..Recorded::default() }
}

fn unmet(said: &Explanation) -> &Unmet {
    let unmet = said.rules[0].definitions.iter().find_map(|d| d.unmet.as_ref());
    unmet.unwrap()
}

fn next(unmet: &Unmet) -> &Unmet {
    match &unmet.then {
        Some(Then::Ends(next)) => next,
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_that_nobody_gave_makes_an_explanation_uncertain() {
    let text = "package app.authz\nimport rego.v1\nimport data.app.admins as those\ndefault allow := false\n\
        allow if {\n\tinput.user in those\n\tinput.method == \"GET\"\n}\n";
    let post = denied("app/authz/allow", r#"{"user":"ann","method":"POST"}"#);
    // With the data there is nothing to doubt.
    let (whole, story) = said(text, "app: {admins: [ann]}", &post);
    assert!(whole.reproduced && !whole.uncertain, "{story}");
    assert_eq!(unmet(&whole).text, r#"input.method == "GET""#);
    // Without it, or with it at another place, the condition is named, with what it lacks, and the next.
    for data in ["other: 1", "admins: [ann]"] {
        let (lacking, story) = said(text, data, &post);
        assert!(lacking.reproduced && lacking.uncertain, "{story}");
        assert!(story.contains("data.app.admins is not in the bundle"), "{story}");
        assert_eq!(next(unmet(&lacking)).text, r#"input.method == "GET""#);
        assert!(
            story.contains("UNCERTAIN") && story.contains("input.method is \"POST\""),
            "{story}"
        );
    }
    // What is given and does not have it, is what OPA had.
    let data = "app: {admins: [ben]}";
    let (known, story) = said(text, data, &post);
    assert!(!known.uncertain && unmet(&known).text.contains("those"), "{story}");
}

#[test]
fn data_behind_a_function_a_variable_and_another_rule_is_missed_too() {
    for body in [
        "admin(input.user)",
        "all := {x | some x in data.admins}; input.user in all",
        "is_admin",
        "not stranger",
    ] {
        let text = format!(
            "package c\nimport rego.v1\nallow if {{ {body}; input.n == 1 }}\nadmin(u) if u in data.admins\n\
             is_admin if input.user in data.admins\nstranger if not is_admin\n"
        );
        let recorded = Recorded { result: None, ..denied("c/allow", r#"{"user":"ann","n":2}"#) };
        let (uncertain, story) = said(&text, "x: 1", &recorded);
        assert!(uncertain.uncertain, "{body}: {story}");
    }
}

#[test]
fn what_was_erased_or_masked_may_have_met_a_condition() {
    let text = "package c\nimport rego.v1\nimport input.headers as h\ndefault allow := false\nallow if {\n\tkey == \"k\"\n\
        \tinput.n == 1\n}\n";
    for (condition, input, erased, told) in [
        ("input.key", r#"{"n":2}"#, r#"["/input/key"]"#, "input.key was erased"),
        ("input.a.key", r#"{"n":2}"#, r#"["/input/a"]"#, "input.a was erased"),
        (
            r#"object.get(input.a, "key", "")"#,
            r#"{"n":2,"a":{}}"#,
            r#"["/input/a/key"]"#,
            "input.a.key was erased",
        ),
        (
            r#"h["x-key"]"#,
            r#"{"n":2,"headers":{"x-key":"[erased:named]"}}"#,
            "[]",
            r#"docket's protection took input.headers["x-key"] out of the record"#,
        ),
        (
            "h.k",
            r#"{"n":2,"headers":{"k":"hmac:0123456789abcdef0123456789abcdef"}}"#,
            "[]",
            "docket's protection took input.headers.k out of the record",
        ),
    ] {
        let text = text.replace("key ==", &format!("{condition} =="));
        let recorded = Recorded { erased: Some(erased), ..denied("c/allow", input) };
        let (said, story) = said(&text, "x: 1", &recorded);
        assert!(
            said.uncertain && story.replace("\n            ", " ").contains(told),
            "{condition}: {story}"
        );
        assert_eq!(next(unmet(&said)).text, "input.n == 1", "{condition}: {story}");
    }
    // Another part of the input is what OPA saw.
    let text = text.replace("key ==", r#"object.get(input, "b", "") =="#);
    let recorded =
        Recorded { erased: Some(r#"["/input/key"]"#), ..denied("c/allow", r#"{"b":"x"}"#) };
    assert!(!said(&text, "x: 1", &recorded).0.uncertain);
}

#[test]
fn if_all_else_is_met_that_is_said() {
    let text = "package c\nimport rego.v1\nallow if { input.key == \"k\"; input.n == 1 }\n";
    let erased = Some(r#"["/input/key"]"#);
    let recorded = Recorded { erased, result: None, ..denied("c/allow", r#"{"n":1}"#) };
    let (said, story) = said(text, "x: 1", &recorded);
    assert_eq!(unmet(&said).then, Some(Then::Met), "{story}");
    assert!(story.contains("if it was, all other conditions are met"), "{story}");
}

/// The clock stands where the decision's did.
#[test]
fn the_clock_is_the_decisions() {
    let text =
        "package c\nimport rego.v1\ndefault allow := false\nallow if time.now_ns() < input.until\n";
    let until = 1_700_000_000_000_000_000_i64;
    let input = format!(r#"{{"until":{until}}}"#);
    let decided = |at: i64, result| {
        let input = Some(input.as_str());
        let timestamp = Some(until + at);
        let duration = Some(10);
        let path = "c/allow";
        let recorded = Recorded { path, input, timestamp, duration, result, ..Recorded::default() };
        said(text, "x: 1", &recorded).0.reproduced
    };
    assert!(decided(-1, Some("true")) && decided(20, Some("false")));
    assert!(!decided(20, Some("true")) && !decided(-20, Some("false")));
    // Within the evaluation it may have been either.
    assert!(decided(5, Some("true")) && decided(5, Some("false")));
}

#[test]
fn a_builtin_that_is_lacking_leaves_the_other_rules_and_is_named() {
    let text = "package c\nimport rego.v1\ndefault allow := false\nallow if input.n == 1\nallow if {\n\t\
        io.jwt.verify_rs256(input.token, input.cert)\n\tinput.n == 3\n}\n\
        first if io.jwt.decode(input.token)[1].sub == \"ann\"\n\
        second if { [_, claims, _] := io.jwt.decode(input.token); claims.sub == \"bob\" }\n";
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln";
    let input = |n: i64| format!(r#"{{"n":{n},"token":"{token}","cert":"c"}}"#);
    let one = input(1);
    let (met, story) =
        said(text, "x: 1", &Recorded { result: Some("true"), ..denied("c/allow", &one) });
    assert!(met.reproduced && !met.uncertain, "{story}");
    let two = input(2);
    let (lacking, story) = said(text, "x: 1", &denied("c/allow", &two));
    assert!(lacking.reproduced && lacking.uncertain, "{story}");
    assert!(story.contains("io.jwt.verify_rs256 can't be evaluated without OPA"), "{story}");
    assert!(story.contains("if it was, the next that is not met, line 7: input.n == 3"), "{story}");
    let (first, story) =
        said(text, "x: 1", &Recorded { result: Some("true"), ..denied("c/first", &two) });
    assert!(first.reproduced && !first.uncertain, "{story}");
    let (second, story) =
        said(text, "x: 1", &Recorded { result: None, ..denied("c/second", &two) });
    assert!(second.reproduced && !second.uncertain, "{story}");
    assert!(story.contains("claims.sub is \"ann\""), "{story}");
    // What is only lacking does not answer otherwise now.
    let (other, _) =
        said(text, "x: 1", &Recorded { result: Some("true"), ..denied("c/allow", &two) });
    assert!(other.differs.iter().any(|why| why.contains("lacks") && why.contains("verify_rs256")));
    assert!(other.differs.iter().all(|why| !why.contains("now")), "{:?}", other.differs);
}

#[test]
fn a_conflict_is_one_in_whichever_form_it_was_recorded() {
    let text = "package c\nimport rego.v1\nprice := 1 if input.a\nprice := 2 if input.b\n";
    let error =
        r#""c.rego:3: eval_conflict_error: complete rules must not produce multiple outputs""#;
    for (error, same) in [(error, true), (r#""c.rego:3: eval_cancel_error: cancelled""#, false)] {
        let recorded = denied("c/price", r#"{"a":true,"b":true}"#);
        let (said, story) =
            said(text, "x: 1", &Recorded { error: Some(error), result: None, ..recorded });
        assert_eq!(said.reproduced, same, "{story}");
        assert_eq!(story.contains("It fails here, too"), same, "{story}");
    }
}

#[test]
fn variables_may_have_the_names_of_rules_and_imports() {
    let lib = "package lib.http\nimport rego.v1\nget if input.method == \"GET\"\n";
    let text = "package c\nimport rego.v1\nimport data.lib.http as req\n# some req in this comment: don't\n\
        role := \"none\"\nallow if {\n\treq.get\n\tinput.n == 1\n}\nx if {\n\tsome x in input.list\n\tx > 5\n}\n\
        many contains req.id if {\n\tsome req in input.requests\n\treq.ok\n}\n\
        other if { some role in input.roles; role == \"admin\" }\n\
        none if every role in input.roles { role == \"none\" }\n";
    let bundle = files(&[("lib.rego", lib), ("c.rego", text)]);
    let input = r#"{"n":2,"method":"GET","list":[1],"roles":["user"],"requests":[{"id":"a","ok":true},{"id":"b"}]}"#;
    for (path, result, ends) in [
        ("c/allow", None, Some("input.n == 1")),
        ("c/many", Some(r#"["a"]"#), None),
        ("c/other", None, Some(r#"role == "admin""#)),
        ("c/none", None, Some(r#"every role in input.roles { role == "none" }"#)),
        ("c/x", None, Some("x > 5")),
    ] {
        let recorded = Recorded { result, ..denied(path, input) };
        let said = explain(&bundle, &recorded).unwrap();
        let story = story::explanation(&said, "b");
        assert!(said.reproduced, "{path}: {story}");
        let unmet = said.rules[0].definitions[0].unmet.as_ref();
        assert_eq!(unmet.map(|unmet| unmet.text.as_str()), ends, "{path}: {story}");
        assert!(unmet.is_none_or(|unmet| unmet.because.is_empty()), "{path}: {story}");
    }
}

#[test]
fn what_stands_in_a_condition_is_told() {
    let text = "package c\nimport rego.v1\nimport input.user as u\nallow if {\n\tsome role in input.roles\n\th := input.hour + 1\n\
        \tinput.ok\n\tCONDITION\n}\n";
    let input = r#"{"roles":["a","b"],"hour":9,"ok":true,"user":{"role":"guest"},"sku":"x","q":[1,7,9],"list":[1,2]}"#;
    for (condition, told) in [
        (r#"role == "support""#, r#"role, in turn, is ["a","b"]"#),
        ("h < 8", "h is 10"),
        ("input.hour > data.max[input.sku]", "data.max[input.sku] is 20"),
        ("data.max[input.ok]", "data.max[input.ok] is not there"),
        (r#"u.role == "admin""#, r#"u.role is "guest""#),
        ("every n in input.q { n < 5 }", "n, where it fails, is [7,9]"),
        (
            r#"object.get(input, "tier", "none") == "gold""#,
            r#"object.get(input, "tier", "none") is "none""#,
        ),
        ("count(input.list) > 2", "count(input.list) is 2"),
        (r#"input.roles[_] == "z""#, r#"input.roles[_], in turn, is ["a","b"]"#),
    ] {
        let text = text.replace("CONDITION", condition);
        let recorded = Recorded { result: None, ..denied("c/allow", input) };
        let (said, story) = said(&text, "max: {x: 20}", &recorded);
        assert!(said.reproduced && !said.uncertain, "{condition}: {story}");
        assert_eq!(unmet(&said).text, condition, "{story}");
        assert!(story.contains(told), "{condition}: {story}");
    }
}

#[test]
fn where_deeper_rules_are_cut_off_that_is_said() {
    let chain = |depth: usize| {
        let rules = (0..depth).map(|n| format!("r{n} if r{}\n", n + 1));
        format!("package c\nimport rego.v1\n{}r{depth} if input.ok\n", rules.collect::<String>())
    };
    let recorded = Recorded { result: None, ..denied("c/r0", "{}") };
    let (_, story) = said(&chain(3), "x: 1", &recorded);
    assert!(!story.contains("deeper rules"), "{story}");
    let (_, story) = said(&chain(6), "x: 1", &recorded);
    assert!(story.contains("deeper rules are not shown"), "{story}");
}

#[test]
fn a_policy_that_can_not_be_read_is_told_with_its_line() {
    let bad = files(&[("p.rego", "package p\nimport rego.v1\n\nallow if {\n\tinput.a ==\n}\n")]);
    let error = explain(&bad, &denied("p/allow", "{}")).unwrap_err();
    assert!(error.starts_with("p.rego:6: "), "{error}");
}

/// A result that no rule judges is not left at `undefined`.
#[test]
fn a_result_that_no_rule_judges_is_told() {
    use crate::decision::event::Event;
    use crate::decision::record::{Record, Rules, write};
    let decision = r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z","path":"a/tier","result":"bronze","input":{}}"#;
    let judged = decision.replace(r#""bronze""#, "true");
    for (decision, told) in [(decision, true), (judged.as_str(), false)] {
        let event = Event::parse(decision.as_bytes()).unwrap();
        let mut record = Vec::new();
        write(&event, &[], None, &Rules::default(), &mut record);
        let story = story::decision(&Record::parse(&record).unwrap());
        assert_eq!(story.contains("no rule can judge this result"), told, "{story}");
    }
}

/// What regorus can't compile and OPA can leaves the other rules.
#[test]
fn a_rule_that_can_not_be_compiled_is_left_out() {
    let text = "package c\nimport rego.v1\nimport input.user as u\nold if {\n\tio.jwt.decode(input.token, [_, claims, _])\n\tclaims.ok\n}\n\n\
        new if { input.n == 1 }\nboth if { old; input.n == 1 }\nmine(u) if u.a\nown if mine(input.n)\n";
    let input = r#"{"n":2,"token":"x","user":"[erased:named]"}"#;
    let asked = |path| said(text, "x: 1", &Recorded { result: None, ..denied(path, input) });
    let (new, story) = asked("c/new");
    assert!(new.reproduced && !new.uncertain && unmet(&new).text == "input.n == 1", "{story}");
    let (old, story) = asked("c/old");
    assert!(old.uncertain && old.lacks.is_none(), "{story}");
    assert!(story.contains("c.rego:4 can't be evaluated here, and is left out"), "{story}");
    let (both, story) = asked("c/both");
    assert!(both.uncertain && next(unmet(&both)).text == "input.n == 1", "{story}");
    // The argument is not what is imported by its name.
    let (own, story) = asked("c/own");
    assert!(own.reproduced && !own.uncertain, "{story}");
}

/// What is met since something is not there may not have been.
#[test]
fn what_gave_a_value_since_something_is_not_there_is_doubted() {
    let chain: String = (0..6).map(|n| format!("r{n} if r{}\n", n + 1)).collect();
    let text = format!(
        "package c\nimport rego.v1\na if {{ not known; input.n == 1 }}\nknown if input.user in data.users\n\
         b if not io.jwt.verify_es256(input.t, input.c)\nd if not input.key\ne if input.n == 1\n\
         f if {{ input.t != \"x\"; not input.off }}\n{chain}r6 if input.user in data.users\n"
    );
    let input = r#"{"n":1,"t":"[erased:named]","c":"c","user":"ann"}"#;
    for (path, result, told) in [
        ("c/a", Some("true"), Some("data.users is not in the bundle")),
        ("c/b", Some("true"), Some("io.jwt.verify_es256 can't be evaluated without OPA")),
        ("c/d", Some("true"), Some("input.key was erased before it was logged")),
        ("c/e", Some("true"), None),
        ("c/f", Some("true"), None),
        ("c/r0", None, Some("data.users is not in the bundle")),
    ] {
        let recorded =
            Recorded { result, erased: Some(r#"["/input/key"]"#), ..denied(path, input) };
        let (said, story) = said(&text, "x: 1", &recorded);
        assert!(said.reproduced && said.uncertain == told.is_some(), "{path}: {story}");
        let flat = story.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.is_none_or(|told| flat.contains(told)), "{path}: {story}");
    }
}

/// Of what was masked no OPA knows more.
#[test]
fn an_opa_is_proposed_only_where_one_can_know_more() {
    let text = "package c\nimport rego.v1\na if input.key == \"k\"\na if { input.n == 2; 10 / 3 > 3 }\n\
        b if 1 / 3 == input.m\n";
    let input = r#"{"n":1,"m":0.33333333333333337,"key":"[erased:named]"}"#;
    for (path, result, proposed) in
        [("c/a", None, false), ("c/a", Some("true"), true), ("c/b", None, true)]
    {
        let recorded = Recorded { result, ..denied(path, input) };
        let (said, story) = said(text, "x: 1", &recorded);
        assert_eq!(said.beyond_regorus.is_some(), proposed, "{path}: {story}");
    }
    let recorded = Recorded { result: Some("true"), ..denied("c/k", input) };
    let (said, story) =
        said("package c\nimport rego.v1\nk if input.key == \"k\"\n", "x: 1", &recorded);
    assert!(said.beyond_regorus.is_none() && !said.reproduced, "{story}");
    let told = "docket's protection took input.key out of the record (`docket why --from`";
    assert!(said.differs[0].starts_with(told), "{story}");
}
