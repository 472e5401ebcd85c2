//! Variables that have the name of a rule or an import, which OPA allows and regorus does not (`some role in ..` where a rule `role`
//! is): before a policy is evaluated they get names of the same length that nothing else has, so that all places stay right. What
//! people read has their own names again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use regorus::Engine;
use regorus::unstable::Rule;

use super::rules::{self, Definition};
use super::texts::{Word, words};
use crate::rego::SourceFile;

/// Names by what stands for them.
pub type Renamed = BTreeMap<String, String>;

/// The policies with such variables renamed. They are parsed already, in the same order.
pub fn renamed(policies: &[SourceFile], engine: &mut Engine) -> (Vec<SourceFile>, Renamed) {
    let definitions = rules::definitions(engine);
    let mut names = Names::of(policies);
    let mut texts: Vec<SourceFile> = policies.to_vec();
    for module in engine.get_modules().iter() {
        let package = module.package.refr.span().text();
        let Some(policy) = texts.iter_mut().find(|p| p.name == *module.package.span.source.file())
        else {
            continue;
        };
        let taken = taken(module, &definitions, package);
        let begins: Vec<usize> = module.policy.iter().map(|rule| begin(rule) as usize).collect();
        for (at, begin) in begins.iter().enumerate() {
            let end = begins.get(at + 1).copied().unwrap_or(policy.text.len());
            let Some(region) = policy.text.get(*begin..end.max(*begin)) else { continue };
            let (clash, own) = clashing(region, &taken);
            let mut bytes = policy.text.clone().into_bytes();
            for (range, name) in clash {
                if own.as_ref() == Some(&range) {
                    continue;
                }
                if let Some(other) = names.instead_of(name) {
                    bytes[begin + range.start..begin + range.end].copy_from_slice(other.as_bytes());
                }
            }
            if let Ok(text) = String::from_utf8(bytes) {
                policy.text = text;
            }
        }
    }
    (texts, names.renamed)
}

fn begin(rule: &regorus::unstable::Ref<Rule>) -> u32 {
    match rule.as_ref() {
        Rule::Default { span, .. } | Rule::Spec { span, .. } => span.start,
    }
}

/// The names of a module's imports, and of its package's rules.
fn taken(
    module: &regorus::unstable::Module,
    definitions: &[Definition],
    package: &str,
) -> BTreeSet<String> {
    let imports = module.imports.iter().filter_map(|import| {
        let path = import.refr.span().text();
        let named = import.r#as.as_ref().map(regorus::unstable::Span::text);
        named.or_else(|| path.contains('.').then(|| path.rsplit('.').next()).flatten())
    });
    let rules = definitions.iter().filter(|d| d.package == package);
    let rules = rules.map(|d| d.name.split('.').next().unwrap_or_default());
    imports.chain(rules).map(str::to_owned).collect()
}

/// Where the variables of a rule stand that have such a name, and where the rule's own name stands.
fn clashing<'t>(
    region: &'t str,
    taken: &BTreeSet<String>,
) -> (Vec<Word<'t>>, Option<Range<usize>>) {
    let words = words(region);
    let (mut variables, mut listed, mut last) = (BTreeSet::new(), false, 0);
    for (range, word) in &words {
        let between = &region[last..range.start];
        listed &= between.chars().all(|c| c == ',' || c.is_whitespace()) && *word != "in";
        last = range.end;
        if listed && taken.contains(*word) {
            variables.insert(*word);
        }
        listed |= *word == "some" || *word == "every";
    }
    let own = words.first().map(|(range, _)| range.clone());
    let found = words
        .into_iter()
        .filter(|(range, word)| variables.contains(word) && !region[..range.start].ends_with('.'));
    (found.collect(), own)
}

/// A text with the names that people gave.
pub fn restored(text: &str, renamed: &Renamed) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = 0;
    // Within quotes and comments, too: none of these names stands anywhere by itself.
    let mut at = 0;
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        if let Some(name) = renamed.get(bare) {
            out.push_str(&text[last..at]);
            out.push_str(name);
            last = at + bare.len();
        }
        at += word.len();
    }
    out.push_str(&text[last..]);
    out
}

/// Names that nothing has.
struct Names {
    all: BTreeSet<String>,
    renamed: Renamed,
}

impl Names {
    fn of(policies: &[SourceFile]) -> Names {
        let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let all = policies.iter().flat_map(|policy| policy.text.split(word));
        let keywords = ["if", "in", "as", "or", "and", "not", "with", "some", "else", "null"];
        let roots = ["input", "data", "true", "false", "every", "default", "import", "package"];
        let all = all.chain(keywords).chain(roots).filter(|word| !word.is_empty());
        Names { all: all.map(str::to_owned).collect(), renamed: Renamed::new() }
    }

    /// One of the same length; none if all are used.
    fn instead_of(&mut self, name: &str) -> Option<String> {
        if let Some((other, _)) = self.renamed.iter().find(|(_, own)| *own == name) {
            return Some(other.clone());
        }
        const LETTERS: &[u8] = b"zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA";
        let padding = "_".repeat(name.len().saturating_sub(2));
        let first = LETTERS.iter().map(|letter| char::from(*letter));
        let candidates = first.clone().flat_map(|a| {
            let second = first.clone();
            let short = (name.len() == 1).then(|| a.to_string());
            let long = second.filter(|_| name.len() > 1).map(move |b| format!("{a}{b}"));
            short.into_iter().chain(long)
        });
        let mut candidates = candidates.map(|short| format!("{short}{padding}"));
        let other = candidates.find(|other| !self.all.contains(other))?;
        self.all.insert(other.clone());
        self.renamed.insert(other.clone(), name.to_owned());
        Some(other)
    }
}
