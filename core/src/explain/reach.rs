//! Which packages an evaluation may come to: of a file that can't be read nothing else is known than its package.

use std::collections::BTreeSet;

use super::texts::{path, references, uncommented};
use crate::rego::SourceFile;

/// A file that can't be read here.
#[derive(Debug, Clone)]
pub struct Unread {
    /// Nothing if not even that can be told.
    pub package: Option<Vec<String>>,
    /// What is said of it.
    pub why: String,
}

/// The package that a policy says it is of.
pub fn package(policy: &str) -> Option<Vec<String>> {
    let text = uncommented(policy);
    let mut words = references(text.lines().find(|line| !line.trim().is_empty())?).into_iter();
    if words.next()?.1 != "package" {
        return None;
    }
    path(&format!(".{}", words.next()?.1)).filter(|path| !path.is_empty())
}

/// Of each policy its package, and what of `data` it speaks of. How far an evaluation may come by it is all that is taken into account:
/// `data.a[x].c` may be anything below `a`.
pub struct Reach(Vec<(Vec<String>, Vec<Vec<String>>)>);

/// What a decision may come to.
pub struct Reached {
    /// Policies, by their numbers.
    pub policies: BTreeSet<usize>,
    paths: Vec<Vec<String>>,
}

impl Reach {
    pub fn of(policies: &[SourceFile]) -> Reach {
        let of = |policy: &SourceFile| {
            // One that says nothing of it may be any.
            (package(&policy.text).unwrap_or_default(), spoken_of(&policy.text))
        };
        Reach(policies.iter().map(of).collect())
    }

    pub fn from(&self, asked: &[&str]) -> Reached {
        let asked = asked.iter().map(|part| (*part).to_owned()).collect();
        let mut reached = Reached { policies: BTreeSet::new(), paths: vec![asked] };
        let mut at = 0;
        while let Some(path) = reached.paths.get(at).cloned() {
            at += 1;
            for (number, (package, spoken_of)) in self.0.iter().enumerate() {
                if related(&path, package) && reached.policies.insert(number) {
                    // Its rules may be others', too, and are meant by their names alone.
                    reached.paths.push(package.clone());
                    reached.paths.extend(spoken_of.iter().cloned());
                }
            }
        }
        reached
    }
}

impl Reached {
    /// Whether what a file says may be among it.
    pub fn comes_to(&self, unread: &Unread) -> bool {
        let Some(package) = &unread.package else { return true };
        self.paths.iter().any(|path| related(path, package))
    }
}

/// Whether one is within the other.
fn related(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// What of `data` a policy speaks of, imports among it.
fn spoken_of(policy: &str) -> Vec<Vec<String>> {
    let text = uncommented(policy);
    let chars: Vec<char> = text.chars().collect();
    let of_data = |(at, word): (usize, String)| {
        let rest = word.strip_prefix("data")?.trim_end_matches('.');
        let begins = at == 0 || chars.get(at - 1) != Some(&'.');
        let ends = rest.is_empty() || rest.starts_with(['.', '[']);
        (begins && ends).then(|| path(rest).unwrap_or_default())
    };
    references(&text).into_iter().filter_map(of_data).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes(asked: &str, package: Option<&str>) -> bool {
        let policies = [
            ("a", "package a\nimport data.lib as l\nallow if l.ok\n# data.z and \"\nb if input.data == 1"),
            ("lib", "# data.z\npackage lib # of all\nok if input.n == data.numbers.n"),
            ("b", "package b\nallow if data.many[input.x].ok"),
            ("c", "package many.c\nok if data.deep[\"my-api\"].ok"),
            ("d", "package d\nallow if walk(data, [_, 1])"),
        ]
        .map(|(name, text)| SourceFile { name: name.into(), text: text.into() });
        let asked: Vec<&str> = asked.split('/').collect();
        let package = package.map(|name| name.split('.').map(str::to_owned).collect());
        Reach::of(&policies).from(&asked).comes_to(&Unread { package, why: String::new() })
    }

    #[test]
    fn an_evaluation_comes_to_what_it_speaks_of_and_to_what_that_does() {
        for (asked, package, comes) in [
            ("a/allow", Some("z"), false),
            ("a/allow", Some("lib"), true),
            ("a/allow", Some("lib.more"), true),
            ("a/allow", Some("library"), false),
            ("a/allow", Some("a"), true),
            ("a/allow", Some("numbers"), true),
            ("a", Some("a.inner"), true),
            ("a/inner/x", Some("a.inner"), true),
            ("b/allow", Some("many.z"), true),
            ("b/allow", Some("deep.other"), false),
            ("b/allow", Some("deep.my-api"), true),
            ("d/allow", Some("z"), true),
            ("a/allow", None, true),
        ] {
            assert_eq!(self::comes(asked, package), comes, "{asked}: {package:?}");
        }
    }

    #[test]
    fn policies_that_a_decision_may_come_to_are_told_from_others() {
        let of = |text: &str| SourceFile { name: text.into(), text: text.into() };
        let policies = ["package a\nb := data.c.d", "package b", "package c", "package a.inner"];
        let reach = Reach::of(&policies.map(of));
        let numbers = |asked: &str| -> Vec<usize> {
            let asked: Vec<&str> = asked.split('/').collect();
            reach.from(&asked).policies.into_iter().collect()
        };
        assert_eq!(numbers("a/b"), [0, 2, 3]);
        assert_eq!((numbers("b/x"), numbers("c")), (vec![1], vec![2]));
        assert!(numbers("d").is_empty());
    }

    #[test]
    fn the_package_is_told_of_what_can_not_be_read() {
        for (text, found) in [
            ("# package x\n\npackage a.b # c\n$\"", Some(vec!["a", "b"])),
            ("package a[\"my-api\"].c\nx if {", Some(vec!["a", "my-api", "c"])),
            ("import rego.v1\npackage a", None),
            ("x if {", None),
            ("package", None),
        ] {
            let found = found.map(|parts| parts.into_iter().map(str::to_owned).collect());
            assert_eq!(package(text), found, "{text}");
        }
    }
}
