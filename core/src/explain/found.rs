//! What users and testers found `docket why` to say that was not so.

use super::*;

fn bundle(text: &str) -> Bundle {
    super::tests::bundle(&[("c.rego", text)])
}

/// As OPA 1.22 has it: what is denied to a call is asked for before it is denied.
#[test]
fn a_call_that_is_denied_what_is_not_there_is_where_it_ends() {
    for (condition, ends) in [
        (r#"not startswith(input.path, "/a")"#, true),
        ("not input.n == 7", false),
        ("not input.n > 7", true),
        ("not input.n in {7}", true),
        ("not input.n != 7", true),
        (r#"not lower(input.n) == "a""#, true),
        ("not f(input.n)", true),
        ("not count([x | some x in input.n]) > 3", false),
        ("not input.n", false),
        (r#"not startswith(object.get(input, "n", "z"), "/a")"#, false),
        ("not input.n = 7", false),
    ] {
        let text = format!(
            "package a\nimport rego.v1\nadmit if {{\n\t{condition}\n\tinput.z == 1\n}}\nf(x) if x == 1\n"
        );
        let bundle = bundle(&text);
        let recorded =
            |input| Recorded { path: "a/admit", input: Some(input), ..Recorded::default() };
        let said = explain(&bundle, &recorded(r#"{"z":2}"#)).unwrap();
        let unmet = said.rules[0].definitions[0].unmet.as_ref().unwrap();
        assert_eq!(unmet.text == condition, ends, "{condition}: {said:?}");
        // What OPA says of it, where this evaluation may say true.
        let said = explain(&bundle, &recorded(r#"{"z":1}"#)).unwrap();
        if !said.reproduced {
            let told = said.differs.iter().any(|why| why.contains(condition));
            assert_eq!(told, ends, "{condition}: {said:?}");
        }
    }
}

#[test]
fn a_variable_is_no_rule_of_its_name_and_a_default_of_a_function_no_rule() {
    let text = r#"package c
import rego.v1
limit := 7
role := 1
default score(_) := 0
score(u) := 10 if u.dept == "eng"
a if {
    limit := input.n
    limit == 7
}
s if score(input.user) >= 15
d if limit == 8
"#;
    let bundle = bundle(text);
    let input = r#"{"n":8,"user":{"dept":"eng"}}"#;
    let of = |path| {
        let recorded = Recorded { path, input: Some(input), ..Recorded::default() };
        let said = explain(&bundle, &recorded).unwrap();
        said.rules[0].definitions[0].unmet.clone().unwrap()
    };
    for path in ["c/a", "c/s"] {
        assert_eq!(of(path).because, [], "{path}");
    }
    assert_eq!(of("c/s").calls, [("score(input.user)".to_owned(), Some(10.into()))]);
    assert_eq!(of("c/d").because[0].name, "data.c.limit");
    let declared =
        texts::declared("x := 1; some a, b in y; every k, v in z { t }; w == u; some q; r := p");
    assert_eq!(declared.into_iter().collect::<String>(), "abkqrvx");
}

/// Where nothing can be evaluated, nothing is as it was recorded.
#[test]
fn a_bundle_that_can_not_be_evaluated_reproduces_no_error() {
    let text = "package c\nimport rego.v1\na if {\n\tnothing.knows(input.roles)\n}\n";
    let bundle = bundle(text);
    let error = Some(r#"{"code":"rego_type_error","message":"other"}"#);
    let input = Some(r#"{"roles":[1]}"#);
    let recorded = Recorded { path: "c/a", input, error, ..Recorded::default() };
    let said = explain(&bundle, &recorded).unwrap();
    assert!(!said.reproduced && said.failed.is_some(), "{said:?}");
    let story = story::explanation(&said, "b");
    assert!(story.contains("data.c.a fails") && story.contains("NOT REPRODUCED.\n"), "{story}");
}

#[test]
fn what_a_value_is_made_of_is_told() {
    let text = r#"package c
import rego.v1
default ok := false
ok if input.n == 1
reasons contains "r" if input.n > 5
response := {"allowed": ok, "reasons": reasons}
"#;
    let input = Some(r#"{"n":9}"#);
    let recorded = Recorded { path: "c/response", input, ..Recorded::default() };
    let said = explain(&bundle(text), &recorded).unwrap();
    let made = &said.rules[0].definitions[0].made_of;
    let names: Vec<&str> = made.iter().map(|said| said.name.as_str()).collect();
    assert_eq!(names, ["data.c.ok", "data.c.reasons"]);
    let story = story::explanation(&said, "b");
    assert!(story.contains("c.rego:4  not met") && story.contains("input.n is 9"), "{story}");
}

#[test]
fn only_the_same_failure_is_as_it_was_recorded() {
    let conflict = "b.rego:99: error: rule conflicts with rule at b.rego:98:1";
    let code = |code: &str| format!(r#"{{"code":"{code}","message":"m"}}"#);
    for (recorded, here, same) in [
        (Some("eval_conflict_error"), conflict, true),
        (Some("eval_conflict_error"), "error: functions must not produce multiple outputs", true),
        (Some("eval_cancel_error"), conflict, false),
        (Some("rego_type_error"), "error: var `role` used before definition", false),
        (None, conflict, false),
    ] {
        let error = recorded.map(code);
        assert_eq!(differs::same_failure(here, error.as_deref()), same, "{recorded:?} {here}");
    }
}

/// A rule that is true is as much a cause as one that is not met.
#[test]
fn why_a_denied_rule_was_true_is_told() {
    let text = "package c\nimport rego.v1\nenter if not locked\nlocked if count(reasons) > 0\n\
        reasons contains \"old\" if input.age > 50\nreasons contains \"none\" if not input.name\n";
    let input = Some(r#"{"age":60,"name":"x"}"#);
    let said = explain(&bundle(text), &Recorded { path: "c/enter", input, ..Recorded::default() });
    let story = story::explanation(&said.unwrap(), "b");
    for line in ["c.rego:4  gave it", "data.c.reasons is [\"old\"]", "c.rego:5  gave it"] {
        assert!(story.contains(line), "{line}: {story}");
    }
}

/// As OPA 1.22 answers: what regorus answers otherwise is answered so here, or doubted.
#[test]
fn what_opa_calculates_otherwise_is_doubted() {
    let input =
        r#"{"n":0.1,"i":3,"price":19.99,"ss":"\u00df","one":1.0,"big":12345678901234567890123}"#;
    for (condition, doubted) in [
        ("input.n + 0.2 == 0.3", true),
        ("sum([input.n, 0.2]) == 0.3", true),
        (r#"sprintf("%5s|", [input.ss]) == "a""#, true),
        (r#"sprintf("%s", [1]) == "1""#, true),
        ("10 / 3 == 3.3333333333333335", true),
        ("twice(input.price) == 39", true),
        ("dear == 39", true),
        (r#"{1} > {"a": 1}"#, true),
        ("input.big == 12345678901234567890123", true),
        ("input.i * 2 + 1 == 7", false),
        ("input.i - 1 == -3", false),
        (r#"sprintf("%s-%d", ["a", input.i]) == "a-3""#, false),
        ("count({x | some x in [1, 2]; x > 1}) > 3", false),
        ("sum([input.i, 2]) == 5", false),
        ("input.price > 20", false),
        (r#"upper(input.ss) == "SS""#, false),
        (r#"glob.match("a/*", [], "a+b")"#, false),
    ] {
        let text = format!(
            "package a\nimport rego.v1\nadmit if {{\n\t{condition}\n\tinput.never == 1\n}}\n\
            twice(x) := x * 2\ndear := input.price * 2\n"
        );
        let recorded = Recorded { path: "a/admit", input: Some(input), ..Recorded::default() };
        let said = explain(&bundle(&text), &recorded).unwrap();
        assert_eq!(said.uncertain, doubted, "{condition}: {said:?}");
        // Where the result is another, it is among the reasons.
        let other = Recorded { result: Some("true"), ..recorded };
        let said = explain(&bundle(&text), &other).unwrap();
        let told = said.differs.iter().any(|why| why.contains("OPA"));
        assert!(!doubted || told, "{condition}: {said:?}");
    }
}

#[test]
fn a_function_can_not_be_asked_for() {
    let text = "package c\nimport rego.v1\nlimit(x) := x + 1\nok if limit(input.n) == 2\n";
    let error = Some(
        r#"{"code":"rego_type_error","message":"function data.c.limit used as reference, not called"}"#,
    );
    let recorded = Recorded { path: "c/limit", input: Some("{}"), error, ..Recorded::default() };
    let said = explain(&bundle(text), &recorded).unwrap();
    let story = story::explanation(&said, "b");
    assert!(said.reproduced && said.lacks.is_none(), "{story}");
    assert!(story.contains("limit is a function (c.rego:3)"), "{story}");
}

/// Template strings are read by OPA 1.22, and not here.
#[test]
fn a_file_that_can_not_be_read_leaves_what_does_not_come_to_it() {
    let ok = "package c\nimport rego.v1\nok if input.n == 2\n";
    let uses = "package u\nimport rego.v1\nok if { data.d[input.kind]; input.n == 2 }\n";
    let other = "package d\nimport rego.v1\nsaid := $\"{input.n}-x\"\n";
    for (file, path, uncertain) in [
        (other, "c/ok", false),
        (other, "u/ok", true),
        (other, "d/said", true),
        ("said := $\"{input.n}-x\"\n", "c/ok", true),
    ] {
        let files = [("c.rego", ok), ("u.rego", uses), ("d.rego", file)];
        let bundle = super::tests::bundle(&files);
        let recorded = Recorded { path, input: Some(r#"{"n":1}"#), ..Recorded::default() };
        let said = explain(&bundle, &recorded).unwrap();
        let story = story::explanation(&said, "b");
        assert_eq!(said.uncertain, uncertain, "{path}: {story}");
        let told = story.contains("d.rego: docket doesn't read template strings");
        assert!(told == uncertain && said.lacks.is_none(), "{path}: {story}");
        assert!(path != "c/ok" || story.contains("input.n is 1"), "{story}");
    }
    let recorded = Recorded { path: "c/ok", input: Some(r#"{"n":1}"#), ..Recorded::default() };
    let alone = super::tests::bundle(&[("d.rego", other)]);
    let error = explain(&alone, &recorded).unwrap_err();
    assert!(error.contains("sprintf") && error.contains("--opa"), "{error}");
}

/// Which of several bodies was met, and what stands in it: of sets as of other rules.
#[test]
fn the_conditions_of_a_body_that_was_met_are_shown() {
    let text = r#"package c
import rego.v1
deny contains msg if {
    input.user == "bob"
    input.method == "DELETE"
    msg := sprintf("%s may not delete", [input.user])
}
deny contains msg if {
    input.user == "eve"
    msg := "eve may nothing"
}
allow if {
    input.user == "bob"
}
admin if input.user == "bob"
"#;
    let bundle = bundle(text);
    let input = r#"{"user":"bob","method":"DELETE"}"#;
    let said = |path, result| {
        let recorded =
            Recorded { path, input: Some(input), result: Some(result), ..Recorded::default() };
        explain(&bundle, &recorded).unwrap()
    };
    let denied = said("c/deny", r#"["bob may not delete"]"#);
    let told = story::explanation(&denied, "it");
    let lines = "  c.rego:3  gave it
      deny contains msg if {
      line 4: input.user == \"bob\"
      line 5: input.method == \"DELETE\"
      line 6: msg := sprintf(\"%s may not delete\", [input.user])
";
    assert!(told.contains(lines), "{told}");
    let json = serde_json::to_value(&denied).unwrap();
    let met = &json["rules"][0]["definitions"][0]["met"];
    assert_eq!(
        (&met[1]["line"], &met[1]["text"]),
        (&5.into(), &r#"input.method == "DELETE""#.into())
    );
    let told = story::explanation(&said("c/allow", "true"), "it");
    assert!(told.contains("allow if {\n      line 13: input.user == \"bob\"\n"), "{told}");
    let told = story::explanation(&said("c/admin", "true"), "it");
    assert!(
        told.ends_with("  c.rego:15  gave it\n      admin if input.user == \"bob\"\n"),
        "{told}"
    );
}
