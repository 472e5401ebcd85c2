//! Lines whose parts came in Kafka records of their own: joined by key and partition, in bounds, and told once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::cell::Cell;

use docket_core::decision::formats::{
    Among, Format, Limits, Parts, Piece, RecordPlace, Within, split_within,
};
use proptest::prelude::*;
use serde_json::json;

fn decision(id: &str, padding: usize) -> String {
    json!({ "decision_id": id, "path": "a/allow", "input": { "x": "y".repeat(padding) }, "result": true,
        "timestamp": "2026-11-24T12:48:50Z" })
    .to_string()
}

/// What is told of records, each with its offset: `offset.element what`.
#[derive(Default)]
struct Reader {
    parts: Parts,
    offset: i64,
    told: Vec<String>,
}

impl Reader {
    fn take(&mut self, partition: i32, key: &str, value: &str) {
        let place = RecordPlace { topic: 0, partition, offset: self.offset };
        let among = Among { parts: &mut self.parts, place, key: key.as_bytes() };
        let mut element = 0;
        let within = Within { over: &Cell::new(false), among: Some(among) };
        split_within(within, value.as_bytes(), Format::Auto, &Limits::default(), &mut |piece| {
            let what = match piece {
                Piece::Ignored(what) => return self.told.push(what.as_str().to_owned()),
                Piece::Decision { event, .. } => event.decision_id.into_owned(),
                Piece::Reject { reject, .. } => reject.reason.as_str().to_owned(),
            };
            self.told.push(format!("{}.{element} {what}", self.offset));
            element += 1;
        });
        self.missing();
        self.offset += 1;
    }

    fn missing(&mut self) {
        for line in self.parts.missing() {
            let told =
                format!("{}.{} missing {}", line.place.offset, line.element, line.bytes.len());
            self.told.push(told);
        }
    }

    fn end(mut self) -> Vec<String> {
        self.parts.give_up();
        self.missing();
        assert!(!self.parts.wait());
        self.told
    }
}

/// Parts of a line, as agents send them.
fn parts(text: &str, how: usize, size: usize) -> Vec<String> {
    let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
    let last = chunks.len() - 1;
    let part = |(n, chunk): (usize, &&[u8])| {
        let chunk = std::str::from_utf8(chunk).unwrap();
        let (tag, more) = if n == last { ("F", "true") } else { ("P", "false") };
        match how {
            0 => format!("2026-11-24T12:48:50.{n}Z stdout {tag} {chunk}"),
            1 => json!({ "log": chunk, "stream": "stdout", "logtag": tag }).to_string(),
            2 => json!({ "log": chunk, "source": "stdout", "container_id": "c", "partial_message": "true",
                "partial_id": "p", "partial_ordinal": n.to_string(), "partial_last": more }).to_string(),
            _ => {
                let end = if n == last { "\n" } else { "" };
                json!({ "log": format!("{chunk}{end}"), "stream": "stdout", "time": format!("{n}") }).to_string()
            }
        }
    };
    chunks.iter().enumerate().map(part).collect()
}

#[test]
fn parts_in_records_of_their_own_are_one_line() {
    for how in 0..4 {
        let mut reader = Reader::default();
        let all = parts(&decision("a", 40_000), how, 16 << 10);
        for (n, part) in all.iter().enumerate() {
            reader.take(0, "k", part);
            assert_eq!(reader.parts.wait_in(0, 0), n + 1 < all.len(), "{how}");
            assert!(!reader.parts.wait_in(0, 1));
            // Whole ones of others have their say in between: of another key, another partition, and of the same.
            reader.take(0, "l", &decision("b", 0));
            reader.take(1, "k", &decision("c", 0));
        }
        assert_eq!(
            reader.end(),
            ["1.0 b", "2.0 c", "4.0 b", "5.0 c", "6.0 a", "7.0 b", "8.0 c"],
            "{how}"
        );
    }
}

#[test]
fn what_has_no_end_is_one_reject_that_keeps_the_bytes() {
    for how in 0..4 {
        let mut reader = Reader::default();
        let all = parts(&decision("a", 40_000), how, 16 << 10);
        all[..2].iter().for_each(|part| reader.take(0, "k", part));
        assert_eq!(reader.end(), ["1.0 missing 32768"], "{how}");
    }
    // A whole line of the same stream means that the end is lost; both are told, each as its own record's.
    let line = decision("b", 0);
    for how in 0..2 {
        let mut reader = Reader::default();
        reader.take(0, "k", &parts(&decision("a", 40_000), how, 16 << 10)[0]);
        reader.take(0, "k", &parts(&line, how, 1 << 20)[0]);
        assert_eq!(reader.end(), ["1.0 b", "0.0 missing 16384"], "{how}");
    }
    // Beside other pieces of its record.
    let mut reader = Reader::default();
    let part = &parts(&decision("a", 40_000), 1, 16 << 10)[0];
    reader.take(0, "k", &format!("{}\n{part}", decision("b", 0)));
    assert_eq!(reader.end(), ["0.0 b", "0.1 missing 16384"]);
    // What was cut short of Docker's length is of its record alone, and so are lines of pretty-printed objects.
    let mut reader = Reader::default();
    reader.take(0, "k", &json!({ "log": &decision("a", 0)[..60], "stream": "stdout" }).to_string());
    reader.take(0, "k", &json!({ "log": "{\n", "stream": "stdout" }).to_string());
    assert_eq!(reader.end(), ["0.0 not_json", "text"]);
}

#[test]
fn without_a_key_parts_are_joined_where_their_container_is_named() {
    for (how, joined) in [(0, false), (1, false), (2, true), (3, false)] {
        let mut reader = Reader::default();
        parts(&decision("a", 40_000), how, 16 << 10).iter().for_each(|p| reader.take(0, "", p));
        let told = reader.end();
        assert_eq!(told == ["2.0 a"], joined, "{how}: {told:?}");
        assert_eq!(told.len(), if joined { 1 } else { 3 }, "{how}: {told:?}");
    }
}

#[test]
fn so_much_waits_and_no_more() {
    let part = |n: usize| format!("2026-11-24T12:48:50Z stdout P {{\"decision_id\":\"{n}\"");
    let mut reader = Reader::default();
    (0..1_000).for_each(|n| reader.take(0, &n.to_string(), &part(n)));
    assert_eq!(reader.told.len(), 1_000 - 256);
    let mut all = reader.end();
    assert_eq!(all.len(), 1_000);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 1_000);
    // Bytes: a record's worth of them.
    let mut reader = Reader::default();
    let text = "x".repeat(1 << 20);
    (0..100).for_each(|_| reader.take(0, "k", &format!("2026-11-24T12:48:50Z stdout P {text}")));
    assert_eq!(reader.end().len(), 2);
    // Records between two parts.
    let mut reader = Reader::default();
    reader.take(0, "k", &part(0));
    let other = decision("b", 0);
    (0..20_000).for_each(|_| reader.take(0, "l", &other));
    assert_eq!(reader.told.iter().filter(|told| told.contains("missing")).count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// However parts of several lines come between each other, each decision is told once.
    #[test]
    fn interleaved_lines_are_each_told_once(
        lines in prop::collection::vec((0usize..3, 50usize..400), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 200)
    ) {
        let mut queues: Vec<(String, Vec<String>)> = lines
            .iter()
            .enumerate()
            .map(|(n, (how, size))| (format!("k{n}"), parts(&decision(&format!("d{n}"), 600), *how, *size)))
            .collect();
        let mut reader = Reader::default();
        let mut order = order.into_iter();
        while !queues.is_empty() {
            let at = order.next().map_or(0, |i| i.index(queues.len()));
            let (key, queue) = &mut queues[at];
            let value = queue.remove(0);
            reader.take(0, key, &value);
            if queue.is_empty() {
                queues.remove(at);
            }
        }
        let mut ids: Vec<String> = reader.end().iter().map(|told| told.split(' ').nth(1).unwrap().to_owned()).collect();
        ids.sort();
        prop_assert_eq!(ids, (0..lines.len()).map(|n| format!("d{n}")).collect::<Vec<_>>());
    }
}
