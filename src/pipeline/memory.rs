//! The memory budget: what the parts of a pipeline may hold at most follows from the sizes in its file, so
//! these are made smaller until their sum fits.

use super::file::File;
use crate::config::units::Bytes;
use crate::sink::config::SinkConfig;

/// What a process has before it reads anything: code, runtime, clients, series.
const BASE: usize = 64 << 20;
/// A transaction stands in memory as it was read and as it is written, in librdkafka's queue and compressed.
const TRANSACTION: usize = 3;
/// A batch as it was read, encoded, and compressed.
const BATCH: usize = 3;

/// A decision id in a window of repeats.
const REMEMBERED: usize = 56;

/// No size is made smaller than this.
const LEAST: usize = 64 << 10;

/// Each size in the file that memory depends on, and how often it counts.
fn sizes(file: &mut File) -> Vec<(&mut Bytes, usize)> {
    let intake = &mut file.intake;
    // The reader of facts and the join read and write as intake does.
    let readers = if file.join.is_some() { 3 } else { 1 };
    let mut all = vec![
        (&mut intake.prefetch, readers),
        (&mut intake.transaction_bytes, TRANSACTION * readers),
    ];
    if let Some(join) = &mut file.join {
        all.push((&mut join.memory, 1));
    }
    if let Some(door) = &mut file.door {
        all.push((&mut door.limits.bytes_in_flight, 1));
        // In librdkafka's queue.
        all.push((&mut door.limits.queue_bytes, 1));
    }
    for sink in file.sinks.values_mut() {
        // Those in flight, and the one that is being filled.
        let batches = sink.concurrency() + 1;
        let delivery = sink.delivery_mut();
        all.push((&mut delivery.prefetch, 1));
        all.push((&mut delivery.batch_bytes, batches * BATCH));
    }
    all
}

/// What does not get smaller: the process itself, and the decision ids that sinks remember.
fn fixed(file: &File) -> usize {
    let remembered: usize = file.sinks.values().map(SinkConfig::repeat_window).sum();
    BASE + remembered * file.docket.partitions as usize * REMEMBERED
}

/// What the pipeline may need at most.
pub fn need(file: &mut File) -> usize {
    fixed(file) + sizes(file).into_iter().map(|(size, times)| size.0 * times).sum::<usize>()
}

/// Makes the sizes smaller, all by the same factor, until they fit; or says what budget is needed.
pub fn fit(file: &mut File) -> Result<(), String> {
    let budget = file.memory.budget.0;
    let least = fixed(file)
        + sizes(file).into_iter().map(|(size, times)| size.0.min(LEAST) * times).sum::<usize>();
    if least > budget {
        return Err(format!(
            "these sources and sinks need {} MiB at least; give them more, or fewer batches in flight (delivery.concurrency), or smaller windows (delivery.repeat_window)",
            least.div_ceil(1 << 20)
        ));
    }
    let needed = need(file);
    if needed <= budget {
        return Ok(());
    }
    // What is above the least is shared out.
    let share = (budget - least) as f64 / (needed - least) as f64;
    for (size, _) in sizes(file) {
        let least = size.0.min(LEAST);
        *size = Bytes(least + ((size.0 - least) as f64 * share) as usize);
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
        for budget in [128usize, 200, 300] {
            let mut tight = file(&format!("{budget}MiB")).map_err(|e| e.to_string()).unwrap().file;
            assert!(tight.sinks["b"].delivery().batch_bytes.0 < 8 << 20);
            let need = need(&mut tight);
            assert!(need <= budget << 20 && need > (budget - 2) << 20, "{budget} MiB: {need}");
        }
    }

    #[test]
    fn a_budget_that_is_too_small_is_told_what_it_takes() {
        let error = file("32MiB").unwrap_err().to_string();
        assert!(
            error.contains("m.yaml:4:18: these sources and sinks need 80 MiB at least"),
            "{error}"
        );
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
