//! Trace contexts, wherever they may stand: in the decision, in headers inside of it, in Kafka headers.
#![no_main]

use docket_core::decision::event::Event;
use docket_core::decision::trace::{self, Carrier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let rules = trace::Rules {
        order: vec![Carrier::Record, Carrier::Decision, Carrier::RequestContext, Carrier::Input],
        ..trace::Rules::default()
    };
    // The first line is a value of Kafka headers, the rest a decision.
    let (value, rest) =
        bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len()));
    let text = String::from_utf8_lossy(rest);
    let decision = format!(
        "{{\"decision_id\":\"d\",\"timestamp\":\"2026-11-24T12:00:00Z\",\"request_context\":{{\"http\":{{\"headers\":{{\"traceparent\":{0},\"b3\":{0}}}}}}}}}",
        serde_json::json!(text.trim())
    );
    for document in [rest, decision.as_bytes()] {
        let Ok(event) = Event::parse(document) else { continue };
        for name in [
            "traceparent",
            "tracestate",
            "b3",
            "x-b3-traceid",
            "uber-trace-id",
            "x-amzn-trace-id",
            "x-cloud-trace-context",
            "x-datadog-trace-id",
        ] {
            let found = trace::find(
                &event,
                &[(name, value), ("x-b3-spanid", value), ("x-datadog-parent-id", value)],
                &rules,
            );
            if let Some((context, _)) = found.parent {
                assert_ne!(context.trace.to_bytes(), [0; 16], "a trace id of zeros is none");
            }
        }
    }
});
