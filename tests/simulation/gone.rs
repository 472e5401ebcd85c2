//! Logs that don't stay as they were written: retention, topics made anew, partitions added, offsets that expire. What is gone before it
//! was finished is told, and nothing else is left out.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::Value;

use super::world::{Place, Record, Shared, World};
use super::{DOCKET, Input, REJECTS, SOURCE, decision_id};

const INTAKE: &str = "docket.sim.intake";

/// Something happens to a log. Whether offsets of records may be used twice from now on.
pub fn happens(world: &Shared, rng: &mut SmallRng) -> bool {
    let mut w = world.lock();
    match rng.random_range(0..9) {
        // That a group has read before, one of the two says: what it committed, or what it wrote.
        0 | 8 if !w.is_looked_at(SOURCE) => return false,
        0 => {
            let with_offsets = rng.random_bool(0.5) && w.is_written(DOCKET);
            w.recreate(SOURCE, with_offsets);
        }
        8 if !w.is_looked_at(DOCKET) => return false,
        8 => w.recreate(DOCKET, false),
        1 | 2 => {
            w.grow(SOURCE);
            return false;
        }
        3 => return w.is_written(DOCKET) && w.expire(INTAKE),
        _ => {
            let places = w.places(if rng.random_bool(0.5) { SOURCE } else { DOCKET });
            let place = &places[rng.random_range(0..places.len())];
            let to = rng.random_range(0..=w.length(place));
            w.retain(place, to);
            return false;
        }
    }
    true
}

/// What a letter says is gone: of which part, topic and partition, from where to where.
pub struct Told {
    part: String,
    topic: String,
    partition: i64,
    from: i64,
    to: i64,
    /// What a topic made anew holds before that is gone, too.
    at: i64,
}

impl Told {
    /// Whether it says of a place in a log that what stood there is gone.
    pub fn covers(&self, part: &str, (topic, partition): &Place, offset: i64) -> bool {
        (self.part.as_str(), self.topic.as_str(), self.partition)
            == (part, topic.as_str(), i64::from(*partition))
            && ((self.from..self.to).contains(&offset) || self.to == i64::MAX && offset < self.at)
    }
}

pub fn told(w: &World) -> Vec<Told> {
    let letter = |record: &Record| {
        if record.header("docket-reason") != Some("log_gap") {
            return None;
        }
        let says: Value = serde_json::from_slice(&record.value).unwrap();
        Some(Told {
            part: record.header("docket-sink").or(record.header("docket-stage"))?.to_owned(),
            topic: says["topic"].as_str().unwrap().to_owned(),
            partition: says["partition"].as_i64().unwrap(),
            from: says["from"].as_i64().unwrap(),
            to: says["to"].as_i64().unwrap_or(i64::MAX),
            at: says["goes_on_at"].as_i64().unwrap(),
        })
    };
    w.committed(REJECTS).iter().filter_map(|(_, record)| letter(record)).collect()
}

pub fn check(world: &Shared, input: &Input, anew: bool) {
    let mut w = world.lock();
    let told = told(&w);
    let covers = |part: &str, topic: &str, partition: i32, offset: i64| {
        told.iter().any(|t| t.covers(part, &(topic.to_owned(), partition), offset))
    };
    let mut wrong = Vec::new();
    let deleted =
        |topic: &'static str| w.deleted.iter().filter(move |(place, ..)| place.0 == topic);
    // Where each decision stands in the docket, and whether it is gone from there.
    let mut docket: BTreeMap<String, Vec<Option<(i32, i64)>>> = BTreeMap::new();
    let mut places = BTreeSet::new();
    for (_, record) in w.committed(DOCKET) {
        let place = record.header("docket-source").unwrap_or_default().to_owned();
        if !places.insert(place.clone()) && !anew {
            wrong.push(format!("{place} is in the docket twice"));
        }
        docket.entry(decision_id(&record.value)).or_default().push(None);
    }
    for (place, offset, value) in deleted(DOCKET) {
        docket.entry(decision_id(value)).or_default().push(Some((place.1, *offset)));
    }
    for id in &input.decisions {
        if !docket.contains_key(id) {
            let name = format!("\"{id}\"");
            let of_it = |value: &Vec<u8>| {
                String::from_utf8_lossy(value).contains(&name)
                    || input.parts.get(id).is_some_and(|parts| parts.contains(value))
            };
            let gone: Vec<_> = deleted(SOURCE).filter(|(_, _, value)| of_it(value)).collect();
            let is_told = |(place, offset, _): &&&(Place, i64, Vec<u8>)| {
                covers("intake", SOURCE, place.1, *offset)
            };
            if gone.is_empty() {
                wrong.push(format!("{id} is in the source and not in the docket"));
            } else if !gone.iter().any(|one| is_told(&one)) {
                wrong.push(format!("{id} is gone, and nobody said so: {:?}", gone[0].0));
            }
        }
    }
    for sink in ["whole", "items", "once"] {
        for (id, stands) in &docket {
            let has = |sink: &str| w.stored.get(sink).is_some_and(|s| s.contains_key(id));
            let stored = has(sink) || sink == "once" && has("late");
            let gone =
                |at: &Option<(i32, i64)>| at.is_some_and(|(p, o)| covers(sink, DOCKET, p, o));
            if !stored && !w.is_rejected(sink, id) && !stands.iter().any(gone) {
                wrong.push(format!("{sink} has no {id}, nor have rejects: {stands:?}"));
            }
        }
    }
    wrong.into_iter().for_each(|what| w.violation(what));
}
