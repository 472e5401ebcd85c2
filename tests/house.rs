//! The house holds: a room of `src/` uses only rooms that stand above it in the list of `lib.rs`, its modules use each other in no circle,
//! and no file is too long.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "support/floors.rs"]
mod floors;

#[test]
fn a_room_uses_only_rooms_below_it() {
    let house = floors::House::of(env!("CARGO_MANIFEST_DIR"));
    assert!(house.floors.len() > 10 && house.files.len() > 50);
    assert_eq!(house.upward(), Vec::<String>::new());
}

/// One is left.
#[test]
fn modules_of_a_room_use_each_other_in_no_circle() {
    let circles = floors::House::of(env!("CARGO_MANIFEST_DIR")).circles();
    assert_eq!(circles, ["log: fetch, queues, reading, resume, shared"]);
}

/// Of the code, and of the tests.
#[test]
fn no_file_has_more_than_600_lines() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut all, mut long) = (Vec::new(), Vec::new());
    for folder in ["src", "core", "tests", "benches"] {
        floors::files(&root.join(folder), &mut all);
    }
    assert!(all.len() > 400);
    for path in all {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines > 600 {
            long.push(format!("{}: {lines}", path.strip_prefix(root).unwrap().display()));
        }
    }
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn planted_arrows_are_found() {
    floors::planted();
}

/// A sink is one folder (or file): who else names its kind knows only its settings.
#[test]
fn only_any_knows_which_sinks_there_are() {
    let house = floors::House::of(env!("CARGO_MANIFEST_DIR"));
    let kinds = ["otlp", "loki", "elasticsearch", "cloudwatch"];
    let mut wrong = Vec::new();
    for (path, code) in &house.files {
        let path = path.to_str().unwrap();
        // The settings of all are in one enum; cases show Loki's labels and Elasticsearch's document.
        let may = ["sink/any.rs", "sink/config.rs", "pipeline/cases.rs"].contains(&path);
        for kind in kinds {
            let own = path.starts_with(&format!("sink/{kind}/"));
            let names = code.lines().filter(|line| {
                line.contains(&format!("sink::{kind}::"))
                    && !line.contains(&format!("sink::{kind}::config::"))
            });
            if !may && !own {
                wrong.extend(names.map(|line| format!("{path}: {line}")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
