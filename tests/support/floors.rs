//! Holds a package to the list of rooms in its `lib.rs`: a room uses only rooms that stand above it there, and the modules of a room do
//! not use each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
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
        paths.retain(|path| path.file_name().unwrap() != "tests.rs");
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
            for named in named(code, &module(path)) {
                let name = named.first().map(String::as_str).unwrap_or_default();
                if self.floors[at + 1..].iter().any(|floor| floor == name) {
                    wrong.push(format!("{} uses {name}", path.display()));
                }
            }
        }
        wrong
    }

    /// Modules of one folder that use each other in a circle. That a module uses what is in its own folder, and is
    /// used there, is no circle.
    pub fn circles(&self) -> Vec<String> {
        let modules: Vec<_> = self.files.iter().map(|(path, code)| (module(path), code)).collect();
        let mut folders: BTreeMap<&[String], BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
        for (module, code) in &modules {
            for named in named(code, module) {
                let shared = module.iter().zip(&named).take_while(|(a, b)| a == b).count();
                let (Some(from), Some(to)) = (module.get(shared), named.get(shared)) else {
                    continue;
                };
                let is_module = modules.iter().any(|(m, _)| m.starts_with(&named[..=shared]));
                if shared > 0 && is_module {
                    let folder = folders.entry(&module[..shared]).or_default();
                    folder.entry(from).or_default().insert(to.clone());
                }
            }
        }
        let mut circles = Vec::new();
        for (folder, mut uses) in folders {
            while let Some(name) = free(&uses) {
                uses.remove(name);
            }
            let left: Vec<&str> = uses.into_keys().collect();
            if !left.is_empty() {
                circles.push(format!("{}: {}", folder.join("/"), left.join(", ")));
            }
        }
        circles
    }
}

/// One that uses none of the others, or is used by none: it is on no circle.
fn free<'n>(uses: &BTreeMap<&'n str, BTreeSet<String>>) -> Option<&'n str> {
    let is_free = |name: &str, used: &BTreeSet<String>| {
        used.iter().all(|name| !uses.contains_key(name.as_str()))
            || !uses.values().any(|used| used.contains(name))
    };
    uses.iter().find(|(name, used)| is_free(name, used)).map(|(name, _)| *name)
}

/// A file's module, from the crate's root.
fn module(path: &Path) -> Vec<String> {
    let parts = path.with_extension("");
    let parts = parts.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.filter(|part| part != "mod").collect()
}

/// The rooms in the order of `lib.rs`.
fn floors(map: &str) -> Vec<String> {
    let named = |line: &str| Some(line.strip_prefix("//! - [`")?.split_once('`')?.0.to_owned());
    map.lines().filter_map(named).collect()
}

fn room(path: &Path) -> &str {
    path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
}

pub fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "target" {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap()
}

/// What code in a module names by `crate::` or `super::`, from the crate's root.
fn named(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .flat_map(|line| line.chars().chain(['\n']))
        .collect();
    let mut all = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            // `super::super::a` is read from its beginning, and `pub(in crate::a)` is none.
            if code[..at].ends_with(|c: char| c == ':' || c == '_' || c.is_ascii_alphanumeric()) {
                continue;
            }
            let mut rest = &code[at..];
            let mut from = if root == "crate::" { &[][..] } else { module };
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, from) = (further, from.split_last().map_or(&[][..], |(_, above)| above));
            }
            tree(rest.strip_prefix("crate::").unwrap_or(rest), from, &mut all);
        }
    }
    all
}

/// The paths of a `use`, `a::b` or `{a::b, c::{d, e}}`, below another; what follows them.
fn tree<'c>(rest: &'c str, below: &[String], all: &mut Vec<Vec<String>>) -> &'c str {
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        let mut rest = group.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            rest = tree(rest, below, all);
            // `a as b`
            rest = rest.trim_start_matches(|c| !matches!(c, ',' | '}')).trim_start_matches(',');
            rest = rest.trim_start();
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, behind) = rest.split_at(end);
    let path = [below, &[name.to_owned()][..]].concat();
    match behind.strip_prefix("::") {
        Some(further) if end > 0 => tree(further, &path, all),
        _ => {
            all.push(path);
            behind.strip_prefix('*').unwrap_or(behind)
        }
    }
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
    for (uses, found) in [
        (["use super::b::B;", "use super::c::C;", "use super::a::A;"], "decision/f: a, b, c"),
        (["use super::{c, b::{B, X}};", "fn f() { super::a::f() }", ""], "decision/f: a, b"),
        (["use super::b::B;", "use crate::decision::{f::{d, a}, g};", ""], "decision/f: a, b"),
        (
            ["use super::b::B;", "use super::c::C;", "use super::super::f::a::A;"],
            "decision/f: a, b, c",
        ),
        (["use super::b::B;", "use super::c::C;", ""], ""),
        (["use super::b::B;", "use super::c::C;", "use super::super::a::A;"], ""),
        (["use super::b::B;", "use super::c::C; // super::a", "use super::*;"], ""),
    ] {
        let of = |name: &str| format!("decision/f/{name}.rs");
        let (a, b, c) = (of("a"), of("b"), of("c"));
        let above = ("decision/f/mod.rs", "use self::a::A; use super::g;");
        let files = [above, (&a, uses[0]), (&b, uses[1]), (&c, uses[2]), ("decision/g.rs", "")];
        assert_eq!(house(&files).circles().concat(), found, "{uses:?}");
    }
    // A circle has an arrow that leads upwards, whatever its length.
    let circle = [("topk.rs", "use crate::protect::A;"), ("protect.rs", "use crate::topk::B;")];
    assert_eq!(house(&circle).upward(), ["topk.rs uses protect"]);
    assert_eq!(code_without_tests(), "fn f() {}");
}

fn code_without_tests() -> &'static str {
    code("fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::protect::Protection;\n}\n")
}
