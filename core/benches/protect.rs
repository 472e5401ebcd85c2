//! What taking out what must not spread costs a decision: `cargo bench -p docket-core`.
//! Items per second of one core; the inputs are the decisions that a real OPA wrote.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use docket_core::decision::event::Event;
use docket_core::protect::Protection;
use docket_core::protect::detect::{Act, Detect};
use docket_core::protect::detector;
use docket_core::protect::keys::Key;
use docket_core::protect::rego::Policy;
use docket_core::protect::rules::{Action, Pattern, Rule};
use docket_core::rego::SourceFile;

#[path = "../../tests/support/samples.rs"]
mod samples;
use samples::samples;

fn main() {
    divan::main();
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
