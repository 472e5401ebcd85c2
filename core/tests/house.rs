//! The house holds: a room uses only rooms that stand above it in the list of `lib.rs`, and nothing that
//! does I/O is a dependency.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The rooms in the order of `lib.rs`, from the ground up.
fn floors(map: &str) -> Vec<&str> {
    map.lines()
        .filter_map(|line| line.strip_prefix("//! - [`")?.split_once('`'))
        .map(|(name, _)| name)
        .collect()
}

/// The code of a file without its tests: what tests use is theirs.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap()
}

/// The rooms that a piece of code names by `crate::room`.
fn used(code: &str) -> Vec<&str> {
    let after = code.split("crate::").skip(1);
    after
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap())
        .filter(|name| !name.is_empty())
        .collect()
}

/// What of a room's code leads upwards.
fn upward<'f>(floors: &[&'f str], room: &str, code: &str) -> Vec<&'f str> {
    let at = floors.iter().position(|f| *f == room).unwrap_or(usize::MAX);
    floors
        .iter()
        .enumerate()
        .filter(|(i, f)| *i > at && used(code).contains(f))
        .map(|(_, f)| *f)
        .collect()
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_name().unwrap() != "tests.rs"
        {
            out.push(path);
        }
    }
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let source = root().join("src");
    let map = std::fs::read_to_string(source.join("lib.rs")).unwrap();
    let floors = floors(&map);
    let mut all = Vec::new();
    files(&source, &mut all);
    let mut wrong = Vec::new();
    for path in &all {
        let place = path.strip_prefix(&source).unwrap();
        let room = place.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        assert!(floors.contains(&room), "{room} is not in the list of lib.rs");
        let text = std::fs::read_to_string(path).unwrap();
        wrong.extend(
            upward(&floors, room, code(&text))
                .iter()
                .map(|up| format!("{} uses {up}", place.display())),
        );
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_planted_arrow_upwards_is_found() {
    let floors = ["topk", "decision", "protect"];
    let planted = "use crate::protect::Protection;\nuse crate::topk::SpaceSaving;\n";
    assert_eq!(upward(&floors, "decision", planted), ["protect"]);
    assert_eq!(upward(&floors, "protect", planted), [""; 0]);
    let only_in_tests =
        "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::protect::Protection;\n}\n";
    assert_eq!(upward(&floors, "decision", code(only_in_tests)), [""; 0]);
}

#[test]
fn nothing_that_does_io_is_a_dependency() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    for banned in ["tokio", "rdkafka", "reqwest", "axum", "hyper", "tonic", "rustls", "openssl"] {
        let found = dependencies.lines().find(|line| line.split([' ', '=']).next() == Some(banned));
        assert_eq!(found, None);
    }
}
