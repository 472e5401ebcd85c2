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

/// Of each product a result as it really returns it.
#[test]
fn results_of_well_known_products_are_judged() {
    use Verdict::*;
    let shapes: [(&str, &str, &str, Verdict, &[&str]); 26] = [
        (
            "conftest",
            "main",
            r#"{"deny":[],"violation":[{"msg":"no latest tag"}],"warn":[]}"#,
            Deny,
            &["no latest tag"],
        ),
        (
            "conftest",
            "main",
            r#"{"deny":[],"violation":[],"warn":["old"],"exception":[["x"]]}"#,
            Allow,
            &[],
        ),
        (
            "conftest",
            "main",
            r#"{"deny_root":["runs as root"],"deny":[]}"#,
            Deny,
            &["runs as root"],
        ),
        (
            "Gatekeeper",
            "hooks/validation.gatekeeper.sh/violation",
            r#"[{"msg":"missing label","details":{},"enforcementAction":"deny"}]"#,
            Deny,
            &["missing label"],
        ),
        (
            "Gatekeeper",
            "hooks/validation.gatekeeper.sh/violation",
            r#"[{"msg":"missing label","enforcementAction":"dryrun"}]"#,
            Allow,
            &["missing label"],
        ),
        (
            "Kubernetes",
            "system/main",
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"allowed":false,"uid":"u","status":{"message":"bad host"}}}"#,
            Deny,
            &["bad host"],
        ),
        (
            "Kyverno's Envoy plugin",
            "policies",
            r#"{"status":{"code":7},"denied_response":{"status":{"code":"Forbidden"},"body":"not today"}}"#,
            Deny,
            &["Forbidden", "not today"],
        ),
        ("Kyverno's Envoy plugin", "policies", r#"{"status":{},"okResponse":{}}"#, Allow, &[]),
        (
            "Envoy",
            "envoy/authz/allow",
            r#"{"allowed":false,"http_status":302,"headers":{"location":"https://idp.example"},"body":"no"}"#,
            Deny,
            &["no"],
        ),
        ("Envoy", "envoy/authz", r#"{"allow":true,"allowed":false}"#, Deny, &[]),
        (
            "Envoy",
            "policy/main",
            r#"{"allow":false,"allowed":true,"response_headers_to_add":{}}"#,
            Allow,
            &[],
        ),
        ("Envoy", "policy/main", r#"{"http_status":200,"headers":{}}"#, Undefined, &[]),
        (
            "AuthZEN",
            "authzen",
            r#"{"decision":true,"context":{"reason":"owner"}}"#,
            Allow,
            &["owner"],
        ),
        (
            "AuthZEN",
            "authzen",
            r#"{"evaluations":[{"decision":false},{"decision":false}]}"#,
            Deny,
            &[],
        ),
        (
            "AuthZEN",
            "authzen",
            r#"{"evaluations":[{"decision":true},{"decision":false}]}"#,
            Undefined,
            &["the result contradicts itself: evaluations says yes, evaluations says no"],
        ),
        (
            "Permit",
            "permit/root",
            r#"{"allow":false,"debug":{"rbac":{"allow":true,"code":"no_such_role"}},"allowing_sources":[]}"#,
            Deny,
            &[],
        ),
        (
            "Permit",
            "permit/bulk",
            r#"{"allow":[{"allow":true,"result":true},{"allow":true,"result":true}]}"#,
            Allow,
            &[],
        ),
        (
            "OPAL",
            "app/rbac",
            r#"{"allow":true,"grant":[],"user_is_admin":true,"user_is_viewer":false}"#,
            Allow,
            &[],
        ),
        ("Topaz", "rebac/check", r#"{"allowed":true,"enabled":true,"visible":false}"#, Allow, &[]),
        (
            "Topaz",
            "rebac/check",
            r#"{"decisions":[{"decision":"allowed","is":false},{"decision":"visible","is":true}]}"#,
            Deny,
            &[],
        ),
        (
            "Styra entitlements",
            "main/main",
            r#"{"allowed":true,"entz":[{"roles":["editor"]}],"outcome":{"allow":true,"decision_type":"ALLOWED","enforced":[{"allowed":true,"entz":[],"message":"m"}],"monitored":[],"stacks":{}}}"#,
            Allow,
            &[],
        ),
        (
            "Styra entitlements",
            "main/main",
            r#"{"allowed":false,"entz":[],"outcome":{"allow":false,"deny":true,"decision_type":"DENIED"}}"#,
            Deny,
            &[],
        ),
        ("Compile API", "filters/include", r#"{"query":"WHERE 1=1"}"#, Undefined, &[]),
        ("a wrapped result", "x", r#"{"result":{"allow":false}}"#, Deny, &[]),
        ("Cerbos's words", "x", r#"{"effect":"EFFECT_DENY"}"#, Deny, &[]),
        ("camel case", "x", r#"{"isAllowed":true,"isDenied":false}"#, Allow, &[]),
    ];
    for (product, path, result, verdict, reasons) in shapes {
        let (is, _, said) = judged(path, result, &[]);
        assert_eq!(
            (is, said),
            (verdict, reasons.iter().map(std::string::ToString::to_string).collect()),
            "{product}: {result}"
        );
    }
}

#[test]
fn objections_deny_and_contradictions_are_undefined() {
    use Verdict::*;
    for (path, result, verdict) in [
        ("authz", r#"{"allow":true,"deny":["frozen"]}"#, Deny),
        ("authz", r#"{"deny":["frozen"],"allow":true}"#, Deny),
        ("authz", r#"{"allow":true,"deny":[]}"#, Allow),
        ("authz", r#"{"allow":true,"deny":true}"#, Deny),
        ("authz", r#"{"allow":true,"violations":{"a":{"msg":"x"}}}"#, Deny),
        ("authz", r#"{"allow":true,"violations":{}}"#, Allow),
        ("authz", r#"{"allow":false,"deny":[]}"#, Deny),
        ("authz", r#"{"allow":false,"deny":false}"#, Deny),
        ("authz", r#"{"allow":true,"permitted":false}"#, Undefined),
        ("authz", r#"{"allow":true,"response":{"allowed":false}}"#, Undefined),
        ("authz", r#"{"allow":null,"deny":null}"#, Undefined),
        ("authz", r#"{"deny":"not for you"}"#, Deny),
        ("authz", r#"{"allow":true,"denyTags":["x"]}"#, Deny),
        ("authz", r#"{"allow":true,"deny-tags":["x"]}"#, Deny),
        ("authz", r#"{"violationBar":["x"]}"#, Deny),
        ("authz", r#"{"allow":true,"denyTags":[]}"#, Allow),
        ("authz", r#"{"allow":true,"denyReason":"none"}"#, Allow),
        ("authz", r#"{"allow":true,"denylisted":["x"]}"#, Allow),
        ("authz", r#"{"allow":true,"deny_public":true}"#, Undefined),
        ("authz", r#"{"allow":true,"deny_public":false}"#, Allow),
        ("authz", r#"{"deny_public":true}"#, Deny),
        ("a/deny_public", "true", Deny),
        ("a/deny_public", "false", Allow),
        // Topaz leaves `is` away where it is false.
        ("authz", r#"{"decisions":[{"decision":"allowed"}]}"#, Undefined),
        ("authz", r#"{"decisions":[{"decision":"allowed","is":true}]}"#, Allow),
        ("authz", r#"{"deny":""}"#, Allow),
        ("authz", r#"{"violations":0}"#, Allow),
        ("authz", r#"{"violations":3}"#, Deny),
        ("authz", r#"{"deny_list":"x","denylist":["y"]}"#, Undefined),
        ("authz", "{}", Undefined),
        ("authz", r#"" Permit ""#, Allow),
        // The same shape at a path and in an object.
        ("x/deny", r#""not for you""#, Deny),
        ("x/deny", r#""""#, Allow),
        ("x/deny", r#"{"a":"b"}"#, Deny),
        ("x/deny", "{}", Allow),
        ("x/deny", r#"{"allow":false,"reason":"x"}"#, Deny),
        ("x/deny", "null", Undefined),
        ("x/deny_all", "[1]", Deny),
        ("x/violations", "0", Allow),
        ("x/is_denied", "true", Deny),
        ("x/allow", "[]", Undefined),
        ("x/not_allowed", "true", Deny),
        ("x/not_allowed", "false", Allow),
        ("authz", r#"{"allow":true,"unauthorized":true}"#, Deny),
        ("authz", r#"{"deny":-1}"#, Undefined),
        ("authz", r#"{"allowed":[true,true]}"#, Allow),
        ("authz", r#"{"allowed":[true,false]}"#, Undefined),
        ("x/allow", "[false,false]", Deny),
        ("x/flags", "[true,true]", Undefined),
        ("x/access_denied", "true", Deny),
        ("x/access_denied", "false", Allow),
        ("x/hasViolations", "true", Deny),
        ("x/is_not_allowed", "true", Deny),
        ("x/no_violations", "true", Allow),
        ("authz", r#"{"access_denied":true}"#, Deny),
        ("authz", r#"{"allow":true,"is_blocked_user":true}"#, Allow),
        ("authz", r#"{"violations":{"high":[],"low":[]}}"#, Allow),
        ("authz", r#"{"deny":{"images":["x"],"labels":[]}}"#, Deny),
        ("authz", r#"{"allow":{"read":true,"write":true}}"#, Allow),
        ("authz", r#"{"allow":{"read":true,"write":false}}"#, Undefined),
        ("authz", r#"{"deny_list":["1"],"allow":true}"#, Allow),
        ("authz", r#"{"Response":[{"Decision":"Permit"}]}"#, Allow),
    ] {
        assert_eq!(judged(path, result, &[]).0, verdict, "{path} {result}");
    }
    let (_, from, reasons) = judged("authz", r#"{"allow":true,"permitted":false}"#, &[]);
    assert_eq!(from, "nothing");
    assert_eq!(reasons, ["the result contradicts itself: allow says yes, permitted says no"]);
}

#[test]
fn what_opa_calls_undefined_is_no_error() {
    for (error, verdict) in [
        (r#"{"code":"undefined_document","message":"document missing"}"#, Verdict::Undefined),
        (
            r#"{"code":"opa_undefined_error","message":"/a decision was undefined"}"#,
            Verdict::Undefined,
        ),
        (r#""undefined_document: document undefined: data.a""#, Verdict::Undefined),
        (r#"{"code":"internal_error","message":"undefined_document"}"#, Verdict::Error),
        (r#""undefined_documents""#, Verdict::Error),
        ("{}", Verdict::Error),
    ] {
        let doc =
            format!(r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","error":{error}}}"#);
        let event = Event::parse(doc.as_bytes()).unwrap();
        assert_eq!(judge(&event, &Rules::default()).verdict, verdict, "{error}");
    }
}

#[test]
fn trinos_batches_are_counted() {
    let table = r#"[{"table":{"tableName":"t","columns":["a","b","c"]}}]"#;
    for (operation, resources, result, verdict) in [
        ("FilterTables", "[{},{},{}]", "[0,1,2]", Verdict::Allow),
        ("FilterTables", "[{},{},{}]", "[]", Verdict::Deny),
        ("FilterTables", "[{},{},{}]", "[0,2]", Verdict::Undefined),
        ("FilterTables", "[{},{},{}]", "[0,0,0]", Verdict::Undefined),
        ("FilterTables", "[{},{},{}]", "[0,1,7]", Verdict::Undefined),
        ("FilterColumns", table, "[0,1,2]", Verdict::Allow),
        ("FilterColumns", table, "[0]", Verdict::Undefined),
    ] {
        let doc = format!(
            r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","path":"trino/batch","result":{result},
            "input":{{"action":{{"operation":"{operation}","filterResources":{resources}}}}}}}"#
        );
        let event = Event::parse(doc.as_bytes()).unwrap();
        let judgement = judge(&event, &Rules::default());
        assert_eq!(judgement.verdict, verdict, "{operation} {result}");
        assert_eq!(judgement.verdict == Verdict::Undefined, !judgement.reasons.is_empty());
    }
}

#[test]
fn a_path_with_slashes_at_its_ends_is_the_same_path() {
    for (path, result, verdict) in [
        ("k8s/deny/", r#"["a"]"#, Verdict::Deny),
        ("/k8s/deny//", "[]", Verdict::Allow),
        ("/deny/", "true", Verdict::Deny),
        ("app/allow/", "true", Verdict::Allow),
    ] {
        assert_eq!(judged(path, result, &[]).0, verdict, "{path} {result}");
    }
}

#[test]
fn gatekeepers_violations_bind_or_only_warn() {
    let violation = |members: &str| format!(r#"[{{"msg":"no","enforcementAction":{members}}}]"#);
    for (members, verdict) in [
        (r#""deny""#, Verdict::Deny),
        (r#""warn""#, Verdict::Allow),
        (r#""dryrun""#, Verdict::Allow),
        (r#""scoped""#, Verdict::Deny),
        (r#""scoped","scopedEnforcementActions":["warn"]"#, Verdict::Allow),
        (r#""scoped","scopedEnforcementActions":["warn","dryrun"]"#, Verdict::Allow),
        (r#""scoped","scopedEnforcementActions":["warn","deny"]"#, Verdict::Deny),
        (r#""scoped","scopedEnforcementActions":[]"#, Verdict::Deny),
        (r#""scoped","enforcementActions":["warn"]"#, Verdict::Allow),
        (
            r#""scoped","scopedEnforcementActions":[{"action":"warn","enforcementPoints":[{"name":"*"}]}]"#,
            Verdict::Allow,
        ),
        (
            r#""scoped","scopedEnforcementActions":[{"action":"warn"},{"action":"deny"}]"#,
            Verdict::Deny,
        ),
        (
            r#""scoped","constraint":{"spec":{"scopedEnforcementActions":[{"action":"warn"}]}}"#,
            Verdict::Allow,
        ),
    ] {
        let result = violation(members);
        assert_eq!(judged("k8s/violation", &result, &[]).0, verdict, "{result}");
    }
}
