//! The first five minutes: what needs no server works without one, says what it does, and cuts nothing silently.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{Place, docket, generated};

fn ran(args: &[&str]) -> (bool, String, String) {
    let out = docket().args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

#[test]
fn five_decisions_take_under_a_second() {
    let place = Place::new("five");
    let file = place.path("five.ndjson");
    std::fs::write(&file, generated(5, 3).join("\n")).unwrap();
    let began = Instant::now();
    let (good, text, errors) = ran(&["demo", file.to_str().unwrap()]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(good && text.contains("5 decisions from 1 Kafka record\n"), "{text}{errors}");
    assert!(text.contains("└─ policy.decision"), "{text}");
    assert!(!text.contains("not"), "nothing is said of a cut: {text}");
}

#[test]
fn what_is_cut_by_time_is_told() {
    let place = Place::new("cut");
    let file = place.path("many.ndjson");
    let some = generated(2000, 4).join("\n");
    std::fs::write(&file, vec![some; 60].join("\n")).unwrap();
    let (good, text, errors) = ran(&["demo", file.to_str().unwrap(), "--for", "200ms"]);
    assert!(good, "{text}{errors}");
    let said =
        errors.lines().find(|line| line.contains("--for")).unwrap_or_else(|| panic!("{errors}"));
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() >= 2 && numbers[0] < numbers[1], "so many of so many: {said}");
}

#[test]
fn what_comes_on_standard_input_is_printed_as_it_comes() {
    let lines = generated(3, 5);
    let mut child =
        docket().args(["demo", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for line in &lines {
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
        let id: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = id["decision_id"].as_str().unwrap();
        // The input is still open: only what is printed at once comes here.
        let mut printed = String::new();
        output.read_line(&mut printed).unwrap();
        assert!(
            printed.contains(&id[..8]) && printed.trim_end().chars().count() <= 80,
            "{printed}"
        );
    }
    drop(input);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
    assert!(child.wait().unwrap().success() && rest.contains("3 decisions"), "{rest}");
}

#[test]
fn each_kind_of_reject_is_shown_with_what_to_do() {
    let place = Place::new("rejects");
    let file = place.path("bad.ndjson");
    let good = generated(1, 6).remove(0);
    let no_id = r#"{"path":"a/b","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
    let no_time = r#"{"decision_id":"x","path":"a/b","result":true}"#;
    std::fs::write(&file, [&good, no_id, no_id, no_time].join("\n")).unwrap();
    let (good, text, errors) = ran(&["demo", file.to_str().unwrap()]);
    assert!(good, "{text}{errors}");
    for wanted in [
        "rejected         2  missing_decision_id",
        "rejected         1  missing_timestamp",
        "it begins with {\"path\":\"a/b\"",
        "-> it has no decision_id: is it a decision log of OPA?",
        "-> it has no timestamp",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
}

/// A quarter of an hour of decisions, with a spike near the end.
fn quarter(place: &Place) -> std::path::PathBuf {
    let file = place.path("quarter.ndjson");
    let mut generator = docket::generate::Generator::new(docket::generate::Mix::default());
    let mut text = Vec::new();
    let began = 1_795_524_530_000_000_000_i64;
    for i in 0..18_000_i64 {
        generator.spike = i > 16_800;
        text.extend(generator.record(docket::generate::Shape::Json, began + i * 50_000_000).0);
        text.push(b'\n');
    }
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_spike_that_is_shown_is_the_detectors_and_needs_no_kafka() {
    let place = Place::new("spike");
    let file = quarter(&place);
    let file = file.to_str().unwrap();
    let (good, text, errors) = ran(&["demo", file]);
    let sentence = "denial spike on http/authz/decision of ledger: ";
    assert!(
        good && text.contains(sentence) && text.contains(" by revision bad4"),
        "{text}{errors}"
    );

    let (good, text, errors) = ran(&["spikes", file, "--json"]);
    let findings: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(good && errors.contains(" in 18000 decisions"), "{errors}");
    assert!(
        findings.iter().any(|f| f["kind"] == "denial_spike" && f["service"] == "ledger"),
        "{text}"
    );
    assert!(findings.iter().all(|f| f["kind"] != "decision_id_reused"), "{text}");

    // Another decision under an ID is told of wherever files are read, with how many and one of them.
    let first = std::fs::read_to_string(file).unwrap();
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let mut other = first.clone();
    other["path"] = "made/up".into();
    let twice = place.path("twice.ndjson");
    std::fs::write(&twice, format!("{first}\n{first}\n{other}\n{other}\n")).unwrap();
    let twice = twice.to_str().unwrap();
    let id = first["decision_id"].as_str().unwrap();
    let told =
        format!("1 decision under an ID that was used before, for another one; the first is {id}");
    let out = place.path("twice").display().to_string();
    for args in [vec!["spikes", twice], vec!["demo", twice], vec!["capacity", twice, "--out", &out]]
    {
        let (good, text, errors) = ran(&args);
        assert!(good && format!("{text}{errors}").contains(&told), "{args:?}: {text}{errors}");
    }
    let (_, text, _) = ran(&["spikes", twice, "--json"]);
    let finding: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((&finding["kind"], &finding["observed"]), (&"decision_id_reused".into(), &1.into()));
    assert_eq!(finding["examples"][0]["decision_id"], id);

    let out = place.path("review").display().to_string();
    let (good, text, errors) = ran(&["capacity", file, "--out", &out]);
    assert!(good && text.contains("review.html"), "{text}{errors}");
    let review = std::fs::read_to_string(place.path("review.json")).unwrap();
    let review: serde_json::Value = serde_json::from_str(&review).unwrap();
    assert_eq!(review["total"]["decisions"], 18_000);

    // Standard output has one format, and no file is called `-`.
    for (more, begins) in [
        (&[][..], "{"),
        (&["--format", "csv"], "hour,"),
        (&["--format", "html"], "<!DOCTYPE html>"),
    ] {
        let args = [&["capacity", file, "--out", "-"], more].concat();
        let out = docket().args(args).current_dir(place.dir.path()).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && text.starts_with(begins), "{more:?}: {text}");
        let here = std::fs::read_dir(place.dir.path()).unwrap();
        let dashes =
            here.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with('-'));
        assert_eq!(dashes.count(), 0);
    }
    let (good, text, errors) = ran(&["capacity", file, "--out", &out, "--format", "json"]);
    assert!(
        good && text.trim_end().ends_with("review.json") && !text.contains("html"),
        "{text}{errors}"
    );
}
