//! What the data path costs a decision, without Kafka and without a network: `cargo bench`.
//! Items per second of one core; the inputs are the decisions that a real OPA wrote.
#![allow(clippy::unwrap_used)]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use docket::decision::event::Event;
use docket::decision::formats::{self, Format, Limits};
use docket::decision::record::Record;
use docket::decision::record::{Rules, write};
use docket::decision::{json, trace, verdict};
use docket::log::Value;
use docket::sink::loki::config::LokiConfig;
use docket::sink::{elasticsearch, loki, metrics, otlp};
use prost::Message;

#[path = "../tests/support/samples.rs"]
mod samples;
use samples::samples;

fn main() {
    divan::main();
}

fn records() -> Vec<Vec<u8>> {
    let rules = Rules::default();
    let make = |sample: &String| {
        let mut out = Vec::new();
        write(&Event::parse(sample.as_bytes()).unwrap(), &[], None, &rules, &mut out);
        out
    };
    samples().iter().map(make).collect()
}

fn bytes<T: AsRef<[u8]>>(all: &[T]) -> BytesCount {
    BytesCount::new(all.iter().map(|r| r.as_ref().len()).sum::<usize>())
}

/// Every sample through `work`.
fn each_sample(bencher: Bencher<'_, '_>, mut work: impl FnMut(&[u8])) {
    let samples = samples();
    bencher
        .counter(ItemsCount::new(samples.len()))
        .counter(bytes(&samples))
        .bench_local(|| samples.iter().for_each(|s| work(s.as_bytes())));
}

/// The samples as one batch of docket records.
fn batch<T>(bencher: Bencher<'_, '_>, mut work: impl FnMut(&[Record<'_>]) -> T) {
    let raw = records();
    let records: Vec<Record<'_>> = raw.iter().map(|r| Record::parse(r).unwrap()).collect();
    bencher
        .counter(ItemsCount::new(records.len()))
        .counter(bytes(&raw))
        .bench_local(|| black_box(work(&records)));
}

#[divan::bench]
fn json_strict_scan(bencher: Bencher<'_, '_>) {
    each_sample(bencher, |s| {
        black_box(json::parse_object(s).unwrap());
    });
}

/// For comparison: what a tree costs.
#[divan::bench]
fn json_serde_value(bencher: Bencher<'_, '_>) {
    each_sample(bencher, |s| {
        black_box(serde_json::from_slice::<serde_json::Value>(s).unwrap());
    });
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    each_sample(bencher, |s| {
        formats::split(s, Format::Auto, &Limits::default(), &mut |piece| {
            black_box(&piece);
        });
    });
}

#[divan::bench]
fn verdict_and_trace(bencher: Bencher<'_, '_>) {
    let samples = samples();
    let events: Vec<Event<'_>> =
        samples.iter().map(|s| Event::parse(s.as_bytes()).unwrap()).collect();
    let rules = trace::Rules::default();
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in &events {
            black_box((
                verdict::judge(event, &verdict::Rules::default()),
                trace::find(event, &[], &rules),
            ));
        }
    });
}

/// From an event to a docket record: verdict, trace, ids, splice.
#[divan::bench]
fn splice(bencher: Bencher<'_, '_>) {
    let samples = samples();
    let events: Vec<Event<'_>> =
        samples.iter().map(|s| Event::parse(s.as_bytes()).unwrap()).collect();
    let rules = Rules::default();
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in &events {
            out.clear();
            black_box(write(event, &[], None, &rules, &mut out));
        }
    });
}

#[divan::bench]
fn record_parse(bencher: Bencher<'_, '_>) {
    let raw = records();
    bencher.counter(ItemsCount::new(raw.len())).counter(bytes(&raw)).bench_local(|| {
        for record in &raw {
            black_box(Record::parse(record).unwrap());
        }
    });
}

/// Once for all sinks of a process.
#[divan::bench]
fn value(bencher: Bencher<'_, '_>) {
    let raw = records();
    bencher.counter(ItemsCount::new(raw.len())).counter(bytes(&raw)).bench_local(|| {
        for record in &raw {
            black_box(Value::new(record));
        }
    });
}

/// And for each of them.
#[divan::bench]
fn value_record(bencher: Bencher<'_, '_>) {
    let values: Vec<Value> = records().iter().map(|raw| Value::new(raw)).collect();
    bencher.counter(ItemsCount::new(values.len())).bench_local(|| {
        for value in &values {
            black_box(value.record().unwrap());
        }
    });
}

#[divan::bench]
fn encode_loki_snappy(bencher: Bencher<'_, '_>) {
    let config: LokiConfig = serde_json::from_str(r#"{"url":"http://127.0.0.1"}"#).unwrap();
    let encoder = loki::Encoder::new(&config);
    batch(bencher, |records| {
        snap::raw::Encoder::new().compress_vec(&encoder.push_request(records)).unwrap()
    });
}

#[divan::bench]
fn encode_elasticsearch(bencher: Bencher<'_, '_>) {
    batch(bencher, |records| elasticsearch::bulk(records).0);
}

#[divan::bench]
fn encode_elasticsearch_gzip(bencher: Bencher<'_, '_>) {
    batch(bencher, |records| docket::gzip::gzip(&elasticsearch::bulk(records).0));
}

#[divan::bench]
fn encode_otlp_traces(bencher: Bencher<'_, '_>) {
    batch(bencher, |records| otlp::traces_request(records, otlp::span).encode_to_vec());
}

#[divan::bench]
fn encode_otlp_logs(bencher: Bencher<'_, '_>) {
    batch(bencher, |records| otlp::logs_request(records).encode_to_vec());
}

#[divan::bench]
fn encode_metrics(bencher: Bencher<'_, '_>) {
    batch(bencher, metrics::tally);
}
