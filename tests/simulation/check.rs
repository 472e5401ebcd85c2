//! What must hold at the end of a world whose logs stayed as they were written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::input::Input;
use super::world::{self, Shared, World};
use super::{DOCKET, REJECTS, SOURCE, decision_id};

/// How long the sink is away that takes what is too old for another, while nothing else is wrong.
pub const HELD_UP: Duration = Duration::from_secs(150);

/// What is too old for a sink holds up nothing else there.
pub fn passed(world: &Shared, input: &Input) {
    let mut w = world.lock();
    // A few may wait for what was committed last, or for others to pass.
    let held_up = |(_, record): &(i32, world::Record)| {
        let id = decision_id(&record.value);
        let is_there = w.stored.get("once").is_some_and(|stored| stored.contains_key(&id));
        let old = input.old.contains(&id) || id.ends_with("once");
        let long = w.now() - record.written > docket::decision::time::nanos(HELD_UP / 2);
        long && !old && !is_there && !w.is_rejected("once", &id)
    };
    let held_up: Vec<_> = w.committed(DOCKET).into_iter().filter(held_up).collect();
    if let Some((_, record)) = held_up.first() {
        let id = decision_id(&record.value);
        let more = held_up.len() - 1;
        w.violation(format!("once has no {id} while late is away, and {more} more"));
    }
}

pub fn whole(world: &Shared, input: &Input) {
    let mut w = world.lock();
    let mut wrong = Vec::new();
    // Every element of the source became one record, of the docket or of rejects, once.
    let mut places = BTreeSet::new();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for (_, record) in w.committed(DOCKET) {
        let id = decision_id(&record.value);
        if !places.insert(record.header("docket-source").unwrap_or_default().to_owned()) {
            wrong.push(format!("{id} is in the docket twice from one place"));
        }
        *times.entry(id).or_default() += 1;
    }
    if times != input.times {
        wrong.push(format!(
            "the docket holds {} decisions, not {}: {:?}",
            times.values().sum::<usize>(),
            input.times.values().sum::<usize>(),
            input
                .times
                .keys()
                .filter(|id| times.get(*id) != input.times.get(*id))
                .collect::<Vec<_>>()
        ));
    }
    explain(&mut w, input, &times);
    let mut rejected = 0;
    for (_, record) in w.committed(REJECTS) {
        if record.header("docket-stage") == Some("intake") {
            rejected += 1;
            let place = ["topic", "partition", "offset", "element"]
                .map(|part| record.header(&format!("docket-source-{part}")).unwrap_or_default())
                .join("/");
            if !places.insert(place.clone()) {
                wrong.push(format!("{place} is in rejects and elsewhere"));
            }
        }
    }
    if rejected != input.rejects {
        wrong.push(format!("{rejected} records were rejected by intake, not {}", input.rejects));
    }
    wrong.extend(sinks(&w, input));
    wrong.into_iter().for_each(|what| w.violation(what));
}

/// Takes note of where decisions stand that are not so often in the docket as in the source.
fn explain(w: &mut World, input: &Input, times: &BTreeMap<String, usize>) {
    for (id, n) in &input.times {
        if times.get(id) != Some(n) {
            let got = times.get(id).copied().unwrap_or(0);
            let rejected: Vec<_> = w
                .committed(REJECTS)
                .into_iter()
                .filter(|(_, r)| String::from_utf8_lossy(&r.value).contains(&format!("{id}\"")))
                .map(|(_, r)| {
                    r.headers
                        .iter()
                        .map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v)))
                        .collect::<Vec<_>>()
                })
                .collect();
            w.note(format!("{id}: {got} times, not {n}; in rejects {rejected:?}"));
            let parts = input.parts.get(id).cloned().unwrap_or_default();
            for (partition, record) in w.committed(SOURCE) {
                if let Some(n) = parts.iter().position(|part| *part == record.value) {
                    let (offset, at) = (record.offset, record.written);
                    w.note(format!("{id}: part {n} is {partition}/{offset}, of {at}"));
                }
            }
        }
    }
}

/// Every decision is in each sink or in rejects, and what a sink got twice was byte for byte the same.
fn sinks(w: &World, input: &Input) -> Vec<String> {
    let mut wrong = Vec::new();
    for sink in ["whole", "items", "once"] {
        for id in &input.decisions {
            let copies = w.stored.get(sink).and_then(|s| s.get(id)).cloned().unwrap_or_default();
            let refused = w.is_rejected(sink, id);
            let old = sink == "once" && input.old.contains(id);
            let poison = id.ends_with(sink);
            let late = old && w.acknowledged.get("late").is_some_and(|ids| ids.contains(id));
            match (copies.is_empty(), refused || late) {
                (true, false) => wrong.push(format!("{sink} has no {id}, nor have rejects")),
                (_, true) if !poison && !late => {
                    wrong.push(format!("{id} was rejected for {sink} without a cause"));
                }
                (false, _) if old => {
                    wrong.push(format!("{id} is too old for {sink} and was sent"));
                }
                _ => {}
            }
            let different: BTreeSet<&Vec<u8>> = copies.iter().collect();
            let made = 1 + usize::from(input.reused.contains(id));
            if different.len() > made {
                wrong.push(format!("{sink} got different bytes for {id}"));
            } else if (1..made).contains(&different.len()) && !(refused || late) {
                wrong.push(format!("{sink} has one of two decisions called {id}"));
            }
        }
    }
    wrong
}
