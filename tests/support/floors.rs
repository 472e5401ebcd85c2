//! Holds a package to the list of rooms in its `lib.rs`: a room uses only rooms that stand above it there.

use std::path::{Path, PathBuf};

/// A package's rooms, from the ground up, and its files.
pub struct House {
    pub floors: Vec<String>,
    /// Path below `src`, and the code without its tests: what tests use is theirs.
    pub files: Vec<(PathBuf, String)>,
}

impl House {
    pub fn of(manifest: &str) -> House {
        let source = Path::new(manifest).join("src");
        let map = std::fs::read_to_string(source.join("lib.rs")).unwrap();
        let mut paths = Vec::new();
        files(&source, &mut paths);
        let files = paths.into_iter().map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&source).unwrap().to_owned(), code(&text).to_owned())
        });
        House { floors: floors(&map), files: files.collect() }
    }

    /// Every use of a room further up: who, and of what.
    pub fn upward(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (path, code) in &self.files {
            let room = room(path);
            if ["lib", "main"].contains(&room) {
                continue;
            }
            let Some(at) = self.floors.iter().position(|floor| floor == room) else {
                wrong.push(format!("{room} is not in the list of lib.rs"));
                continue;
            };
            let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
            for name in used(code, depth) {
                if self.floors[at + 1..].contains(&name) {
                    wrong.push(format!("{} uses {name}", path.display()));
                }
            }
        }
        wrong
    }
}

/// The rooms in the order of `lib.rs`.
fn floors(map: &str) -> Vec<String> {
    let named = |line: &str| Some(line.strip_prefix("//! - [`")?.split_once('`')?.0.to_owned());
    map.lines().filter_map(named).collect()
}

fn room(path: &Path) -> &str {
    path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
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

fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap()
}

/// What code in a module so deep names at the crate's root: by `crate::`, or by as many `super::` as lead there.
pub fn used(code: &str, depth: usize) -> Vec<String> {
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .flat_map(|line| line.chars().chain(['\n']))
        .collect();
    let up = "super::".repeat(depth);
    let mut names = Vec::new();
    for root in ["crate::", up.as_str()] {
        for rest in code.split(root).skip(1) {
            names.extend(first_names(rest));
        }
    }
    names
}

/// The first names of a path or of a group of them: `a::b` or `{a::b, c}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                names.push(name(&group[i..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// Arrows upwards are found, however they are written.
pub fn planted() {
    let house = |files: &[(&str, &str)]| House {
        floors: ["topk", "decision", "protect"].map(str::to_owned).to_vec(),
        files: files.iter().map(|(path, code)| (path.into(), (*code).to_owned())).collect(),
    };
    for (path, code, found) in [
        ("decision.rs", "use crate::protect::Protection;", true),
        ("decision.rs", "use crate::{topk, protect::{rules, keys}};", true),
        ("decision/json.rs", "use super::super::protect::Protection;", true),
        ("decision/mod.rs", "fn f() { crate::protect::mask() }", true),
        ("decision.rs", "use super::protect;", true),
        ("decision/json.rs", "use super::protect::Own;", false),
        ("decision.rs", "use crate::topk::SpaceSaving; // not crate::protect", false),
        ("protect/mod.rs", "use crate::{decision::{protect, json}, topk};", false),
        ("attic.rs", "", true),
    ] {
        let wrong = house(&[(path, code)]).upward();
        assert_eq!(!wrong.is_empty(), found, "{path}: {code}: {wrong:?}");
    }
    // A circle has an arrow that leads upwards, whatever its length.
    let circle = [("topk.rs", "use crate::protect::A;"), ("protect.rs", "use crate::topk::B;")];
    assert_eq!(house(&circle).upward(), ["topk.rs uses protect"]);
    assert_eq!(code_without_tests(), "fn f() {}");
}

fn code_without_tests() -> &'static str {
    code("fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::protect::Protection;\n}\n")
}
