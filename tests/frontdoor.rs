//! The first five minutes: what needs no server works without one, says what it does, and cuts nothing silently.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "frontdoor/files.rs"]
mod files;
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
fn five_decisions_take_no_time_of_their_own() {
    let place = Place::new("five");
    let file = place.path("five.ndjson");
    std::fs::write(&file, generated(5, 3).join("\n")).unwrap();
    let began = Instant::now();
    let (good, text, errors) = ran(&["demo", file.to_str().unwrap()]);
    // Under a second on a machine that has time; waiting for a group of Kafka took six.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(
        good && text.contains(&format!("5 decisions from {}\n", file.display())),
        "{text}{errors}"
    );
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
        // It may go over lines.
        let words: Vec<&str> = text.split_whitespace().chain(errors.split_whitespace()).collect();
        assert!(good && words.join(" ").contains(&told), "{args:?}: {text}{errors}");
    }
    let (_, text, _) = ran(&["spikes", twice, "--json"]);
    let finding: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((&finding["kind"], &finding["observed"]), (&"decision_id_reused".into(), &1.into()));
    assert_eq!(finding["examples"][0]["decision_id"], id);

    // The same for people, at 80 columns: nothing is cut, and no line is longer.
    let (good, text, errors) = ran(&["spikes", file]);
    assert!(good && text.lines().all(|line| line.chars().count() <= 80), "{text}{errors}");
    // Those of one cause are one row, of the first.
    for finding in &findings {
        let cause = &finding["causes"][0]["value"];
        let mut same = findings.iter().filter(|other| other["causes"][0]["value"] == *cause);
        let shown = same.any(|f| text.contains(f["examples"][0]["trace_id"].as_str().unwrap()));
        assert!(shown, "{cause}: {text}");
    }

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
    let again = ["capacity", file, "--out", &out, "--format", "json"];
    let (good, text, errors) = ran(&again);
    assert!(!good && text.is_empty() && errors.contains("--force overwrites it"), "{errors}");
    let (good, text, errors) = ran(&[&again[..], &["--force"]].concat());
    assert!(
        good && text.trim_end().ends_with("review.json") && !text.contains("html"),
        "{text}{errors}"
    );
}

/// Takes what a machine takes that others use, too.
#[test]
fn the_demo_takes_little_more_than_its_time() {
    let began = Instant::now();
    let (good, text, errors) = ran(&["demo", "--for", "1s"]);
    assert!(good && text.contains("what the spike detector says"), "{text}{errors}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    for line in text.lines().filter(|line| !line.contains("http://")) {
        let sentence = line.starts_with("  revision shift") || line.starts_with("  denial spike");
        assert!(sentence || line.chars().count() <= 80, "{line}");
    }
    assert!(!text.contains('\u{1b}'), "piped text has no colours: {text}");
}

/// A pipeline file that can't be: its Kafka has a port that none is.
fn impossible(place: &Place) -> String {
    let path = place.path("bad.yaml");
    let text = "name: opa\nkafka: {brokers: 'k:99999'}\nsources: [{topic: t}]\nsinks:\n  out: {type: file, path: ''}\n";
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_program_that_asks_for_json_gets_json_of_an_error_too() {
    let place = Place::new("errors");
    let file = impossible(&place);
    for args in [
        &["doctor", &file, "--json"][..],
        &["verify", &file, "--json"],
        &["tail", &file, "--json"],
        &["rejects", &file, "--json"],
        &["spikes", &file, "--json"],
        &["top", &file, "--json", "--once"],
        &["redrive", &file, "--json"],
        &["why", "x", &file, "--json"],
        &["protect", &file, "none.ndjson", "--json"],
    ] {
        let (good, text, errors) = ran(args);
        let said: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"));
        assert!(!good && said["error"].as_str().unwrap().contains("99999"), "{args:?}: {text}");
        let lines: Vec<_> = said["problems"].as_array().unwrap().iter().collect();
        assert_eq!((lines.len(), &lines[0]["line"], &lines[1]["line"]), (2, &2.into(), &5.into()));
        assert!(errors.contains("bad.yaml:2:18: port 99999"), "people read it, too: {errors}");
    }
    // What says so itself says it once.
    let (good, text, _) = ran(&["check", &file, "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(!good && said["valid"] == false && said.get("error").is_none(), "{text}");
    let (good, text, _) = ran(&["top", "--url", "127.0.0.1:1", "--once", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(!good && said["error"].as_str().unwrap().starts_with("http://127.0.0.1:1"), "{text}");
}

#[test]
fn a_full_disk_is_told_and_a_reader_that_goes_is_no_error() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = "examples/why/decisions.ndjson";
    for args in [
        &["check", "pipelines/opa.yaml"][..],
        &["check", "pipelines/opa.yaml", "--json"],
        &["--help"],
        &["tail", "--help"],
        &["completions", "bash"],
        &["generate", "--count", "3"],
        &["why", "438ee5cd", "--from", file],
    ] {
        let out = docket().args(args).stdout(full()).output().unwrap();
        let errors = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{errors}");
        assert!(errors.starts_with("standard output can't be written: "), "{errors}");
        assert!(errors.lines().count() == 1, "{errors}");
    }
    let place = Place::new("head");
    let file = place.path("many.ndjson");
    std::fs::write(&file, generated(50, 3).join("\n")).unwrap();
    let mut child = docket().arg("demo").arg(&file).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_no_decision_log_is_told() {
    let place = Place::new("wrong-file");
    let file = place.path("table.csv");
    std::fs::write(&file, "a,b\n1,2\n").unwrap();
    let (good, text, errors) = ran(&["demo", file.to_str().unwrap()]);
    assert!(!good && errors.contains("no decision was found"), "{text}{errors}");
    let (good, text, errors) = ran(&["demo", "pipelines/opa.yaml"]);
    assert!(
        !good && errors.contains("is a pipeline file, not a file of decisions"),
        "{text}{errors}"
    );
}

#[test]
fn init_takes_the_address_that_the_shipped_files_read() {
    let out = docket()
        .args(["init", "-", "--loki", "localhost:3100"])
        .env("KAFKA_BOOTSTRAP", "kafka:19092")
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("brokers: \"kafka:19092\""), "{text}");
    assert!(text.contains("url: \"http://localhost:3100\""), "{text}");
}

#[test]
fn init_without_a_terminal_says_how_flags_do_it() {
    let place = Place::new("init");
    let file = place.path("my.yaml");
    let file = file.to_str().unwrap();
    let out = docket().args(["init", file]).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{errors}");
    let example = format!("docket init {file} --source opa-decisions --loki ");
    assert!(errors.contains(&example), "{errors}");
    let (good, _, errors) = ran(&["init", file, "--loki", "none", "--metrics"]);
    assert!(!good && errors.contains("leave the option out"), "{errors}");
    assert!(!std::path::Path::new(file).exists());
}

#[test]
fn what_is_asked_for_wrongly_is_told_with_what_there_is() {
    let place = Place::new("meant");
    let file = place.path("decisions.ndjson");
    std::fs::write(&file, generated(3, 9).join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let written = |name: &str, text: &str| {
        let path = place.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let spaced = &written("my file.ndjson", "{}");
    let empty = &written("empty.ndjson", " \n");
    let broken = &written("broken.ndjson", "{\"decision_id\":");
    let sinks = "sinks: {out: {type: file, path: '-'}}\n";
    let bare = format!("name: b\nkafka: {{brokers: k}}\nsources: [{{topic: t}}]\n{sinks}");
    let bare = &written("bare.yaml", &bare);
    let head = "name: b\nkafka: {brokers: k}\nsources: [{topic: t}]\n";
    let nowhere = &written("nowhere.yaml", head);
    let below = &written("below.yaml", &format!("{head}spikes: {{floor: 0}}\n"));
    let cut =
        &written("cut.ndjson", "{\"path\":\"a\",\"result\":1}\n{\"decision_id\":\"cut-1\",\n");
    let open = &written("open.yaml", &format!("{head}{sinks}door: {{listen: \"0.0.0.0:8443\"}}\n"));
    let zipped = place.path("my.yaml.gz");
    std::fs::write(&zipped, docket::gzip::gzip(head.as_bytes())).unwrap();
    let zipped = &zipped.display().to_string();
    let zstd = place.path("wide.ndjson");
    std::fs::write(&zstd, b"\x28\xb5\x2f\xfd....").unwrap();
    let zstd = &zstd.display().to_string();
    let told = |args: &[&str]| {
        let out = docket().args(args).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    for (args, code, words) in [
        (&["backfill", "pipelines/opa.yaml"][..], 2, "with --sink: loki, metrics, "),
        (&["check", file], 2, "docket protect my.yaml "),
        (&["protect", spaced], 2, "docket protect my.yaml '"),
        (&["protect", "pipelines/opa.yaml", empty], 1, "no decision was found: it is empty"),
        (&["protect", bare, file], 1, "`protect: {}` in it is one"),
        (&["why", "438ee5c", "--from", file], 1, "is enough from 8 characters on"),
        (
            &["why", "x", "--from", broken],
            1,
            "1 that can't be read (docket demo shows why): not_json",
        ),
        (&["check", open], 0, "whoever reaches 0.0.0.0:8443 can upload decisions: see door.tokens"),
        (&["check", zipped], 2, "is a pipeline file in gzip, which is read as plain text only"),
        (&["tail", zipped], 2, "is a pipeline file in gzip, which is read as plain text only"),
        (
            &["demo", zstd],
            1,
            "wide.ndjson: it is zstd; docket reads text in UTF-8, and gzip:\n  zstd -dc ",
        ),
        (&["init", "-", "--metrics", "--door", "8443"], 2, "--door: \"8443\" can't be used here"),
        (&["init", "-", "--metrics", "--source", "a b"], 2, "--source: "),
        (
            &["init", "-", "--loki", "nonsense"],
            2,
            "'nonsense' for '--loki <URL>': that is no URL; write it like http://localhost:3100",
        ),
        (&["init", "-", "--otlp", "a/b"], 2, "write it like http://localhost:4317"),
        (&["init", "-", "--elasticsearch", "ftp://h"], 2, "like http://localhost:9200"),
        (&["check", nowhere], 0, "nowhere.yaml: it has no sinks: "),
        (&["check", below], 1, "\"0\" is out of range: at least 1\n"),
        (&["run", file], 2, "holds decisions, and is no pipeline file"),
        (&["why", "cut-1", "--from", cut], 1, "shows why): not_json"),
        (&["protect", file], 2, "a pipeline file says what is removed"),
        (&["tail", file], 2, "holds decisions, and is no pipeline file"),
        (&["verify", file], 2, "holds decisions, and is no pipeline file"),
        (&["why", "ID"], 2, "docket why ID --from decisions.ndjson"),
        (&["demo", "--rate", "0"], 2, "a number above 0"),
        (&["demo", "--for", "-1s"], 2, "--for -1s: it can't be negative"),
        (&["demo", "examples"], 2, "examples/*.ndjson"),
        (&["generate", "pipelines/opa.yaml"], 2, "docket generate --to pipelines/opa.yaml"),
        (&["spikes", file, "--since", "1w"], 2, "ms, s, m, h or d"),
    ] {
        let (was, errors) = told(args);
        assert!(was == Some(code) && errors.contains(words), "{args:?}: {was:?} {errors}");
    }
}

#[test]
fn a_pipeline_file_on_standard_input_is_checked() {
    let written = docket().args(["init", "-", "--metrics"]).output().unwrap().stdout;
    let checked = |text: &[u8]| {
        let mut child = docket()
            .args(["check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text).unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.code(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
    };
    assert_eq!(checked(&written), (Some(0), "-: valid, it has no tests\n".into()));
    let (code, told) = checked(b"name: x\n");
    assert!(code == Some(1) && told.contains("-:1:1: "), "{told}");
}

#[test]
fn no_more_decisions_are_generated_than_were_asked_for() {
    let mut generator = docket::generate::Generator::new(docket::generate::Mix::default());
    let upload = generator.upload(0, 3);
    let upload = docket::decision::formats::gunzip(&upload, 1 << 20).unwrap();
    let decisions: Vec<serde_json::Value> = serde_json::from_slice(&upload.0).unwrap();
    assert_eq!(decisions.len(), 3);
}

#[test]
fn a_pipe_is_read_once_and_what_is_printed_over_several_lines_stays_whole() {
    let place = Place::new("pipe");
    let file = place.path("many.ndjson");
    let decisions = generated(2000, 5);
    std::fs::write(&file, decisions.join("\n")).unwrap();
    let pretty: Vec<String> = decisions
        .iter()
        .map(|one| {
            let one: serde_json::Value = serde_json::from_str(one).unwrap();
            serde_json::to_string_pretty(&one).unwrap()
        })
        .collect();
    let printed = place.path("pretty.json");
    std::fs::write(&printed, pretty.join("\n")).unwrap();
    for (from, file) in
        [("<(cat \"$1\")", &file), ("<(gzip -c \"$1\")", &file), ("\"$1\"", &printed)]
    {
        let command = format!("exec \"$0\" demo {from}");
        let mut bash = std::process::Command::new("bash");
        let out =
            bash.args(["-c", &command, env!("CARGO_BIN_EXE_docket")]).arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("2000 decisions from"), "{from}: {text}");
    }
}

#[test]
fn who_set_no_address_is_told_which_variable_has_it_and_who_says_more() {
    let place = Place::new("default-address");
    let file = place.path("my own.yaml");
    let text = "name: d\nkafka: {brokers: '${env:NOBODY_SET_THIS:-127.0.0.1:1}'}\nsources: [{topic: t}]\nsinks: {out: {type: file, path: '-'}}\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    for args in [&["tail", file][..], &["setup", file], &["why", "some-decision", file]] {
        let (good, text, errors) = ran(args);
        assert!(!good && errors.contains("NOBODY_SET_THIS is not set"), "{args:?}: {text}{errors}");
        assert!(errors.contains(&format!("`docket doctor '{file}'` says more")), "{errors}");
    }
}

#[test]
fn a_file_on_standard_input_is_read_without_a_hyphen() {
    let place = Place::new("given");
    let file = place.path("some.ndjson");
    std::fs::write(&file, generated(7, 3).join("\n")).unwrap();
    let given = std::fs::File::open(&file).unwrap();
    let out = docket().args(["demo", "--for", "20s"]).stdin(given).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && text.contains("7 decisions from"), "{text}");
}

#[test]
fn a_test_case_that_fails_says_where_it_stands_and_what_differs() {
    let place = Place::new("failing-case");
    let file = place.path("a.yaml");
    let text = "name: a
kafka: {brokers: 'k:9092'}
sources: [{topic: t}]
sinks: {out: {type: file, path: '-'}}
tests:
  - name: fine
    record: {decision_id: d, path: a/b, result: true, timestamp: '2026-11-24T12:48:50Z'}
    expect: {verdict: allow}
  - name: wrong
    record: {decision_id: d, path: a/b, result: true, timestamp: '2026-11-24T12:48:50Z'}
    expect: {verdict: deny, policy: a/b}
";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let (good, _, errors) = ran(&["check", file]);
    let told = format!(
        "{file}:9: test \"wrong\" failed\n  (- expected, + actual)\n  - verdict: \"deny\"\n  + verdict: \"allow\"\n"
    );
    assert!(!good && errors.starts_with(&told), "{errors}");
}
