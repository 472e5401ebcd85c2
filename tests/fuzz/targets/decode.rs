//! A Kafka record's value of any kind becomes decisions, rejects, or nothing; each docket record reads back as what it was made of.
#![no_main]

use docket_core::decision::formats::{self, Format, Limits, Piece};
use docket_core::decision::record::Record;
use docket_core::decision::record::{Rules, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { decision: 1 << 16, record: 1 << 20, ..Limits::default() };
    let rules = Rules::default();
    for format in [Format::Auto, Format::Json, Format::OtlpProto] {
        formats::split(bytes, format, &limits, &mut |piece| {
            let Piece::Decision { event, agent } = piece else { return };
            let mut out = Vec::new();
            let written = write(&event, &[], agent.as_ref(), &rules, &mut out);
            // Not into values: numbers of any size are JSON.
            serde_json::from_slice::<&serde_json::value::RawValue>(&out)
                .expect("a docket record is JSON");
            let record = Record::parse(&out).expect("a docket record reads back");
            assert_eq!(
                (record.decision_id, record.timestamp, record.verdict),
                (event.decision_id.clone(), event.timestamp, written.verdict)
            );
        });
    }
});
