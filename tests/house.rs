//! The house holds: a room of `src/` uses only rooms that stand above it in the list of `lib.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "support/floors.rs"]
mod floors;

#[test]
fn a_room_uses_only_rooms_below_it() {
    let house = floors::House::of(env!("CARGO_MANIFEST_DIR"));
    assert!(house.floors.len() > 10 && house.files.len() > 50);
    assert_eq!(house.upward(), Vec::<String>::new());
}

#[test]
fn a_planted_arrow_upwards_is_found() {
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
