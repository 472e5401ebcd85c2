use proptest::prelude::*;

use super::*;

fn all(value: impl AsRef<[u8]>) -> Vec<Result<Fact<'static>, String>> {
    let mut found = Vec::new();
    read(value.as_ref(), &Limits::default(), &mut |piece| match piece {
        Piece::Fact(fact) => found.push(Ok(owned(&fact))),
        Piece::Ignored => {}
        Piece::Bad(bad) => found.push(Err(bad.to_string())),
    });
    found
}

fn owned(fact: &Fact<'_>) -> Fact<'static> {
    let own = |text: &Cow<'_, str>| Cow::Owned(text.clone().into_owned());
    Fact {
        kind: fact.kind,
        marks: fact.marks,
        start: fact.start,
        end: fact.end,
        trace: fact.trace,
        span: fact.span,
        parent: fact.parent,
        status: fact.status,
        request_id: own(&fact.request_id),
        decision_id: own(&fact.decision_id),
        uid: own(&fact.uid),
        service: own(&fact.service),
        path: own(&fact.path),
        method: own(&fact.method),
        user: own(&fact.user),
        flags: own(&fact.flags),
        details: own(&fact.details),
    }
}

fn one(value: impl AsRef<[u8]>) -> Fact<'static> {
    let mut found = all(value);
    assert_eq!(found.len(), 1, "{found:?}");
    found.pop().unwrap().unwrap()
}

const AT: Nanos = 1_795_524_530_000_000_000; // 2026-11-24T12:48:50Z
const MS: Nanos = 1_000_000;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const DECISION: &str = "35d70696-0122-435d-8e2e-4046910e1c1b";

/// As the format of deploy/envoy writes it.
fn envoy() -> String {
    format!(
        r#"{{"start_time":"2026-11-24T12:48:50.250Z","duration":12,"service":"orders","method":"GET","path":"/api/v1/items?token=x","response_code":403,
            "response_code_details":"ext_authz_denied","response_flags":"UAEX","grpc_status":null,"request_id":"0b8a5a3a-4a4c-9a5e-8f0d-1f0c6a1f6a11","trace_id":"{TRACE}","span_id":null,
            "decision_id":"{DECISION}","failure_mode_allowed":null}}"#
    )
}

#[test]
fn an_access_log_in_the_shipped_format_is_read() {
    let fact = one(envoy());
    assert_eq!(fact.kind, Kind::Access);
    assert_eq!((fact.start, fact.end), (AT + 250 * MS, AT + 262 * MS));
    assert_eq!(fact.trace, crate::decision::ids::trace_id(TRACE));
    assert_eq!(fact.span, None);
    assert_eq!(fact.decision_id, DECISION);
    assert_eq!(fact.request_id, "0b8a5a3a-4a4c-9a5e-8f0d-1f0c6a1f6a11");
    assert_eq!((&*fact.service, &*fact.method, &*fact.path), ("orders", "GET", "/api/v1/items"));
    assert_eq!(fact.status, Status { http: Some(403), grpc: None });
    assert_eq!((&*fact.flags, &*fact.details), ("UAEX", "ext_authz_denied"));
    assert_eq!(fact.marks, Marks::default());
}

/// Lines of a real Envoy 1.40, in the shipped format, of what its ext_authz filter did.
#[test]
fn what_ext_authz_did_is_read() {
    let line = |what: &str| {
        let rest = r#""authority":"127.0.0.1","duration":1,"method":"POST","path":"/orders/3","request_id":"d99af932-b8d2-9551-bc61-1eb210332acd","service":"orders","start_time":"2026-11-28T00:06:06.463Z","trace_id":"78d91902c79e9748d09b9c6aae0b0f7e""#;
        one(format!("{{{what},{rest}}}"))
    };
    // gRPC's denials have HTTP's 200.
    let denied = line(
        r#""decision_id":"017c3e67-af23-4fb0-b6bf-9b3a3c1d3340","failure_mode_allowed":null,"grpc_status":7,"response_code":200,"response_code_details":"ext_authz_denied","response_flags":"UAEX","shadow":null"#,
    );
    assert_eq!(denied.status.served(), Some(false));
    // It could not ask, and let the request pass: only the header says so.
    let passed = line(
        r#""decision_id":null,"failure_mode_allowed":"true","grpc_status":null,"response_code":200,"response_code_details":"via_upstream","response_flags":"-","shadow":null"#,
    );
    assert_eq!(passed.marks, Marks::FAILURE_MODE_ALLOWED);
    // It could not ask, and refused the request.
    let refused = line(
        r#""decision_id":null,"failure_mode_allowed":null,"grpc_status":null,"response_code":403,"response_code_details":"ext_authz_error","response_flags":"UAEX","shadow":null"#,
    );
    assert_eq!((refused.marks, refused.status.served()), (Marks::default(), Some(false)));
    // With `shadow_mode: true`.
    let shadow = line(
        r#""decision_id":"ed7e0bb9-f616-4f30-a542-c4601a02dc7e","failure_mode_allowed":null,"grpc_status":null,"response_code":200,"response_code_details":"via_upstream","response_flags":"-","shadow":"DENIED""#,
    );
    assert_eq!((shadow.marks, shadow.status.served()), (Marks::DRY_RUN, Some(true)));
}

/// Istio's own default format, and Envoy Gateway's, which has other names and "-" for what there is not.
#[test]
fn the_usual_formats_are_read() {
    let istio = one(
        r#"{"authority":"orders.shop:80","bytes_received":0,"bytes_sent":10,"connection_termination_details":null,"downstream_local_address":"10.0.0.1:80",
            "duration":"3","method":"POST","path":"/pay","protocol":"HTTP/2","request_id":"r-1","requested_server_name":null,"response_code":200,"response_code_details":"via_upstream",
            "response_flags":"-","route_name":"default","start_time":"2026-11-24T12:48:50.000Z","upstream_cluster":"inbound|8080||","user_agent":"curl"}"#,
    );
    assert_eq!((&*istio.service, &*istio.path, &*istio.flags), ("orders.shop:80", "/pay", ""));
    assert_eq!((istio.start, istio.end), (AT, AT + 3 * MS));
    assert_eq!(istio.status.served(), Some(true));
    let gateway = one(
        r#"{":authority":"shop.example",":method":"GET","x-envoy-origin-path":"/a?b","response_code":"503","response_flags":"UF","x-request-id":"r-2","start_time":"2026-11-24T12:48:50Z",
            "duration":"7","route_name":"httproute/x","x-envoy-auth-failure-mode-allowed":"true","trace_id":"-"}"#,
    );
    assert_eq!(
        (&*gateway.service, &*gateway.path, &*gateway.request_id),
        ("shop.example", "/a", "r-2")
    );
    assert_eq!((&*gateway.method, gateway.trace), ("GET", None));
    assert!(gateway.marks.has(Marks::FAILURE_MODE_ALLOWED) && !gateway.marks.has(Marks::DRY_RUN));
    assert_eq!(gateway.status.served(), Some(false));
}

#[test]
fn grpc_says_how_a_call_ended_whatever_http_says() {
    for (status, served) in [
        (r#""grpc_status":"OK""#, Some(true)),
        (r#""grpc_status":"PermissionDenied""#, Some(false)),
        (r#""grpc_status_number":7"#, Some(false)),
        (r#""grpc_status":"PERMISSION_DENIED""#, Some(false)),
        (r#""grpc_status":"-""#, Some(true)),
    ] {
        let line = format!(r#"{{"time":1795524530,"response_code":200,{status}}}"#);
        let fact = one(line);
        assert_eq!((fact.status.served(), fact.start), (served, AT), "{status}");
    }
    let gone = one(r#"{"time":1795524530.5,"response_code":0,"response_flags":"DC"}"#);
    assert_eq!((gone.status.served(), gone.start), (Some(false), AT + 500 * MS));
}

#[test]
fn lines_arrays_and_envelopes_hold_facts() {
    let line = |id: &str| {
        format!(
            r#"{{"start_time":"2026-11-24T12:48:50Z","response_code":200,"request_id":"{id}"}}"#
        )
    };
    let ids = |value: String| -> Vec<String> {
        all(value)
            .into_iter()
            .map(|f| f.map_or_else(|e| e, |f| f.request_id.into_owned()))
            .collect()
    };
    assert_eq!(ids(format!("{}\n{}\n", line("a"), line("b"))), ["a", "b"]);
    assert_eq!(ids(format!("{}{}", line("a"), line("b"))), ["a", "b"]);
    assert_eq!(ids(format!("[{},{}]", line("a"), line("b"))), ["a", "b"]);
    let wrapped = serde_json::json!({"stream": "stdout", "log": line("a") + "\n", "time": "2026-11-24T12:48:51Z"});
    assert_eq!(ids(wrapped.to_string()), ["a"]);
    let nested = format!(r#"{{"kubernetes":{{}},"message":{}}}"#, line("a"));
    assert_eq!(ids(nested), ["a"]);
    // One that is cut off does not take the next with it.
    let cut = format!("{}\n{}\n{}", line("a"), &line("b")[..40], line("c"));
    let got = ids(cut);
    assert_eq!((&*got[0], &*got[2]), ("a", "c"));
    assert!(got[1].starts_with("object 1: "), "{got:?}");
}

#[test]
fn what_is_no_fact_says_where_and_why() {
    let cases = [
        ("hello", "record: "),
        (
            r#"{"level":"info","msg":"ready","ts":"2026-11-24T12:48:50Z"}"#,
            "record: neither an access log",
        ),
        (r#"{"response_code":200,"request_id":"r"}"#, "record, start_time: it has none"),
        (
            r#"{"response_code":200,"start_time":"noon"}"#,
            r#"record, start_time: not a time: "noon""#,
        ),
        (
            r#"{"response_code":"many","start_time":"2026-11-24T12:48:50Z"}"#,
            r#"record, response_code: not an HTTP status: "many""#,
        ),
        (
            r#"{"response_code":200,"start_time":"2026-11-24T12:48:50Z","duration":"-5"}"#,
            r#"record, duration: not a duration: "-5""#,
        ),
        (
            r#"[{"response_code":200,"start_time":"2026-11-24T12:48:50Z"},{"x":1}]"#,
            "element 1: neither an access log",
        ),
        (r#"{"log":"{\"response_code\":"}"#, "record, log: not a whole JSON object"),
        (
            r#"{"apiVersion":"audit.k8s.io/v1","kind":"Event","stage":"Later"}"#,
            r#"record, stage: unknown: "Later""#,
        ),
        (
            r#"{"apiVersion":"audit.k8s.io/v1","kind":"EventList","items":[{"stage":"ResponseComplete","stageTimestamp":"2026-11-24T12:48:50Z"}]}"#,
            r#"record, items[0], requestReceivedTimestamp: not a time: """#,
        ),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00","spanId":""}]}]}]}"#,
            "resourceSpans[0].scopeSpans[0].spans[0]: traceId or spanId is missing",
        ),
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hi"}}]}]}]}"#,
            "resourceLogs[0].scopeLogs[0].logRecords[0]: neither an access log",
        ),
    ];
    for (text, wanted) in cases {
        let bad: Vec<String> = all(text).into_iter().filter_map(Result::err).collect();
        assert_eq!(bad.len(), 1, "{text}: {bad:?}");
        assert!(bad[0].starts_with(wanted), "{text}: {}", bad[0]);
    }
}

fn audit(extra: &str) -> String {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"3d1b9a26-9a8f-4c83-8f3b-0a5c7d6e5f40","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/pods?dryRun=All",
            "verb":"create","user":{{"username":"bob","groups":["dev"]}},"objectRef":{{"resource":"pods","namespace":"shop","name":"web-4","apiVersion":"v1"}},
            "responseStatus":{{"metadata":{{}},"code":201}},"requestReceivedTimestamp":"2026-11-24T12:48:50.000000Z","stageTimestamp":"2026-11-24T12:48:50.020000Z"{extra}}}"#
    )
}

#[test]
fn audit_events_are_read_once_their_request_is_over() {
    let fact = one(audit(
        r#","annotations":{"policy.example.com/uid":"0d650372-e907-94df-ed52-a24135b00a55","authorization.k8s.io/decision":"allow"}"#,
    ));
    assert_eq!((fact.kind, fact.start, fact.end), (Kind::Audit, AT, AT + 20 * MS));
    assert_eq!(fact.uid, "0d650372-e907-94df-ed52-a24135b00a55");
    assert_eq!((&*fact.user, &*fact.method, &*fact.path), ("bob", "create", "pods/shop/web-4"));
    assert_eq!((fact.status.http, fact.marks), (Some(201), Marks::default()));
    assert!(all(audit("").replace("ResponseComplete", "RequestReceived")).is_empty());
    let open = one(audit(
        r#","annotations":{"failed-open.validating.webhook.admission.k8s.io/round_0_index_0":"validation.gatekeeper.sh"}"#,
    ));
    assert!(open.marks.has(Marks::FAILED_OPEN));
    assert_eq!(open.details, "validation.gatekeeper.sh");
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{},{}]}}"#,
        audit(""),
        audit("")
    );
    assert_eq!(all(list).len(), 2);
    assert!(one(audit(r#","impersonatedUser":{"username":"root"}"#)).user == "root");
}

fn spans(attributes: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "orders"}}]},
        "scopeSpans": [{"spans": [{
            "traceId": TRACE, "spanId": SPAN, "parentSpanId": "b7ad6b7169203331", "name": "GET", "kind": 2,
            "startTimeUnixNano": AT.to_string(), "endTimeUnixNano": (AT + 5 * MS).to_string(),
            "attributes": attributes,
        }]}],
    }]})
}

/// The conventions as they were, and as they are; JSON and protobuf.
#[test]
fn spans_of_old_and_new_conventions_are_read() {
    let old = serde_json::json!([
        {"key": "http.method", "value": {"stringValue": "GET"}},
        {"key": "http.target", "value": {"stringValue": "/items/7?x=y"}},
        {"key": "http.status_code", "value": {"intValue": "200"}},
        {"key": "guid:x-request-id", "value": {"stringValue": "r-1"}},
    ]);
    let new = serde_json::json!([
        {"key": "http.request.method", "value": {"stringValue": "GET"}},
        {"key": "url.path", "value": {"stringValue": "/items/7"}},
        {"key": "http.response.status_code", "value": {"intValue": 200}},
        {"key": "http.request.header.x-request-id", "value": {"arrayValue": {"values": [{"stringValue": "r-1"}]}}},
    ]);
    for attributes in [old, new] {
        let json = spans(&attributes).to_string();
        let fact = one(&json);
        assert_eq!((fact.kind, fact.start, fact.end), (Kind::Span, AT, AT + 5 * MS));
        assert_eq!(fact.trace, crate::decision::ids::trace_id(TRACE));
        assert_eq!(fact.span, crate::decision::ids::span_id(SPAN));
        assert_eq!(fact.parent, crate::decision::ids::span_id("b7ad6b7169203331"));
        assert_eq!((&*fact.service, &*fact.method, &*fact.request_id), ("orders", "GET", "r-1"));
        assert!(fact.path.starts_with("/items/7") && !fact.path.contains('?'));
        assert_eq!(fact.status, Status { http: Some(200), grpc: None });
        assert!(fact.marks.has(Marks::SERVER));
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        use prost::Message;
        let request: ExportTraceServiceRequest = serde_json::from_str(&json).unwrap();
        assert_eq!(one(request.encode_to_vec()), fact);
    }
    let routed = spans(&serde_json::json!([
        {"key": "http.route", "value": {"stringValue": "/items/{id}"}},
        {"key": "url.path", "value": {"stringValue": "/items/7"}},
        {"key": "rpc.grpc.status_code", "value": {"intValue": 7}},
    ]));
    let fact = one(routed.to_string());
    assert_eq!((&*fact.path, fact.status.served()), ("/items/{id}", Some(false)));
    // OPA's own, and those of Envoy's filter and of the plugin.
    let own = spans(&serde_json::json!([
        {"key": "opa.decision_id", "value": {"stringValue": "d-1"}},
        {"key": "http.route", "value": {"stringValue": "/v1/data/{path...}"}},
    ]));
    let named = |name: &str| {
        spans(&serde_json::json!([]))
            .to_string()
            .replace(r#""name":"GET""#, &format!(r#""name":"{name}""#))
    };
    let fact = one(own.to_string());
    assert_eq!((fact.marks.has(Marks::ASKING), &*fact.decision_id), (true, ""));
    for name in [
        "async envoy.service.auth.v3.Authorization.Check egress",
        "envoy.service.auth.v3.Authorization/Check",
    ] {
        assert!(one(named(name)).marks.has(Marks::ASKING), "{name}");
    }
    assert!(!one(named("orders.v1.Authorization/Check")).marks.has(Marks::ASKING));
    let client = spans(
        &serde_json::json!([{"key": "url.full", "value": {"stringValue": "http://opa:8181/v1/data/orders/allow"}}]),
    );
    assert!(one(client.to_string()).marks.has(Marks::ASKING));
}

#[test]
fn access_logs_in_otlp_are_read() {
    let logs = |record: &serde_json::Value| {
        serde_json::json!({"resourceLogs": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "edge"}}]},
            "scopeLogs": [{"logRecords": [record]}],
        }]})
        .to_string()
    };
    let attributes = serde_json::json!([
        {"key": "response_code", "value": {"stringValue": "403"}},
        {"key": "duration", "value": {"stringValue": "4"}},
        {"key": "decision_id", "value": {"stringValue": DECISION}},
    ]);
    let json = logs(
        &serde_json::json!({"timeUnixNano": AT.to_string(), "traceId": TRACE, "attributes": attributes}),
    );
    let fact = one(&json);
    assert_eq!((fact.kind, fact.start, fact.end), (Kind::Access, AT, AT + 4 * MS));
    assert_eq!((&*fact.service, &*fact.decision_id), ("edge", DECISION));
    assert_eq!(fact.trace, crate::decision::ids::trace_id(TRACE));
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use prost::Message;
    let request: ExportLogsServiceRequest = serde_json::from_str(&json).unwrap();
    assert_eq!(one(request.encode_to_vec()), fact);
    let text = one(logs(&serde_json::json!({"body": {"stringValue": envoy()}})));
    assert_eq!((&*text.service, text.start), ("edge", AT + 250 * MS));
    let listed = logs(
        &serde_json::json!({"timeUnixNano": AT.to_string(), "body": {"kvlistValue": {"values": attributes}}}),
    );
    assert_eq!(one(listed).status.http, Some(403));
}

/// What the goal of a hundred bytes is about: an access log line with every id.
#[test]
fn a_fact_takes_a_hundred_bytes() {
    let mut bytes = Vec::new();
    one(envoy()).pack(&mut bytes);
    assert!(bytes.len() <= 100, "{} bytes", bytes.len());
}

fn any_fact() -> impl Strategy<Value = Fact<'static>> {
    let text = || {
        prop_oneof![
            3 => Just(String::new()),
            1 => Just(DECISION.to_owned()),
            1 => Just(DECISION.to_uppercase()),
            1 => Just(TRACE.to_owned()),
            1 => Just("GET".to_owned()),
            1 => Just("via_upstream".to_owned()),
            3 => "\\PC{0,60}",
            1 => "[a-f0-9-]{36}",
            1 => "[a-z]{222,224}",
        ]
    };
    let ids = (any::<Option<u128>>(), any::<Option<u64>>(), any::<Option<u64>>());
    let texts = proptest::collection::vec(text(), 9);
    (0..3usize, 0..32u8, any::<(i64, i64)>(), ids, any::<(Option<u16>, Option<u8>)>(), texts)
        .prop_map(|(kind, marks, (start, end), (trace, span, parent), (http, grpc), texts)| {
            let [a, b, c, d, e, f, g, h, i] =
                <[String; 9]>::try_from(texts).unwrap().map(Cow::Owned);
            Fact {
                marks: Marks(marks),
                trace: trace.map(|id| TraceId::from_bytes(id.to_be_bytes())),
                span: span.map(|id| SpanId::from_bytes(id.to_be_bytes())),
                parent: parent.map(|id| SpanId::from_bytes(id.to_be_bytes())),
                status: Status { http, grpc },
                request_id: a,
                decision_id: b,
                uid: c,
                service: d,
                path: e,
                method: f,
                user: g,
                flags: h,
                details: i,
                ..Fact::new([Kind::Access, Kind::Audit, Kind::Span][kind], start, end)
            }
        })
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked_and_read_where_it_stands(fact in any_fact()) {
        let mut bytes = Vec::new();
        fact.pack(&mut bytes);
        let packed = Packed::of(&bytes);
        prop_assert_eq!(&packed.fact().unwrap(), &fact);
        prop_assert_eq!((packed.start(), packed.end(), packed.marks()), (fact.start, fact.end, fact.marks));
        prop_assert_eq!((packed.trace(), packed.span(), packed.parent()), (fact.trace, fact.span, fact.parent));
        prop_assert_eq!(packed.kind(), Some(fact.kind));
        for cut in 0..bytes.len() {
            prop_assert!(Packed::of(&bytes[..cut]).fact().is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        _ = Packed::of(&bytes).fact();
        _ = all(&bytes);
        let mut marked = vec![0x10, 0];
        marked.extend_from_slice(&bytes);
        _ = Packed::of(&marked).fact();
        _ = Packed::of(&marked).parent();
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}:,\"a-z\\\\ \n0-9é]{0,80}") {
        _ = all(text);
    }
}

/// deploy/envoy/access-log.yaml, as Envoy fills it in.
#[test]
fn the_shipped_format_of_envoy_is_read() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/envoy/access-log.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let filled = |command: &str| match command {
        "START_TIME" => r#""2026-11-24T12:48:50.000Z""#,
        "DURATION" => "12",
        "CEL(xds.node.cluster)" => r#""orders""#,
        "REQ(:AUTHORITY)" => r#""orders.example""#,
        "REQ(:METHOD)" => r#""GET""#,
        "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)" => r#""/items?x=y""#,
        "RESPONSE_CODE" => "200",
        "RESPONSE_CODE_DETAILS" => r#""via_upstream""#,
        "RESPONSE_FLAGS" => r#""-""#,
        "GRPC_STATUS_NUMBER" => "0",
        "REQ(X-REQUEST-ID)" => r#""r-1""#,
        "TRACE_ID" => r#""4bf92f3577b34da6a3ce929d0e0e4736""#,
        "DYNAMIC_METADATA(envoy.filters.http.ext_authz:decision_id)" => r#""d-1""#,
        "REQ(X-ENVOY-AUTH-FAILURE-MODE-ALLOWED)" => r#""true""#,
        "FILTER_STATE(envoy.filters.http.ext_authz.shadow:FIELD:check_result)" => r#""DENIED""#,
        other => panic!("{other}"),
    };
    let members = text.split_once("json_format:\n").unwrap().1.lines().map(|line| {
        let (name, command) = line.trim().split_once(": ").unwrap();
        format!("{name:?}:{}", filled(command.trim_matches(['"', '%'])))
    });
    let fact = one(format!("{{{}}}", members.collect::<Vec<_>>().join(",")));
    let wanted = Fact {
        marks: Marks::FAILURE_MODE_ALLOWED.with(Marks::DRY_RUN),
        trace: crate::decision::ids::trace_id(TRACE),
        status: Status { http: Some(200), grpc: Some(0) },
        request_id: "r-1".into(),
        decision_id: "d-1".into(),
        service: "orders".into(),
        path: "/items".into(),
        method: "GET".into(),
        details: "via_upstream".into(),
        ..Fact::new(Kind::Access, AT, AT + 12 * MS)
    };
    assert_eq!(fact, wanted);
}
