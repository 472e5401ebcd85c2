//! The door's body reader and what finds the records in it: any body, plain or gzipped, ends in records or in an answer, within its bounds.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use docket::decision::formats::Limits;
use docket::decision::trace;
use docket::door::body::{Bounds, Budget, read};
use docket::door::{status, upload};
use libfuzzer_sys::fuzz_target;
use prometheus::IntGauge;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    let bounds = Bounds { wire: 1 << 17, plain: 1 << 20, time: Duration::from_secs(5) };
    let rules = trace::Rules::default();
    for encoding in ["identity", "gzip"] {
        let held = IntGauge::new("held", "held").expect("a gauge");
        let budget = Budget::new(4 << 20, held.clone());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, encoding.parse().expect("a header"));
        let read = RUNTIME.block_on(read(&headers, Body::from(bytes.to_vec()), &bounds, &budget));
        assert!(budget.in_use() <= 4 << 20);
        let Ok(Ok(content)) = read else { continue };
        assert!(content.text().len() <= bounds.plain);
        let limits = Limits { decision: 1 << 16, record: 1 << 20, ..Limits::default() };
        if let Ok(records) = upload::decisions(content.text(), &rules, &limits) {
            assert!(records.iter().map(|r| r.bytes.len()).sum::<usize>() <= content.text().len());
        }
        for json in [true, false] {
            let _ = upload::otlp(content.text(), json, &rules, &limits);
        }
        let _ = status::Status::parse(content.text(), "app", "id");
        drop(content);
        assert_eq!((budget.in_use(), held.get()), (0, 0));
    }
});
