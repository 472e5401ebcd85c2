//! How well detectors detect: recall on made-up secrets of all kinds, precision beside look-alikes.
//! `cargo test -p docket-core --test detection -- --nocapture` prints the table of docs/protect.md.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic)]

mod corpus;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use corpus::field::{documents, says};
use corpus::{Case, look_alikes, secrets};
use docket_core::decision::event::Event;
use docket_core::protect::detect::{Act, Detect};
use docket_core::protect::{Protected, Protection, detector};
use serde_json::{Value, json};

/// What is left of an input, as it is written and as what it says; nothing if it was left alone.
fn left(protection: &Protection, input: &Value) -> Option<String> {
    let decision = json!({
        "decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1",
        "path": "app/allow",
        "input": input,
        "result": true,
        "timestamp": "2026-11-24T12:48:50Z",
    });
    let text = decision.to_string();
    let event = Event::parse(text.as_bytes()).unwrap();
    match protection.protect(&event, &mut Vec::new()).unwrap() {
        Protected::AsItWas => None,
        Protected::Changed(text) => {
            let record: Value = serde_json::from_str(&text).unwrap();
            Some(record["input"].to_string())
        }
        Protected::Dropped => panic!("nothing is dropped"),
    }
}

/// Whether a find is right: what was found is gone, as it stood in the input.
fn is_gone(case: &Case, left: Option<&String>) -> bool {
    let Some(left) = left else { return false };
    let mut all = left.clone();
    for part in left.split(|c: char| !c.is_ascii_alphanumeric() && !"+/-_".contains(c)) {
        let bytes = STANDARD_NO_PAD.decode(part.replace('-', "+").replace('_', "/"));
        all += &bytes.ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    }
    let left = all;
    let secret = case.secret.as_ref().unwrap();
    let escaped = json!(secret).to_string();
    let twice = json!(escaped.trim_matches('"')).to_string();
    !(left.contains(secret)
        || left.contains(escaped.trim_matches('"'))
        || left.contains(twice.trim_matches('"'))
        || left.contains(&corpus::percent(secret)))
}

#[test]
fn detectors_find_secrets_and_leave_look_alikes() {
    let protection = Protection {
        detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
        ..Protection::default()
    };
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (mut missed, mut wrong) = (Vec::new(), Vec::new());
    let secrets: Vec<Case> = (1..=3).flat_map(secrets).collect();
    for case in &secrets {
        let found = is_gone(case, left(&protection, &case.input).as_ref());
        let count = kinds.entry(case.kind).or_default();
        count.0 += 1;
        count.1 += usize::from(found);
        if !found {
            missed.push(format!("{}: {}", case.kind, case.input));
        }
    }
    let harmless: Vec<Case> = (4..=6).flat_map(look_alikes).collect();
    for case in &harmless {
        if let Some(left) = left(&protection, &case.input) {
            wrong.push(format!("{}: {} -> {left}", case.kind, case.input));
        }
    }
    println!("| kind | secrets | found |\n|---|---|---|");
    for (kind, (all, found)) in &kinds {
        println!("| {kind} | {all} | {found} |");
    }
    let found = secrets.len() - missed.len();
    let recall = found as f64 / secrets.len() as f64;
    let precision = found as f64 / (found + wrong.len()) as f64;
    println!(
        "recall {recall:.4} of {}, precision {precision:.4} beside {}",
        secrets.len(),
        harmless.len()
    );
    println!("missed:\n{}\nwrong:\n{}", missed.join("\n"), wrong.join("\n"));
    assert!(secrets.len() >= 300 && harmless.len() >= 300);
    assert!(recall >= 0.97, "{recall}");
    assert!(precision >= 0.98, "{precision}");
}

#[test]
fn documents_from_the_field_lose_their_secrets_and_keep_the_rest() {
    let protection = Protection {
        detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
        ..Protection::default()
    };
    let mut kinds: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let (mut missed, mut wrong) = (Vec::new(), Vec::new());
    for document in (1..=2).flat_map(documents) {
        let input = &document.input;
        let left = left(&protection, input)
            .map_or_else(|| input.clone(), |left| serde_json::from_str(&left).unwrap());
        let counts = kinds.entry(document.kind).or_default();
        for secret in &document.secrets {
            assert!(says(input, secret), "{secret}: {input}");
            let found = !says(&left, secret);
            counts[0] += 1;
            counts[1] += usize::from(found);
            if !found {
                missed.push(format!("{}: {secret} in {left}", document.kind));
            }
        }
        for harmless in &document.harmless {
            assert!(says(input, harmless), "{harmless}: {input}");
            let kept = says(&left, harmless);
            counts[2] += 1;
            counts[3] += usize::from(kept);
            if !kept {
                wrong.push(format!("{}: {harmless}: {input} -> {left}", document.kind));
            }
        }
        if document.secrets.is_empty() && left != *input {
            wrong.push(format!("{}: changed: {input} -> {left}", document.kind));
        }
    }
    println!("| kind | secrets | found | look-alikes | kept |\n|---|---|---|---|---|");
    let mut all = [0; 4];
    for (kind, counts) in &kinds {
        let [secrets, found, harmless, kept] = counts;
        println!("| {kind} | {secrets} | {found} | {harmless} | {kept} |");
        all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
    }
    let recall = all[1] as f64 / all[0] as f64;
    let precision = all[1] as f64 / (all[1] + wrong.len()) as f64;
    println!("{all:?}: recall {recall:.4}, precision {precision:.4}");
    println!("missed:\n{}\nwrong:\n{}", missed.join("\n"), wrong.join("\n"));
    assert!(all[0] >= 100 && all[2] >= 100);
    assert!(recall >= 0.97, "{recall}");
    assert!(precision >= 0.98, "{precision}");
}
