//! The memory budget: what the parts of a pipeline may hold at most follows from the sizes in its file, so
//! these are made smaller until their sum fits.

use std::collections::BTreeMap;

use super::file::{self, File};
use crate::config::units::Bytes;
use crate::sink::config::SinkConfig;
use crate::sink::delivery::{Delivery, REMEMBERED};

/// What a process has before it reads anything: code, runtime, clients, series.
const BASE: usize = 64 << 20;
/// What is fetched ahead, and what a request on its way adds to it once it is decompressed (`log::consumer::shares`).
const PREFETCH: usize = 2;
/// A transaction stands in memory as it was read and as it is written, in librdkafka's queue and compressed.
const TRANSACTION: usize = 3;
/// A batch as it was read, encoded, and compressed.
const BATCH: usize = 3;
/// What waits beside others: records that a sink refuses or that are another's, until others passed or the other took them.
const BESIDE: usize = 2;

/// A decision in the queue of a window of repeats, and in the set of those under an id that another one had: 128 bits of the id, and 64 of the
/// content.
const IDENTITY: usize = 32;
/// An id in the map of ids, with the content of one decision and how many others have it.
const KNOWN: usize = 32;

/// What a window of repeats takes that is full: a queue, a map and a set (`stage::deliver::repeats`), each a power of two. Tables that forget as
/// much as they take are doubled once more where they are more than half full, and have a byte beside each place.
pub fn window(decisions: usize) -> usize {
    if decisions == 0 {
        return 0;
    }
    let all = decisions + 1;
    let places = (all * 16).div_ceil(7).next_power_of_two();
    all.next_power_of_two() * IDENTITY + places * (IDENTITY + 1 + KNOWN + 1)
}

/// What is on its way when a window is filled from what stands in the docket already (`log::scan::reader`).
const FILLING: usize = 6 << 20;

/// What adds late matches to what a sink holds has small records: so much of them is fetched ahead, and so much is a batch. One is on its
/// way, and one is filled.
const AMENDMENTS: usize = 1 << 20;
const AMENDMENTS_BATCH: usize = 512 << 10;
const AMENDING: usize = AMENDMENTS * PREFETCH + AMENDMENTS_BATCH * (2 * BATCH + BESIDE);

/// How a sink's late matches are delivered.
pub fn amending(delivery: &Delivery) -> Delivery {
    let mut delivery = delivery.clone();
    delivery.prefetch = Bytes(delivery.prefetch.0.min(AMENDMENTS));
    delivery.batch_bytes = Bytes(delivery.batch_bytes.0.min(AMENDMENTS_BATCH));
    delivery
}

/// Windows that are not set take one part in so many of the budget,
const WINDOWS: usize = 4;
/// unless they would be smaller than this.
const FEWEST: usize = 500;

/// No size is made smaller than this.
const LEAST: usize = 64 << 10;

/// A size in the file that memory depends on.
struct Size<'f> {
    /// Each of these parts holds so much of it,
    parts: Vec<&'f str>,
    bytes: &'f mut Bytes,
    /// so often.
    times: usize,
}

impl Size<'_> {
    fn all(&self, bytes: usize) -> usize {
        bytes * self.times * self.parts.len()
    }
}

fn sizes(file: &mut File) -> Vec<Size<'_>> {
    let intake = &mut file.intake;
    // The reader of facts and the join read and write as intake does.
    let readers = match file.join {
        Some(_) => vec!["intake", "facts", "join"],
        None => vec!["intake"],
    };
    let transactions = &mut intake.transaction_bytes;
    let mut all = vec![
        Size { parts: readers.clone(), bytes: &mut intake.prefetch, times: PREFETCH },
        Size { parts: readers, bytes: transactions, times: TRANSACTION },
    ];
    if let Some(join) = &mut file.join {
        all.push(Size { parts: vec!["join"], bytes: &mut join.memory, times: 1 });
    }
    if let Some(door) = &mut file.door {
        let limits = &mut door.limits;
        all.push(Size { parts: vec!["door"], bytes: &mut limits.bytes_in_flight, times: 1 });
        // In librdkafka's queue.
        all.push(Size { parts: vec!["door"], bytes: &mut limits.queue_bytes, times: 1 });
    }
    for (name, sink) in &mut file.sinks {
        // Those in flight, and the one that is being filled.
        let batches = sink.concurrency() + 1;
        let delivery = sink.delivery_mut();
        let parts = vec![name.as_str()];
        all.push(Size { parts: parts.clone(), bytes: &mut delivery.prefetch, times: PREFETCH });
        let times = batches * BATCH + BESIDE;
        all.push(Size { parts, bytes: &mut delivery.batch_bytes, times });
    }
    all
}

/// How much of the budget each part may hold.
pub fn shares(file: &File) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut file = file.clone();
    for size in sizes(&mut file) {
        for part in &size.parts {
            *shares.entry((*part).to_owned()).or_default() += size.bytes.0 * size.times;
        }
    }
    shares.extend(file.amended().map(|(name, _)| (file::amending(name), AMENDING)));
    shares
}

/// What sinks that read together may hold of the docket topic (`log::shared`): as much as one of them would fetch ahead by itself, which it
/// does not meanwhile.
pub fn shared(file: &File) -> usize {
    let ahead = file.sinks.values().map(|sink| sink.delivery().prefetch.0 * PREFETCH);
    ahead.min().unwrap_or_default()
}

/// What does not get smaller: the process itself, and what sinks remember of decisions, of each of so many partitions.
fn fixed(file: &File, partitions: u32) -> usize {
    let windows = || file.sinks.values().map(SinkConfig::reuse_window).filter(|size| *size > 0);
    let amending = file.amended().count() * AMENDING;
    BASE + amending
        + windows().map(|size| window(size) * partitions as usize + FILLING).sum::<usize>()
}

/// Sinks whose window is not set remember fewer decisions, until all of these windows fit.
fn remember(file: &mut File, partitions: u32, room: usize) {
    let all = file.sinks.values_mut().map(SinkConfig::delivery_mut);
    let mut unset: Vec<_> = all.filter(|delivery| delivery.repeat_window.is_none()).collect();
    let need = |decisions: usize| window(decisions) * partitions as usize * unset.len();
    let mut remembered = REMEMBERED;
    while need(remembered) > room && remembered / 2 >= FEWEST {
        remembered /= 2;
    }
    unset.iter_mut().for_each(|delivery| delivery.remembered = remembered);
}

/// What the pipeline may need at most.
fn need(file: &mut File, partitions: u32) -> usize {
    fixed(file, partitions) + sizes(file).iter().map(|size| size.all(size.bytes.0)).sum::<usize>()
}

/// Makes the sizes smaller, all by the same factor, until they fit; or says what budget is needed.
pub fn fit(file: &mut File) -> Result<(), String> {
    let partitions = file.docket.partitions;
    fit_to(file, partitions)
}

/// The same for a docket topic that has so many partitions. Sizes that were made smaller stay so.
pub fn fit_to(file: &mut File, partitions: u32) -> Result<(), String> {
    let budget = file.memory.budget.0;
    remember(file, partitions, budget / WINDOWS);
    let least = fixed(file, partitions)
        + sizes(file).iter().map(|size| size.all(size.bytes.0.min(LEAST))).sum::<usize>();
    if least > budget {
        return Err(format!(
            "these sources and sinks need {} MiB at least; give them more, or fewer batches in flight (delivery.concurrency), or smaller windows (delivery.repeat_window)",
            least.div_ceil(1 << 20)
        ));
    }
    let needed = need(file, partitions);
    if needed <= budget {
        return Ok(());
    }
    // What is above the least is shared out.
    let share = (budget - least) as f64 / (needed - least) as f64;
    for Size { bytes, .. } in sizes(file) {
        let least = bytes.0.min(LEAST);
        *bytes = Bytes(least + ((bytes.0 - least) as f64 * share) as usize);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(budget: &str) -> Result<super::super::Pipeline, super::super::LoadError> {
        let text = format!(
            "name: m\nkafka: {{brokers: x}}\nsources: [{{topic: t}}]\nmemory: {{budget: {budget}}}\nsinks:\n  a: {{type: file, path: a}}\n  b: {{type: file, path: b, delivery: {{batch_bytes: 8MiB, concurrency: 8}}}}\n"
        );
        super::super::parse(std::path::Path::new("m.yaml"), &text, &crate::config::secrets::Real)
    }

    #[test]
    fn sizes_are_kept_when_they_fit_and_shared_out_when_not() {
        let roomy = file("1GiB").map_err(|e| e.to_string()).unwrap();
        assert_eq!(roomy.file.sinks["b"].delivery().batch_bytes.0, 8 << 20);
        for budget in [160usize, 200, 300] {
            let mut tight = file(&format!("{budget}MiB")).map_err(|e| e.to_string()).unwrap().file;
            assert!(tight.sinks["b"].delivery().batch_bytes.0 < 8 << 20);
            let need = need(&mut tight, 12);
            assert!(need <= budget << 20 && need > (budget - 2) << 20, "{budget} MiB: {need}");
        }
    }

    #[test]
    fn a_budget_that_is_too_small_is_told_what_it_takes() {
        let error = file("32MiB").unwrap_err().to_string();
        assert!(
            error.contains("m.yaml:4:18: these sources and sinks need 88 MiB at least"),
            "{error}"
        );
    }

    #[test]
    fn what_is_remembered_is_of_the_partitions_that_there_are() {
        let mut tight = file("300MiB").map_err(|e| e.to_string()).unwrap().file;
        let mut remembered = |partitions| {
            fit_to(&mut tight, partitions).unwrap();
            assert!(need(&mut tight, partitions) <= 300 << 20);
            tight.sinks["a"].repeat_window()
        };
        assert_eq!([12, 24, 100, 12].map(&mut remembered), [10_000, 5_000, 1_250, 10_000]);
        // What is set stays.
        tight.sinks.get_mut("a").unwrap().delivery_mut().repeat_window = Some(10_000);
        let before = sizes(&mut tight).iter().map(|size| size.bytes.0).sum::<usize>();
        fit_to(&mut tight, 50).unwrap();
        assert_eq!(tight.sinks["a"].repeat_window(), 10_000);
        assert!(sizes(&mut tight).iter().map(|size| size.bytes.0).sum::<usize>() < before);
        assert!(fit_to(&mut tight, 1000).unwrap_err().contains("delivery.repeat_window"));
    }

    #[test]
    fn one_batch_at_a_time_goes_to_loki_unless_the_file_says_otherwise() {
        let concurrency = |sink: &str| {
            let text = format!(
                "name: m\nkafka: {{brokers: x}}\nsources: [{{topic: t}}]\nsinks: {{a: {{{sink}}}}}\n"
            );
            let loaded = super::super::parse(
                std::path::Path::new("m.yaml"),
                &text,
                &crate::config::secrets::Real,
            );
            loaded.map_err(|e| e.to_string()).unwrap().file.sinks["a"].concurrency()
        };
        assert_eq!(concurrency("type: loki, url: 'http://l'"), 1);
        assert_eq!(concurrency("type: loki, server: victorialogs, url: 'http://l'"), 4);
        assert_eq!(concurrency("type: loki, url: 'http://l', delivery: {concurrency: 3}"), 3);
        assert_eq!(concurrency("type: file, path: a"), 4);
    }
}
