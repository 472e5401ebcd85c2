use super::*;

const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const S: &str = "00f067aa0ba902b7";

fn found(extra: &str) -> Found {
    let doc = format!(r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z",{extra}}}"#);
    find(&Event::parse(doc.as_bytes()).unwrap(), &[], &Rules::default())
}

fn in_input(name: &str, value: &str) -> Found {
    found(&format!(
        r#""input":{{"attributes":{{"request":{{"http":{{"headers":{{"{name}":"{value}"}}}}}}}}}}"#
    ))
}

#[test]
fn five_families_of_headers_are_read_whatever_their_case() {
    for (name, value, trace, span) in [
        ("traceparent", format!("00-{T}-{S}-01"), T, S),
        ("TraceParent", format!("cc-{T}-{S}-01-what-the-future-brings"), T, S),
        ("b3", format!("{T}-{S}-1-05e3ac9a4f6e3b90"), T, S),
        ("B3", format!("a3ce929d0e0e4736-{S}"), "0000000000000000a3ce929d0e0e4736", S),
        (
            "X-Amzn-Trace-Id",
            format!("Self=1-1-1;Root=1-{}-{};Parent={S};Sampled=1", &T[..8], &T[8..]),
            T,
            S,
        ),
        ("uber-trace-id", format!("{T}:f067aa0ba902b7:0:1"), T, S),
        ("Uber-Trace-Id", format!("{T}%3A{S}%3A0%3A1"), T, S),
    ] {
        let context = Context { trace: ids::trace_id(trace).unwrap(), span: ids::span_id(span) };
        assert_eq!(
            in_input(name, &value).parent,
            Some((context, Carrier::Input)),
            "{name}: {value}"
        );
    }
    let b3 = found(&format!(
        r#""request_context":{{"http":{{"headers":{{"X-B3-TraceId":["{T}"],"x-b3-spanid":["{S}"]}}}}}}"#
    ));
    assert_eq!(b3.source(), Carrier::RequestContext);
    let alb = in_input("x-amzn-trace-id", &format!("Root=1-{}-{}", &T[..8], &T[8..]));
    assert_eq!(alb.parent.unwrap().0.span, None);
}

#[test]
fn malformed_and_zero_ids_are_counted_and_are_no_ids() {
    for value in [
        format!("00-{}-{S}-01", "0".repeat(32)),
        format!("00-{T}-{}-01", "0".repeat(16)),
        format!("ff-{T}-{S}-01"),
        format!("00-{}-{S}-01", T.to_uppercase()),
        format!("00-{T}-{S}-01-x"),
        format!("00-{T}-{S}"),
        "garbage".into(),
    ] {
        let found = in_input("traceparent", &value);
        assert_eq!((found.parent, found.malformed), (None, 1), "{value}");
    }
    let zero =
        found(r#""trace_id":"00000000000000000000000000000000","span_id":"0000000000000000""#);
    assert_eq!((zero.parent, zero.malformed), (None, 1));
    let half = found(&format!(r#""trace_id":"{T}","span_id":"xyz""#));
    assert_eq!((half.parent.unwrap().0.span, half.malformed), (None, 1));
    assert_eq!(in_input("b3", "0").malformed, 0);
}

#[test]
fn the_first_is_the_parent_and_other_traces_are_links() {
    let other = "ffffffffffffffffffffffffffffff01";
    let own = format!(r#""trace_id":"{T}","span_id":"{S}","#);
    let same = found(&format!(
        r#"{own}"request_context":{{"http":{{"headers":{{"traceparent":["00-{T}-73ab48767734d7c1-01"]}}}}}}"#
    ));
    assert_eq!((same.source(), same.links.len(), same.mismatch), (Carrier::Decision, 0, false));

    let doc = format!(
        r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z",{own}"input":{{"headers":{{"traceparent":"00-{other}-{S}-01"}}}}}}"#
    );
    let event = Event::parse(doc.as_bytes()).unwrap();
    let opa_wins = find(&event, &[], &Rules::default());
    assert!(opa_wins.mismatch);
    assert_eq!(opa_wins.parent.unwrap().0.trace, ids::trace_id(T).unwrap());
    assert_eq!(opa_wins.links[0].trace, ids::trace_id(other).unwrap());

    let caller_first = Rules { order: vec![Carrier::Input, Carrier::Decision], ..Rules::default() };
    let caller_wins = find(&event, &[], &caller_first);
    assert!(caller_wins.mismatch);
    assert_eq!(
        (caller_wins.parent.unwrap().0.trace, caller_wins.source()),
        (ids::trace_id(other).unwrap(), Carrier::Input)
    );
}

#[test]
fn record_headers_count_only_if_the_pipeline_says_so() {
    let doc = br#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z"}"#;
    let event = Event::parse(doc).unwrap();
    let value = format!("00-{T}-{S}-01");
    let headers: [(&str, &[u8]); 1] = [("traceparent", value.as_bytes())];
    assert_eq!(find(&event, &headers, &Rules::default()).source(), Carrier::None);
    let rules = Rules { order: vec![Carrier::Record], ..Rules::default() };
    assert_eq!(find(&event, &headers, &rules).source(), Carrier::Record);
}

#[test]
fn datadog_and_google_cloud_write_decimals() {
    let headers = |text: &str| found(&format!(r#""input":{{"headers":{{{text}}}}}"#));
    let datadog = headers(
        r#""x-datadog-trace-id":"11803532876627986230","x-datadog-parent-id":"67667974448284343","x-datadog-tags":"_dd.p.dm=-1,_dd.p.tid=4bf92f3577b34da6""#,
    );
    // Not far from it: 0xa3ce929d0e0e4736 and 0x00f067aa0ba902b7.
    let context = Context { trace: ids::trace_id(T).unwrap(), span: ids::span_id(S) };
    assert_eq!(datadog.parent.unwrap().0, context);
    let half = headers(r#""X-Datadog-Trace-Id":["11803532876627986230"]"#);
    assert_eq!(
        half.parent.unwrap().0.trace,
        ids::trace_id("0000000000000000a3ce929d0e0e4736").unwrap()
    );
    let cloud = headers(&format!(r#""X-Cloud-Trace-Context":"{T}/67667974448284343;o=1""#));
    assert_eq!(cloud.parent.unwrap().0, context);
    for (text, span_malformed) in
        [(T.to_owned(), 0), (format!("{T}/0;o=0"), 0), (format!("{T}/x"), 1)]
    {
        let cloud = headers(&format!(r#""x-cloud-trace-context":"{text}""#));
        assert_eq!(cloud.parent.unwrap().0.trace, context.trace, "{text}");
        assert_eq!(
            (cloud.parent.unwrap().0.span, cloud.malformed),
            (None, span_malformed),
            "{text}"
        );
    }
    for text in [
        r#""x-datadog-trace-id":"a3ce""#,
        r#""x-datadog-trace-id":"0""#,
        r#""x-cloud-trace-context":"1/2""#,
    ] {
        assert_eq!((headers(text).parent, headers(text).malformed), (None, 1), "{text}");
    }
}

#[test]
fn envoys_raw_headers_are_read_in_either_json() {
    let value = "MDAtNGJmOTJmMzU3N2IzNGRhNmEzY2U5MjlkMGUwZTQ3MzYtMDBmMDY3YWEwYmE5MDJiNy0wMQ==";
    for (map, raw) in [("header_map", "raw_value"), ("headerMap", "rawValue")] {
        let found = found(&format!(
            r#""input":{{"attributes":{{"request":{{"http":{{"{map}":{{"headers":[{{"key":":path","{raw}":"L28="}},{{"key":"Traceparent","{raw}":"{value}"}}]}}}}}}}}}}"#
        ));
        assert_eq!(found.parent.unwrap().0.trace, ids::trace_id(T).unwrap(), "{map}");
    }
}

#[test]
fn a_second_traceparent_is_a_link_and_is_counted() {
    let other = "ffffffffffffffffffffffffffffff01";
    for (values, links, malformed) in [
        (format!(r#"["00-{T}-{S}-01","00-{other}-{S}-01"]"#), 1, 1),
        (format!(r#""00-{T}-{S}-01,00-{other}-{S}-01""#), 1, 1),
        (format!(r#"["00-{T}-{S}-01","00-{T}-73ab48767734d7c1-01"]"#), 0, 0),
        (format!(r#"["junk","00-{T}-{S}-01"]"#), 0, 1),
        (format!(r#"["","00-{T}-{S}-01"]"#), 0, 0),
    ] {
        let found = found(&format!(
            r#""request_context":{{"http":{{"headers":{{"traceparent":{values}}}}}}}"#
        ));
        assert_eq!(found.parent.unwrap().0.trace, ids::trace_id(T).unwrap(), "{values}");
        assert_eq!((found.links.len(), found.malformed), (links, malformed), "{values}");
    }
}

/// Parsers make numbers of decimal ids; they are read to their last digit.
#[test]
fn datadogs_ids_may_be_numbers() {
    let of = |headers: &str| {
        let found = found(&format!(r#""input":{{"headers":{headers}}}"#));
        let parent = found.parent.map(|(context, _)| {
            format!("{} {}", context.trace, context.span.map_or("-".to_owned(), |s| s.to_string()))
        });
        (parent.unwrap_or_default(), found.malformed)
    };
    let right = ("0000000000000000ffffffffffffffff 7fffffffffffffff".to_owned(), 0);
    assert_eq!(
        of(
            r#"{"x-datadog-trace-id":18446744073709551615,"x-datadog-parent-id":9223372036854775807}"#
        ),
        right
    );
    assert_eq!(
        of(
            r#"{"x-datadog-trace-id":[18446744073709551615],"x-datadog-parent-id":"9223372036854775807"}"#
        ),
        right
    );
    assert_eq!(of(r#"{"x-datadog-trace-id":18446744073709551616}"#), (String::new(), 1));
    assert_eq!(of(r#"{"x-datadog-trace-id":true}"#), (String::new(), 0));
}
