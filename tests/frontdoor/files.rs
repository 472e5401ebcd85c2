//! Files that stand in another's place, hold findings, or are called by a name that nothing has.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use super::ran;
use super::support::{Place, docket, generated};

#[test]
fn what_docket_found_is_left_out_wherever_files_are_read() {
    let place = Place::new("found");
    let finding = |n: u32| {
        format!(
            r#"{{"decision_id":"finding-5a76131eb4faa5{n:02}-begins","finding":{{"kind":"denial_spike"}},"timestamp":"2026-11-24T12:48:50Z","type":"docket.finding","@timestamp":"2026-11-24T12:48:50Z","docket":{{"v":1,"verdict":"finding","verdict_from":"spikes","reasons":["denial spike on x of orders"],"engine":"docket","policy":"x","trace_id":"1f3b88283ebbd6aba56b22599cfddbff","span_id":"45100358acc6d8f2","trace_from":"none","service":{{"name":"orders"}}}}}}"#
        )
    };
    let file = place.path("all.ndjson");
    let mut lines = generated(40, 3);
    let (_, before, _) = {
        std::fs::write(&file, lines.join("\n")).unwrap();
        ran(&["demo", file.to_str().unwrap()])
    };
    (0..5).for_each(|n| lines.insert(7 * n as usize, finding(n)));
    std::fs::write(&file, lines.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let (good, text, errors) = ran(&["demo", file]);
    assert!(good && text.contains("40 decisions from "), "{text}{errors}");
    assert!(text.contains("  findings         5  left out: "), "{text}");
    let verdicts = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| {
            ["allow", "deny", "undefined", "error"].iter().any(|v| line.trim().starts_with(v))
        });
        rows.map(str::to_owned).take(4).collect()
    };
    assert_eq!(verdicts(&text), verdicts(&before));
    let (_, _, errors) = ran(&["spikes", file]);
    assert!(errors.contains("in 40 decisions; 5 findings that docket wrote there"), "{errors}");
    let (good, text, errors) = ran(&["capacity", file, "--out", "-"]);
    let review: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(good && review["read"]["findings"] == 5, "{text}{errors}");
    assert_eq!(review["total"]["decisions"], 40, "{text}");
    let bare = place.path("protects.yaml");
    let pipeline = "name: p\nkafka: {brokers: k}\nsources: [{topic: t}]\nprotect: {}\n";
    std::fs::write(&bare, pipeline).unwrap();
    let (good, _, errors) = ran(&["protect", bare.to_str().unwrap(), file, "--count"]);
    assert!(good && errors.contains("40 decisions, "), "{errors}");
    assert!(errors.contains(", 5 findings that docket wrote there left out"), "{errors}");
    for id in ["finding-5a76131eb4faa501-begins", "5a76131e"] {
        let (good, _, errors) = ran(&["why", id, "--from", file]);
        assert!(!good && errors.contains("-begins is a finding of docket's, and no "), "{errors}");
        assert!(errors.contains("denial spike on x of orders"), "{errors}");
    }
    let only = place.path("only.ndjson");
    std::fs::write(&only, finding(1)).unwrap();
    let (good, text, errors) = ran(&["demo", only.to_str().unwrap()]);
    assert!(!good && errors.contains("these are findings"), "{text}{errors}");
}

#[test]
fn files_in_the_wrong_place_or_with_a_wrong_name_are_told() {
    let place = Place::new("placed");
    let written = |name: &str, text: &str| {
        let path = place.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let decisions = &written("d.ndjson", &generated(3, 9).join("\n"));
    let empty = &written("empty.ndjson", "");
    let text = "name: p1\nkafka: {brokers: 127.0.0.1:1}\nsources: [{topic: t}]\nprotect: {}\n";
    let (a, b) = (&written("a.yaml", text), &written("b.yaml", text));
    let same = &format!("{a} and {b} have the same name: p1; ");
    let first = |command: &str| {
        format!("the pipeline file comes first:\n  docket {command} {a} {decisions}")
    };
    let nowhere = &place.path("nowhere/cap").display().to_string();
    let yml = &a.replace(".yaml", ".yml");
    let meant = &format!("{yml}: there is no such file; did you mean {a}?");
    let both = &format!("{a} and {b} are pipeline files; ");
    let blocked = &written("blocked", "");
    let (gone, gone_decisions) = (&place.path("q/nope").display().to_string(), "/q/nope.ndjson");
    let there = |path: &str| format!("{path}: there is no such file");
    for (args, code, words) in [
        (&["spikes", decisions, a][..], 2, &first("spikes")),
        (&["capacity", decisions, a], 2, &first("capacity")),
        // What it is of comes before where it goes.
        (&["capacity", gone_decisions, "--out", nowhere], 2, &there(gone_decisions)),
        (&["capacity", gone, "--out", nowhere], 2, &there(gone)),
        (&["capacity", decisions, gone_decisions, "--out", nowhere], 2, &there(gone_decisions)),
        (&["capacity", decisions, a, "--out", nowhere], 2, &first("capacity")),
        (&["protect", decisions, a], 2, &first("protect")),
        (&["protect", a, b], 2, both),
        (&["spikes", a, decisions, b], 2, both),
        (&["check", a, b], 0, same),
        (&["run", a, b], 1, same),
        (&["run", a, a], 1, &format!("{a} is given twice")),
        (&["why", a, "7e669200"], 2, &format!("the ID comes first:\n  docket why 7e669200 {a}")),
        (&["check", empty], 2, &format!("{empty} is empty")),
        (&["tail", empty], 2, &format!("{empty} is empty")),
        (&["why", "7e669200", "--from", empty], 1, &format!("{empty} is empty")),
        (&["spikes", empty], 1, &format!("{empty} is empty")),
        (&["check", yml], 2, meant),
        (&["check", a, yml], 2, meant),
        (&["setup", gone], 2, &there(gone)),
        (&["check", gone], 2, &there(gone)),
        (&["run", gone, gone], 2, &there(gone)),
        (&["verify", gone], 2, &there(gone)),
        (&["tail", gone], 2, &there(gone)),
        (&["demo", gone_decisions], 2, &there(gone_decisions)),
        (&["spikes", gone_decisions], 2, &there(gone_decisions)),
        (&["why", "7e669200", "--from", gone_decisions], 2, &there(gone_decisions)),
        (&["why", "7e669200", "--from", decisions, "--bundle", gone], 2, &there(gone)),
        (&["decrypt", "--key", &format!("k={gone}"), decisions], 2, &there(gone)),
        (&["backfill", a, "--sink", "nope"], 2, &"there is no sink \"nope\" in ".to_owned()),
        (&["verify", a, "--sink", "nope"], 2, &"there is no sink \"nope\" in ".to_owned()),
        (&["generate", "--to", yml], 2, meant),
        (&["capacity", decisions, "--out", nowhere], 1, &"/nowhere is not there; ".to_owned()),
        (&["capacity", decisions, "--out", "/proc/cap"], 1, &"written to /proc: ".to_owned()),
        (&["verify", a, "--from", "10m", "--until", "1h"], 2, &"is not after the beg".to_owned()),
        (
            &["verify", a, "--from", "2199-01-01T00:00:00Z"],
            2,
            &"2199-01-01T00:00:00Z on".to_owned(),
        ),
        (&["backfill", a, "--sink", "x", "--from", "now"], 2, &"nothing can be there".to_owned()),
        (&["man", blocked], 1, &format!("{blocked} can't be made: ")),
        (&["tail", a, "--verdict", "denied"], 2, &"exists: 'deny'".to_owned()),
    ] {
        let out = docket().args(args).output().unwrap();
        let errors = String::from_utf8(out.stderr).unwrap();
        let right = out.status.code() == Some(code) && errors.contains(words.as_str());
        assert!(right, "{args:?}: {:?} {errors}", out.status.code());
    }
    assert!(ran(&["check", a, a]).0, "one file that is given twice");
}

#[test]
fn a_review_counts_what_came_twice_once() {
    let place = Place::new("twice");
    let path = place.path("d.ndjson");
    std::fs::write(&path, generated(300, 9).join("\n")).unwrap();
    let path = path.to_str().unwrap();
    let (good, once, _) = ran(&["capacity", path, "--out", "-"]);
    let (twice, all, errors) = ran(&["capacity", path, path, "--out", "-"]);
    assert!(good && twice, "{errors}");
    let numbers = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(numbers(&once)["total"], numbers(&all)["total"]);
    assert_eq!(numbers(&all)["read"]["repeats"], 300);
    assert!(errors.contains("; 300 repeats of what came before, left out"), "{errors}");
}

#[test]
fn the_detector_and_the_demo_count_what_came_twice_once() {
    let place = Place::new("spikes-twice");
    let path = place.path("d.ndjson");
    std::fs::write(&path, generated(300, 9).join("\n")).unwrap();
    let path = path.to_str().unwrap();
    let (_, once, _) = ran(&["spikes", path, "--json"]);
    let (good, twice, errors) = ran(&["spikes", path, path, "--json"]);
    assert!(good && once == twice, "{once}{twice}");
    let said = " in 300 decisions; 300 repeats of what came before, left out";
    assert!(errors.contains(said), "{errors}");
    let (good, text, errors) = ran(&["demo", path, path]);
    assert!(good && text.contains("300 decisions from 2 files\n"), "{text}{errors}");
    assert!(text.contains("  repeats        300  left out: they came before"), "{text}");
}

#[test]
fn an_id_that_came_again_and_one_that_was_used_twice_are_told() {
    let place = Place::new("again");
    let file = place.path("d.ndjson");
    let decision = |id: &str, result: bool| {
        format!(
            r#"{{"decision_id":"{id}","path":"a/b","input":{{"password":"x"}},"result":{result},"timestamp":"2026-11-24T12:48:50Z"}}"#
        )
    };
    let all = [("reused", true), ("repeat", true), ("reused", false), ("repeat", true)];
    let lines: Vec<String> = all.iter().map(|(id, result)| decision(id, *result)).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let (good, text, errors) = ran(&["why", "reused", "--from", file]);
    assert!(good && text.matches("a/b").count() == 2, "{text}");
    let said = "note: the ID reused was used for 2 different decisions (decision_id_reused)\n";
    assert_eq!(errors, said);
    let (good, text, errors) = ran(&["why", "repeat", "--from", file]);
    assert!(good && text.matches("a/b").count() == 1, "{text}");
    assert_eq!(errors, "note: repeat stands there twice (a repeat), and is shown once\n");
    let (_, page, _) = ran(&["why", "repeat", "--from", file, "--html"]);
    assert!(page.contains("<p>repeat stands there twice (a repeat)"), "{page}");
}

/// As a person sees it: at a terminal of eighty columns.
fn at_a_terminal(args: &[&str]) -> String {
    let words: Vec<String> = args.iter().map(docket::words::shell).collect();
    let docket = docket::words::shell(env!("CARGO_BIN_EXE_docket"));
    let command = format!("stty cols 80; exec {docket} {}", words.join(" "));
    let mut script = std::process::Command::new("script");
    let out = script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    // Of a bar that was drawn and wiped away, nothing.
    let text = String::from_utf8(out.stdout).unwrap();
    let line = |line: &str| {
        let shown = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        anstream::adapter::strip_str(shown).to_string()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn at_a_terminal_nothing_is_wider_than_it_and_no_word_is_cut() {
    let place = Place::new("narrow");
    let file = place.path("d.ndjson");
    std::fs::write(&file, generated(300, 9).join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let pipeline = place.path("a.yaml");
    let text = "name: n\nkafka: {brokers: kafka-without-a-port}\nsources: [{topic: t}]\nsinks: {out: {type: file, path: out}}\n";
    std::fs::write(&pipeline, text).unwrap();
    let pipeline = pipeline.to_str().unwrap();
    let review = place.path("review").display().to_string();
    for (args, words) in [
        (&["check", pipeline][..], "without a port: Kafka is looked for at 9092"),
        (&["capacity", file, file, "--out", &review], "300 repeats of what came before, left out"),
        (&["spikes", file, file], "in which it learns what is usual (spikes.learn)"),
    ] {
        let shown = at_a_terminal(args);
        let wide = |line: &&str| line.chars().count() > 80;
        assert_eq!(shown.lines().find(wide), None, "{args:?}: {shown}");
        let said = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(words), "{args:?}: {shown}");
    }
}

#[test]
fn an_interrupted_generate_says_how_many_it_wrote() {
    let mut child = docket()
        .args(["generate", "--rate", "2000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    output.read_line(&mut lines).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    output.read_to_string(&mut lines).unwrap();
    let out = child.wait_with_output().unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    let written = lines.lines().count();
    assert!(out.status.success(), "{:?} {errors}", out.status);
    assert!(errors.contains(&format!("{written} decision")), "{written}: {errors}");
}

/// What rests on data that nobody gave is uncertain, which the exit status and JSON say, too; what a policy prints is not for here.
#[test]
fn why_says_by_its_exit_status_what_it_can_not_know() {
    let place = Place::new("uncertain");
    let decisions = place.path("decisions.ndjson");
    let line = r#"{"decision_id":"11112222-aaaa","timestamp":"2026-11-24T12:48:50Z","path":"c/allow","result":false,"input":{"user":"ann","method":"POST"},"labels":{"id":"x"}}"#;
    std::fs::write(&decisions, line).unwrap();
    let folder = place.path("policies");
    std::fs::create_dir(&folder).unwrap();
    let policy = "package c\nimport rego.v1\ndefault allow := false\nallow if {\n\tprint(\"printed\")\n\
        \tinput.user in data.admins\n\tinput.method == \"GET\"\n}\n";
    std::fs::write(folder.join("c.rego"), policy).unwrap();
    let why = |args: &[&str]| {
        let mut command = docket();
        command
            .args(["why", "11112222-AAAA", "--from"])
            .arg(&decisions)
            .arg("--bundle")
            .arg(&folder);
        let out = command.args(args).output().unwrap();
        assert!(!String::from_utf8_lossy(&out.stderr).contains("printed"));
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let (code, text) = why(&[]);
    assert!(code == Some(3) && text.contains("data.admins is not in the bundle"), "{text}");
    let (code, text) = why(&["--json"]);
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(code == Some(3) && all[0]["explanation"]["uncertain"] == true, "{text}");
    std::fs::write(folder.join("data.yaml"), "admins: [ann]\n").unwrap();
    let (code, text) = why(&[]);
    assert!(code == Some(0) && text.contains("input.method is \"POST\""), "{text}");
    std::fs::write(folder.join("data.yaml"), "admins: [ann\n").unwrap();
    assert_eq!(why(&[]).0, Some(1));
}

/// What is erased from the decision that is shown stands nowhere else in it either, but with --unmasked.
#[test]
fn why_shows_no_secret_in_its_explanation() {
    let place = Place::new("secrets");
    let folder = place.path("policies");
    std::fs::create_dir(&folder).unwrap();
    let policy = "package c\nimport rego.v1\ndefault allow := false\n\
        allow if input.password == data.pw[input.user]\n\
        allow if {\n\tparts := split(input.headers.authorization, \" \")\n\tparts[1] == \"x\"\n}\n\
        said contains lower(input.password)\n";
    std::fs::write(folder.join("c.rego"), policy).unwrap();
    let (password, token, data) = ("Tr0ub4dor&3xyz", "opaque-0f9a8b7c6d5e", "correct-horse-data");
    std::fs::write(folder.join("data.json"), format!(r#"{{"pw":{{"kim":"{data}"}}}}"#)).unwrap();
    let input = format!(
        r#"{{"user":"kim","password":"{password}","headers":{{"authorization":"Bearer {token}"}}}}"#
    );
    let lower = password.to_lowercase();
    let decision = |id: &str, path: &str, result: &str| {
        format!(
            r#"{{"decision_id":"{id}","timestamp":"2026-11-24T12:48:50Z","path":"{path}","result":{result},"input":{input},"labels":{{"id":"x"}}}}"#
        )
    };
    let decisions = place.path("d.ndjson");
    let said = decision("decision-2", "c/said", &format!(r#"["{lower}"]"#));
    let both = format!("{}\n{said}\n", decision("decision-1", "c/allow", "false"));
    std::fs::write(&decisions, both).unwrap();
    let (from, bundle) = (decisions.to_str().unwrap(), folder.to_str().unwrap());
    let why = |id: &str, more: &[&str]| {
        ran(&[&["why", id, "--from", from, "--bundle", bundle], more].concat()).1
    };
    for how in [&[][..], &["--json"], &["--html"]] {
        for id in ["decision-1", "decision-2"] {
            let text = why(id, how);
            for secret in [password, &*lower, "Tr0ub4dor&amp;3xyz", "tr0ub4", token, data] {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
            assert!(text.contains("[erased:") && text.contains("kim"), "{text}");
        }
    }
    let text = why("decision-1", &["--unmasked"]);
    for secret in [password, token, data] {
        assert!(text.contains(secret), "{secret}: {text}");
    }
    assert!(why("decision-2", &["--unmasked"]).contains(&lower));
}

/// What reads policies prints nothing of its own: in a bundle of both versions of Rego, v1 was warned of as of v0.
#[test]
fn policies_are_read_without_a_word_of_the_reader() {
    let place = Place::new("silent");
    let folder = place.path("policies");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in [
        ("a.rego", "package authz\nimport input\ndefault allow = false\nallow { input.a == 1 }\n"),
        (
            "b.rego",
            "package other\nimport rego.v1\ndeny contains x if { some x in [1]; every y in [1] { y > 0 } }\n",
        ),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let decisions = place.path("d.ndjson");
    let decision = r#"{"decision_id":"decision-1","path":"authz/allow","result":true,"input":{"a":1},"timestamp":"2026-11-24T12:48:50Z"}"#;
    std::fs::write(&decisions, decision).unwrap();
    let (from, bundle) = (decisions.to_str().unwrap(), folder.to_str().unwrap());
    let (_, text, errors) = ran(&["why", "decision-1", "--from", from, "--bundle", bundle]);
    assert!(text.contains("a.rego:4  gave it"), "{text}{errors}");
    assert!(!errors.contains("warning"), "{errors}");
}

#[test]
fn a_line_of_text_among_decisions_is_told_as_what_it_would_be_alone() {
    let place = Place::new("text-line");
    let file = place.path("d.ndjson");
    let decisions = generated(2, 3).join("\nhello\n");
    std::fs::write(&file, decisions).unwrap();
    let (good, text, errors) = ran(&["demo", file.to_str().unwrap()]);
    assert!(
        good && text.contains("  ignored          1  line that is no decision"),
        "{text}{errors}"
    );
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("1 line of text among what is ignored: "), "{text}");
    assert!(words.contains("docket run rejects it (not_json)"), "{text}");
}

/// What regorus may calculate otherwise than OPA is no error, and told by its file and line.
#[test]
fn what_a_policy_may_answer_otherwise_than_in_opa_is_noted() {
    let place = Place::new("otherwise");
    let pipeline = place.path("p.yaml");
    let (file, decisions) = (pipeline.to_str().unwrap(), place.path("d.ndjson"));
    std::fs::write(&decisions, generated(3, 1).join("\n")).unwrap();
    let decisions = decisions.to_str().unwrap();
    let mask = "package system.log\nimport rego.v1\n\nmask contains \"/input/card\" if {\n\tinput.input.price * 100 == 1999\n}\n";
    let plain = "package system.log\nimport rego.v1\nmask contains \"/input/card\" if count(input.input.cards) + 1 > 2\n";
    let verdict =
        "package docket\nimport rego.v1\nverdict := \"deny\" if input.result.risk / 2 > 0.4\n";
    std::fs::write(place.path("verdict.rego"), verdict).unwrap();
    let text = "name: p\nkafka: {brokers: 'k:9092'}\nsources: [{topic: t}]\nsinks: {a: {type: file, path: a}}\nprotect: {opa: {policies: [mask.rego]}}\n";
    for (mask, notes) in [(mask, 1), (plain, 0)] {
        std::fs::write(place.path("mask.rego"), mask).unwrap();
        std::fs::write(&pipeline, text).unwrap();
        let said = "mask.rego:5: `input.input.price * 100`: OPA calculates";
        for args in [&["check", file][..], &["protect", file, decisions, "--count"]] {
            let (good, _, errors) = ran(args);
            assert!(good, "{args:?}: {errors}");
            assert_eq!(errors.matches(said).count(), notes, "{args:?}: {errors}");
            assert_eq!(errors.matches("let OPA itself mask").count(), notes, "{args:?}: {errors}");
        }
        std::fs::write(&pipeline, format!("{text}verdict_policy: {{policies: [verdict.rego]}}\n"))
            .unwrap();
        let (good, text, errors) = ran(&["check", file, "--json"]);
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let told = told["files"][0]["notes"].as_array().unwrap();
        assert!(good && told.len() == notes + 1, "{text}{errors}");
        let last = told.last().unwrap().as_str().unwrap();
        assert!(last.starts_with("verdict.rego:3: `input.result.risk / 2`: "), "{last}");
    }
}
