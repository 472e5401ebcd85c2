//! What finding decisions costs: `cargo bench -p docket-core --bench reading`. Items per second of one core; the inputs
//! are the decisions that a real OPA wrote.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::Read;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use docket_core::decision::formats::{self, Format, Limits};

fn main() {
    divan::main();
}

fn samples() -> Vec<String> {
    let bytes = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/data/decisions-opa-1.22.2.ndjson.gz"
    ))
    .unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn read(bencher: Bencher<'_, '_>, records: &[String], items: usize) {
    bencher.counter(ItemsCount::new(items)).bench_local(|| {
        for record in records {
            formats::split(record.as_bytes(), Format::Auto, &Limits::default(), &mut |piece| {
                black_box(&piece);
            });
        }
    });
}

#[divan::bench]
fn one_a_record(bencher: Bencher<'_, '_>) {
    let samples = samples();
    read(bencher, &samples, samples.len());
}

#[divan::bench]
fn lines(bencher: Bencher<'_, '_>) {
    let samples = samples();
    read(bencher, &[samples.join("\n")], samples.len());
}

#[divan::bench]
fn array(bencher: Bencher<'_, '_>) {
    let samples = samples();
    read(bencher, &[format!("[{}]", samples.join(","))], samples.len());
}

#[divan::bench]
fn envelopes(bencher: Bencher<'_, '_>) {
    let samples = samples();
    let all: Vec<String> = samples
        .iter()
        .map(|line| {
            let line = serde_json::to_string(&format!("{line}\n")).unwrap();
            format!(r#"{{"log":{line},"stream":"stdout","kubernetes":{{"pod_name":"opa-0"}}}}"#)
        })
        .collect();
    read(bencher, &all, all.len());
}
