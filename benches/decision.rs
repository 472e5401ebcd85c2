//! What the data path costs a decision, without Kafka and without a network: `cargo bench`.
//! Items per second of one core; the inputs are the decisions that a real OPA wrote.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use docket::decision::event::Event;
use docket::decision::formats::{self, Format, Limits};
use docket::decision::record::Record;
use docket::decision::record::{Rules, write};
use docket::decision::{json, trace, verdict};
use docket::protect::Protection;
use docket::protect::detect::{Act, Detect};
use docket::protect::detector;
use docket::protect::keys::Key;
use docket::protect::rego::Policy;
use docket::protect::rules::{Action, Pattern, Rule};
use docket::rego::SourceFile;
use docket::sink::loki::config::LokiConfig;
use docket::sink::{elasticsearch, loki, metrics, otlp};
use prost::Message;

fn main() {
    divan::main();
}

fn samples() -> Vec<String> {
    let bytes = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/decisions-opa-1.22.2.ndjson.gz"
    ))
    .unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
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

/// What taking out what must not spread costs a decision.
fn protect(bencher: Bencher<'_, '_>, protection: &Protection) {
    let samples = samples();
    let events: Vec<Event<'_>> =
        samples.iter().map(|s| Event::parse(s.as_bytes()).unwrap()).collect();
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        events.iter().for_each(|e| _ = black_box(protection.protect(e, &mut Vec::new())));
    });
}

fn mask(text: &str) -> Protection {
    let source =
        SourceFile { name: "mask.rego".into(), text: format!("package system.log\n{text}") };
    Protection {
        policy: Some(
            Policy::new(&[source], &[], "data.system.log.mask", "data.system.log.drop").unwrap(),
        ),
        ..Protection::default()
    }
}

/// OPA's mask policy that always answers the same,
#[divan::bench]
fn protect_mask_constant(bencher: Bencher<'_, '_>) {
    protect(bencher, &mask("mask contains \"/input/password\"\nmask contains \"/input/user\""));
}

/// and one that asks for each decision.
#[divan::bench]
fn protect_mask_asked(bencher: Bencher<'_, '_>) {
    protect(
        bencher,
        &mask(
            "mask contains \"/input/password\"\nmask contains \"/input/user\" if input.input.method == \"GET\"",
        ),
    );
}

/// Pointers: one that leads somewhere, and one with wildcards that leads nowhere.
#[divan::bench]
fn protect_rules(bencher: Bencher<'_, '_>) {
    let rule = |path: &str| Rule {
        path: Pattern::parse(path).unwrap(),
        policy: None,
        action: Action::Erase,
    };
    protect(
        bencher,
        &Protection {
            rules: vec![rule("/input/user"), rule("/input/**/password")],
            ..Protection::default()
        },
    );
}

/// All detectors on decisions that hold nothing for them, as most do,
#[divan::bench]
fn protect_detectors_nothing_found(bencher: Bencher<'_, '_>) {
    protect(
        bencher,
        &Protection {
            detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
            ..Protection::default()
        },
    );
}

/// and on decisions that all hold a token and a password.
#[divan::bench]
fn protect_detectors_found(bencher: Bencher<'_, '_>) {
    let protection = Protection {
        detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
        ..Protection::default()
    };
    let planted = r#""input":{"headers":{"authorization":"Bearer 2YotnFZFEjr1zCsicMWpAA"},"password":"hunter2","note":"mail bob@example.com","#;
    let samples: Vec<String> =
        samples().iter().map(|s| s.replacen("\"input\":{", planted, 1)).collect();
    let events: Vec<Event<'_>> =
        samples.iter().filter_map(|s| Event::parse(s.as_bytes()).ok()).collect();
    assert!(events.len() * 10 > samples.len() * 8);
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        events.iter().for_each(|e| _ = black_box(protection.protect(e, &mut Vec::new())));
    });
}

/// Two values encrypted.
#[divan::bench]
fn protect_encrypt(bencher: Bencher<'_, '_>) {
    let key = Arc::new(Key::new("k", &"ab".repeat(32)).unwrap());
    let rule = |path: &str| Rule {
        path: Pattern::parse(path).unwrap(),
        policy: None,
        action: Action::Encrypt(key.clone()),
    };
    protect(
        bencher,
        &Protection {
            rules: vec![rule("/input/user"), rule("/input/method")],
            ..Protection::default()
        },
    );
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
    batch(bencher, elasticsearch::bulk);
}

#[divan::bench]
fn encode_elasticsearch_gzip(bencher: Bencher<'_, '_>) {
    batch(bencher, |records| docket::gzip::gzip(&elasticsearch::bulk(records)));
}

#[divan::bench]
fn encode_otlp_traces(bencher: Bencher<'_, '_>) {
    batch(bencher, |records| otlp::traces_request(records).encode_to_vec());
}

#[divan::bench]
fn encode_otlp_logs(bencher: Bencher<'_, '_>) {
    batch(bencher, |records| otlp::logs_request(records).encode_to_vec());
}

#[divan::bench]
fn encode_metrics(bencher: Bencher<'_, '_>) {
    batch(bencher, metrics::tally);
}
