//! What comes to the source topic in a run: decisions as agents send them, lines in parts, and what is none.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::SmallRng;

use super::{decision_id, sink, world};

/// What was put into the source topic, and what must become of it.
#[derive(Default)]
pub struct Input {
    pub records: Vec<Vec<u8>>,
    /// Lines whose parts are records of their own, one after the other in one partition.
    pub split: Vec<Vec<Vec<u8>>>,
    /// The same, by the decision that such a line holds.
    pub parts: BTreeMap<String, Vec<Vec<u8>>>,
    pub decisions: BTreeSet<String>,
    /// How often each decision stands in the source.
    pub times: BTreeMap<String, usize>,
    pub rejects: usize,
    pub old: BTreeSet<String>,
    /// IDs that two different decisions have.
    pub reused: BTreeSet<String>,
}

pub fn input(rng: &mut SmallRng) -> Input {
    let mut input = Input::default();
    let count = rng.random_range(30..120);
    let today = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let mut id = 0;
    let mut decision = |rng: &mut SmallRng, input: &mut Input| {
        id += 1;
        // A few are refused by the sinks, or fail there for ever; a few outgrow the docket topic or even rejects.
        let poison = if rng.random_bool(0.04) {
            let kind = if rng.random_bool(0.6) { "poison" } else { sink::FAILS };
            format!("-{kind}-{}", ["whole", "items", "once"][rng.random_range(0..3)])
        } else {
            String::new()
        };
        let old = rng.random_bool(0.05);
        let at = if old { today - jiff::SignedDuration::from_hours(24 * 30) } else { today };
        let pad = match rng.random_range(0..100) {
            0..2 => 2_900,
            2 => 7_000,
            _ => rng.random_range(0..300),
        };
        let name = format!("d{id}{poison}");
        let text = format!(
            r#"{{"decision_id":"{name}","path":"a/allow","result":true,"timestamp":"{at}","pad":"{}"}}"#,
            "x".repeat(pad)
        );
        if pad >= 2_900 {
            input.rejects += 1;
        } else {
            input.decisions.insert(name.clone());
            *input.times.entry(name.clone()).or_default() += 1;
            if old {
                input.old.insert(name);
            }
        }
        text
    };
    for i in 0..count {
        let record = match rng.random_range(0..22) {
            0 => {
                input.rejects += 1;
                "{\"broken\":".to_owned()
            }
            // Rejected as a whole: of more elements than a record may have, one that Kafka never takes, one that docket panics at.
            20 if rng.random_bool(0.5) => {
                input.rejects += 1;
                format!("[{}1]", "1,".repeat(rng.random_range(50..5000)))
            }
            20 => {
                input.rejects += 1;
                let one =
                    format!(r#"{{"decision_id":"{}{i}","timestamp":"{today}"}}"#, world::UNWANTED);
                format!("[{},{one}]", decision(rng, &mut input))
            }
            21 => {
                input.rejects += 1;
                format!(r#"{{"decision_id":"{}{i}","timestamp":"{today}"}}"#, world::PANICS)
            }
            1 | 2 => {
                let several: Vec<String> =
                    (0..rng.random_range(1..6)).map(|_| decision(rng, &mut input)).collect();
                format!("[{}]", several.join(","))
            }
            _ => decision(rng, &mut input),
        };
        input.records.push(record.into_bytes());
    }
    let part = |line: usize, tag: &str, text: &str| {
        serde_json::json!({ "log": text, "logtag": tag, "container_id": line })
            .to_string()
            .into_bytes()
    };
    for line in 0..rng.random_range(0..8) {
        let text = decision(rng, &mut input);
        let size = rng.random_range(50..2_000);
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let tag = |n| if n + 1 == chunks.len() { "F" } else { "P" };
        let parts = chunks.iter().enumerate();
        let parts: Vec<Vec<u8>> =
            parts.map(|(n, chunk)| part(line, tag(n), &String::from_utf8_lossy(chunk))).collect();
        input.parts.insert(decision_id(text.as_bytes()), parts.clone());
        input.split.push(parts);
    }
    // What has no end is one reject.
    if rng.random_bool(0.3) {
        input.rejects += 1;
        input.split.insert(0, vec![part(99, "P", "{\"decision_id\":\"lost\""), part(99, "P", ",")]);
    }
    // A producer that sends again what it did send.
    for _ in 0..rng.random_range(0..4) {
        let again = input.records[rng.random_range(0..input.records.len())].clone();
        let text = String::from_utf8(again.clone()).unwrap();
        if text.starts_with('{')
            && text.len() < 2_900
            && text.ends_with('}')
            && !text.contains(world::PANICS)
        {
            *input.times.get_mut(&decision_id(&again)).unwrap() += 1;
            input.records.push(again);
        }
    }
    // One that makes up its IDs, and takes one twice.
    for _ in 0..rng.random_range(0..4) {
        let first = input.records[rng.random_range(0..input.records.len())].clone();
        let text = String::from_utf8(first).unwrap();
        let id = decision_id(text.as_bytes());
        let other = text.replace("\"result\":true", "\"result\":false");
        if other != text && text.starts_with('{') && input.decisions.contains(&id) {
            *input.times.get_mut(&id).unwrap() += 1;
            input.reused.insert(id);
            input.records.push(other.into_bytes());
        }
    }
    input
}
