use super::*;

fn judged(path: &str, result: &str, rules: &[Rule]) -> (Verdict, String, Vec<String>) {
    let doc = format!(
        r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","path":"{path}","result":{result}}}"#
    );
    let event = Event::parse(doc.as_bytes()).unwrap();
    let judgement = judge(&event, &Rules { policy: None, rules: rules.to_vec() });
    (
        judgement.verdict,
        judgement.from.name().into_owned(),
        judgement.reasons.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn common_results_are_judged_by_their_shape() {
    use Verdict::*;
    for (path, result, verdict, from, reasons) in [
        ("a/allow", "true", Allow, "boolean", vec![]),
        ("a/allow", "false", Deny, "boolean", vec![]),
        ("a/deny", "true", Deny, "boolean", vec![]),
        ("a/decision", r#"{"allow":false,"reason":"frozen"}"#, Deny, "object", vec!["frozen"]),
        ("a/decision", r#"{"allowed":true,"headers":{}}"#, Allow, "object", vec![]),
        ("a", r#"{"decision":"DENY","reasons":["a","b"]}"#, Deny, "object", vec!["a", "b"]),
        ("a", r#"{"permit":"EFFECT_ALLOW"}"#, Allow, "object", vec![]),
        (
            "system/main",
            r#"{"response":{"allowed":false,"status":{"message":"no"}}}"#,
            Deny,
            "object",
            vec!["no"],
        ),
        ("k8s/deny", "[]", Allow, "set", vec![]),
        ("k8s/deny", r#"["x",{"msg":"y"}]"#, Deny, "set", vec!["x", "y"]),
        ("k8s/violation", r#"[{"msg":"y","details":{}}]"#, Deny, "set", vec!["y"]),
        ("k8s", r#"{"deny":["x"]}"#, Deny, "object", vec!["x"]),
        ("a", r#""EFFECT_DENY""#, Deny, "string", vec![]),
        ("a", r#""maybe""#, Undefined, "nothing", vec![]),
        ("a/roles", r#"["admin"]"#, Undefined, "nothing", vec!["admin"]),
        ("a", r#"{"allow":1}"#, Undefined, "nothing", vec![]),
        ("a", "null", Undefined, "nothing", vec![]),
        ("a", "42", Undefined, "nothing", vec![]),
    ] {
        let reasons: Vec<String> = reasons.into_iter().map(String::from).collect();
        assert_eq!(
            judged(path, result, &[]),
            (verdict, from.to_string(), reasons),
            "{path} {result}"
        );
    }
}

#[test]
fn an_error_and_no_result_are_verdicts_of_their_own() {
    let event = |doc: &'static str| Event::parse(doc.as_bytes()).unwrap();
    let error = event(
        r#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","error":{"code":"internal_error","message":"boom"}}"#,
    );
    let judgement = judge(&error, &Rules::default());
    assert_eq!((judgement.verdict, judgement.reasons), (Verdict::Error, vec!["boom".into()]));
    let none = event(r#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z"}"#);
    assert_eq!(judge(&none, &Rules::default()).from, Basis::NoResult);
}

#[test]
fn the_pipeline_files_rule_wins_and_does_not_guess() {
    let rules = [Rule {
        path: globset::GlobBuilder::new("gateway/**")
            .literal_separator(true)
            .build()
            .unwrap()
            .compile_matcher(),
        pointer: Pointer::parse("/status").unwrap(),
        allow: vec![200.into()],
        deny: vec![401.into(), 403.into()],
        reasons: Some(Pointer::parse("/why").unwrap()),
    }];
    assert_eq!(
        judged("gateway/x/y", r#"{"status":403,"why":"role","reason":"not this"}"#, &rules),
        (Verdict::Deny, "rule:0".into(), vec!["role".into()])
    );
    assert_eq!(judged("gateway/x", r#"{"status":200.0,"allow":false}"#, &rules).0, Verdict::Allow);
    assert_eq!(judged("gateway/x", r#"{"status":500}"#, &rules).0, Verdict::Undefined);
    assert_eq!(judged("other", r#"{"allow":true}"#, &rules).0, Verdict::Allow);
}

#[test]
fn reasons_are_bounded() {
    let many: Vec<String> = (0..100).map(|i| format!("{i}-{}", "ü".repeat(600))).collect();
    let (_, _, reasons) = judged("k8s/deny", &serde_json::to_string(&many).unwrap(), &[]);
    assert_eq!(reasons.len(), MAX_REASONS);
    assert!(reasons.iter().all(|r| r.len() <= MAX_REASON_BYTES && r.ends_with('…')));
}

#[test]
fn a_policy_of_the_team_judges_first() {
    let text = "package docket
import rego.v1
verdict := \"deny\" if input.result.score < 5
verdict := {\"verdict\": \"allow\", \"reasons\": [sprintf(\"score %v\", [input.result.score])]} if input.result.score > 9
verdict := \"allow\" if input.result.broken
verdict := \"deny\" if input.result.broken";
    let source = rego::SourceFile { name: "verdict.rego".into(), text: text.into() };
    let rule =
        rego::Policies::new(&[source], &[]).unwrap().rule("data.docket.verdict").unwrap().unwrap();
    let rules = Rules { policy: Some(Arc::new(rule)), rules: Vec::new() };
    for (result, expected) in [
        (r#"{"score":3,"reason":"low"}"#, (Verdict::Deny, Basis::Policy, vec!["low"])),
        (r#"{"score":10}"#, (Verdict::Allow, Basis::Policy, vec!["score 10"])),
        // It says nothing of these: the defaults do.
        (r#"{"score":7,"allow":true}"#, (Verdict::Allow, Basis::Object, vec![])),
        ("false", (Verdict::Deny, Basis::Boolean, vec![])),
        // It contradicts itself.
        (r#"{"broken":true,"allow":true}"#, (Verdict::Undefined, Basis::Nothing, vec![])),
    ] {
        let text = format!(
            r#"{{"decision_id":"d","timestamp":"2026-11-24T12:00:00Z","result":{result}}}"#
        );
        let event = Event::parse(text.as_bytes()).unwrap();
        let judgement = judge(&event, &rules);
        assert_eq!(
            (
                judgement.verdict,
                judgement.from,
                judgement.reasons.iter().map(|r| &**r).collect::<Vec<_>>()
            ),
            expected,
            "{result}"
        );
    }
}
