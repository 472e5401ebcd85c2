//! What the join costs: `cargo bench -p docket-core --bench correlate`. Items per second of one core are decisions and
//! facts together. Before the benches it says how many bytes a fact and an open entry take. With `DOCKET_WINDOW=10000000`
//! it measures a stream through a window of so many facts instead, which takes minutes and 10 GB.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use docket_core::correlate::{Asked, Join, Out, Place, Position, Settings, Side, Watch};
use docket_core::decision::ids::{SpanId, TraceId};
use docket_core::decision::verdict::Verdict;
use docket_core::facts::{Fact, Kind, Marks, Packed, Status, read};

const AT: i64 = 1_795_524_530_000_000_000;
const SECOND: i64 = 1_000_000_000;
const EACH: u64 = 100_000;

fn main() {
    if let Some(facts) = std::env::var("DOCKET_WINDOW").ok().and_then(|facts| facts.parse().ok()) {
        return window(facts);
    }
    let mut bytes = Vec::new();
    access(7, true).pack(&mut bytes);
    println!("a fact of an access log line with all ids: {} bytes packed", bytes.len());
    let (join, _) = filled(EACH, true);
    let (bytes, entries) = join.size();
    println!("{entries} open entries, half of them decisions: {} bytes each", bytes / entries);
    let join = facts_only(EACH);
    let (bytes, entries) = join.size();
    println!("{entries} open facts: {} bytes each", bytes / entries);
    divan::main();
}

/// A stream whose window holds so many facts, and as many decisions: how fast it is while that fills, and when it is full.
fn window(facts: u64) {
    const CHUNK: u64 = 100_000;
    let settings = Settings { bytes: usize::MAX, ..Settings::default() };
    // What is judged is kept for two windows more.
    let kept = (3 * settings.window + 2 * settings.skew) as u64;
    let step = (kept / facts) as i64;
    let mut join = join();
    let (mut spent, mut longest, mut done) = (Duration::ZERO, Duration::ZERO, 0);
    let (mut matched, mut slowest) = (0u64, f64::MAX);
    for chunk in 0..(facts + facts / 2).div_ceil(CHUNK) {
        let each = (chunk * CHUNK..(chunk + 1) * CHUNK).map(|n| {
            let at = AT + n as i64 * step;
            let mut bytes = Vec::new();
            let fact = access(n, true);
            Fact { start: at, end: at + 20_000_000, ..fact }.pack(&mut bytes);
            (n, at, Asked { time: at + 5_000_000, ..asked(n) }, bytes)
        });
        let each: Vec<_> = each.collect();
        let began = Instant::now();
        for (n, at, asked, bytes) in each {
            let (place, now) = (Place { partition: 0, offset: n as i64 }, at + 20_000_000);
            let mut out = |out: Out<'_, ()>| {
                let met = matches!(black_box(out), Out::Decision { matched: Some(_), .. });
                matched += u64::from(met);
            };
            join.decision(place, asked, (), now, &mut out);
            join.fact(place, &bytes, now, &mut out);
            if n % 1000 == 0 {
                let began = Instant::now();
                join.tick(now, &mut out);
                longest = longest.max(began.elapsed());
            }
        }
        let took = began.elapsed();
        spent += took;
        done += 2 * CHUNK;
        slowest = slowest.min(2.0 * CHUNK as f64 / took.as_secs_f64());
        let (bytes, entries) = join.size();
        if (chunk + 1) % (facts / CHUNK / 4).max(1) == 0 {
            println!(
                "{entries} entries, half of them facts: {} bytes each as counted, {} as the process has them; {:.0} items a second since the last line, {slowest:.0} in the slowest {}, the longest tick {longest:?}",
                bytes / entries,
                resident() / entries,
                f64::from(done as u32) / spent.as_secs_f64(),
                2 * CHUNK
            );
            (spent, longest, done, slowest) = (Duration::ZERO, Duration::ZERO, 0, f64::MAX);
        }
    }
    println!("{matched} decisions met their request");
}

/// Bytes that the process has in memory, as Linux says.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}

/// Ids as they are in life: without any order.
fn mixed(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d
}

fn trace(n: u64) -> TraceId {
    TraceId::from_bytes((u128::from(mixed(n)) << 64 | u128::from(n)).to_be_bytes())
}

fn id(n: u64) -> String {
    let m = mixed(n);
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{n:012x}",
        m >> 32,
        m >> 16 & 0xffff,
        m >> 4 & 0xfff,
        m & 0xfff
    )
}

fn access(n: u64, with_decision: bool) -> Fact<'static> {
    let start = AT + n as i64 * 10_000;
    Fact {
        trace: Some(trace(n)),
        status: Status { http: Some(200), grpc: None },
        request_id: id(n + (1 << 40)).into(),
        decision_id: if with_decision { id(n).into() } else { "".into() },
        service: "orders".into(),
        path: "/api/v1/items".into(),
        method: "GET".into(),
        details: "via_upstream".into(),
        ..Fact::new(Kind::Access, start, start + 20_000_000)
    }
}

fn span(n: u64) -> Fact<'static> {
    Fact {
        kind: Kind::Span,
        marks: Marks::default().with(Marks::SERVER),
        span: Some(SpanId::from_bytes(mixed(n).to_be_bytes())),
        request_id: "".into(),
        details: "".into(),
        ..access(n, false)
    }
}

fn asked(n: u64) -> Asked {
    Asked {
        id: id(n).into(),
        time: AT + n as i64 * 10_000 + 5_000_000,
        verdict: Verdict::Allow,
        trace: Some(trace(n)),
        parent: Some(SpanId::from_bytes(mixed(n).to_be_bytes())),
        engines_own: false,
        request_id: id(n + (1 << 40)).into(),
        object: "".into(),
        service: "orders".into(),
        policy: "envoy/authz/allow".into(),
        dry_run: false,
        contents: Box::default(),
    }
}

fn join() -> Join<()> {
    let settings = Settings { bytes: usize::MAX, ..Settings::default() };
    let mut join = Join::new(settings, Watch::default());
    join.assign(Side::Decisions, 0, Position::default(), AT);
    join.assign(Side::Facts, 0, Position::default(), AT);
    join
}

fn filled(each: u64, matched: bool) -> (Join<()>, u64) {
    let mut join = join();
    let mut bytes = Vec::new();
    let mut told = 0;
    for n in 0..each {
        let place = Place { partition: 0, offset: n as i64 };
        join.decision(place, asked(n), (), AT, &mut |_| told += 1);
        bytes.clear();
        access(n + if matched { 0 } else { each }, true).pack(&mut bytes);
        join.fact(place, &bytes, AT, &mut |_| told += 1);
    }
    (join, told)
}

fn facts_only(each: u64) -> Join<()> {
    let mut join = join();
    let mut bytes = Vec::new();
    for n in 0..each {
        bytes.clear();
        access(n, true).pack(&mut bytes);
        join.fact(Place { partition: 0, offset: n as i64 }, &bytes, AT, &mut |_| {});
    }
    join
}

/// A stream: facts half a second behind the decisions, a tick for each thousand, windows that open and close.
fn stream(bencher: Bencher<'_, '_>, fact: fn(u64) -> Fact<'static>) {
    const BEHIND: u64 = 50_000;
    let facts: Vec<Vec<u8>> = (0..EACH)
        .map(|n| {
            let mut bytes = Vec::new();
            fact(n).pack(&mut bytes);
            bytes
        })
        .collect();
    let make = || (join(), (0..EACH).map(asked).collect::<Vec<_>>());
    let counter = ItemsCount::new(2 * EACH);
    bencher.counter(counter).with_inputs(make).bench_local_values(|(mut join, decisions)| {
        let mut told = 0u64;
        let mut take = |n: u64, join: &mut Join<()>| {
            let now = AT + n as i64 * 10_000;
            let place = Place { partition: 0, offset: n as i64 };
            join.fact(place, &facts[n as usize], now, &mut |_| told += 1);
        };
        for (n, asked) in (0..).zip(decisions) {
            let now = AT + n as i64 * 10_000;
            let place = Place { partition: 0, offset: n as i64 };
            join.decision(place, asked, (), now, &mut |out| _ = black_box(out));
            if n >= BEHIND {
                take(n - BEHIND, &mut join);
            }
            if n % 1000 == 0 {
                join.tick(now, &mut |out| _ = black_box(out));
            }
        }
        for n in EACH - BEHIND..EACH {
            take(n, &mut join);
        }
        // All windows close.
        join.tick(AT + 3600 * SECOND, &mut |out| _ = black_box(out));
        (join, told)
    });
}

/// By decision id: an access log with every id,
#[divan::bench(sample_count = 10)]
fn join_by_decision_id(bencher: Bencher<'_, '_>) {
    stream(bencher, |n| access(n, true));
}

/// by request id,
#[divan::bench(sample_count = 10)]
fn join_by_request_id(bencher: Bencher<'_, '_>) {
    stream(bencher, |n| access(n, false));
}

/// and by trace and span.
#[divan::bench(sample_count = 10)]
fn join_by_span(bencher: Bencher<'_, '_>) {
    stream(bencher, span);
}

/// A line of an access log as a fact, packed.
#[divan::bench]
fn read_access_log(bencher: Bencher<'_, '_>) {
    let line = br#"{"start_time":"2026-11-24T12:48:50.250Z","duration":12,"service":"orders","method":"GET","path":"/api/v1/items?token=x","response_code":403,"response_code_details":"ext_authz_denied","response_flags":"UAEX","grpc_status":null,"request_id":"0b8a5a3a-4a4c-9a5e-8f0d-1f0c6a1f6a11","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":null,"decision_id":"35d70696-0122-435d-8e2e-4046910e1c1b"}"#;
    let mut bytes = Vec::new();
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| {
        read(black_box(line), &Default::default(), &mut |piece| {
            if let docket_core::facts::Piece::Fact(fact) = piece {
                bytes.clear();
                fact.pack(&mut bytes);
            }
        });
    });
}

#[divan::bench]
fn unpack_fact(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    access(7, true).pack(&mut bytes);
    bencher
        .counter(ItemsCount::new(1u32))
        .bench_local(|| _ = black_box(Packed::of(black_box(&bytes)).fact()));
}
