//! Which detectors may find something in a text: one quick pass, which may suspect too much, and never too little.

use aho_corasick::packed::{self, MatchKind};
use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::detector::{Detector, is_telling};

/// Parts of names that tell.
const TELLING: [&str; 7] = ["pass", "pwd", "secret", "token", "key", "authorization", "cookie"];

/// Beginnings of tokens, as their makers have them.
const TOKENS: [&str; 28] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "AIza",
    "ya29.",
    "npm_",
    "pypi-",
    "hf_",
    "dop_v1_",
    "SG.",
    "shpat_",
    "sk-",
    "hvs.",
    "dckr_pat_",
    "AGE-SECRET-KEY-1",
];

/// How escapes begin that may stand for any of their characters.
const ESCAPE: &str = "\\u00";

#[derive(Debug)]
pub struct Prefilter {
    /// What finds begin with or hold, as it is written, and the detector of each; none for an escape.
    words: Vec<(&'static str, Option<Detector>)>,
    search: Search,
    /// The detectors that are on, as bits.
    on: u16,
}

/// A search for all words at once, in lower case.
#[derive(Debug)]
enum Search {
    /// By the processor's vectors,
    Packed(packed::Searcher),
    /// and where it has none.
    Automaton(AhoCorasick),
}

impl Prefilter {
    pub fn new(detectors: impl Iterator<Item = Detector>) -> Prefilter {
        let mut words = vec![(ESCAPE, None)];
        let mut on = 0;
        for detector in detectors {
            on |= detector.bit();
            let its: &[&str] = match detector {
                Detector::Named => &TELLING,
                Detector::Authorization => &["bearer", "basic", "negotiate"],
                Detector::Jwt => &["eyJ"],
                Detector::PrivateKey => &["private key"],
                Detector::AwsKey => &["AKIA", "ASIA", "ABIA", "ACCA"],
                Detector::ApiToken => &TOKENS,
                Detector::UrlPassword
                | Detector::Card
                | Detector::Email
                | Detector::Iban
                | Detector::Ssn => &[],
            };
            words.extend(its.iter().map(|word| (*word, Some(detector))));
        }
        let search = Search::packed(&words).unwrap_or_else(|| Search::automaton(&words));
        Prefilter { words, search, on }
    }

    /// As bits.
    pub fn of(&self, text: &str) -> u16 {
        self.within(text, &text.to_ascii_lowercase())
    }

    /// The same of a text that is there in lower case, too.
    pub fn within(&self, text: &str, lower: &str) -> u16 {
        let bytes = text.as_bytes();
        let mut bits = 0;
        let found = |word: usize, start: usize, end: usize| {
            let (word, detector) = self.words[word];
            let bit = detector.map_or(u16::MAX, Detector::bit);
            let may_be = match detector {
                _ if bits & bit == bit => false,
                None => hides(bytes, end),
                Some(Detector::Named) => is_in_telling_name(text, start, end),
                Some(Detector::Authorization) => {
                    begins(bytes, start)
                        && bytes.get(end).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\\'))
                }
                Some(Detector::PrivateKey) => true,
                Some(_) => begins(bytes, start) && &bytes[start..end] == word.as_bytes(),
            };
            if may_be {
                bits |= bit;
            }
        };
        self.search.each(lower, found);
        if memchr::memchr(b'@', bytes).is_some() {
            bits |= Detector::Email.bit() | Detector::UrlPassword.bit();
        }
        (bits | numbers(bytes)) & self.on
    }
}

impl Search {
    fn packed(words: &[(&str, Option<Detector>)]) -> Option<Search> {
        let mut config = packed::Config::new();
        let mut builder =
            config.match_kind(MatchKind::LeftmostFirst).heuristic_pattern_limits(false).builder();
        builder.extend(words.iter().map(|(word, _)| word.to_ascii_lowercase()));
        builder.build().map(Search::Packed)
    }

    /// Each word that is found, and where it begins and ends.
    fn each(&self, lower: &str, mut found: impl FnMut(usize, usize, usize)) {
        match self {
            Search::Packed(search) => search
                .find_iter(lower)
                .for_each(|m| found(m.pattern().as_usize(), m.start(), m.end())),
            Search::Automaton(search) => search
                .find_iter(lower)
                .for_each(|m| found(m.pattern().as_usize(), m.start(), m.end())),
        }
    }

    fn automaton(words: &[(&str, Option<Detector>)]) -> Search {
        let words = words.iter().map(|(word, _)| word.to_ascii_lowercase());
        Search::Automaton(
            AhoCorasick::builder()
                .match_kind(aho_corasick::MatchKind::LeftmostFirst)
                .kind(Some(AhoCorasickKind::DFA))
                .prefilter(false)
                .build(words)
                .expect("so few words fit"),
        )
    }
}

/// Whether the escape that begins before a place stands for a character that any find may have. Go's encoder writes `<`, `>` and `&` so.
fn hides(bytes: &[u8], at: usize) -> bool {
    let digits = bytes.get(at..at + 2).and_then(|digits| std::str::from_utf8(digits).ok());
    let Some(code) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
        return true;
    };
    !(code.is_ascii_control() || matches!(code, b'<' | b'>' | b'&' | b'\''))
}

/// Whether a word may begin at a place: after what is no letter or digit, or after an escape.
fn begins(bytes: &[u8], at: usize) -> bool {
    let escape = |length: usize| at >= length && bytes[at - length] == b'\\';
    at == 0 || !bytes[at - 1].is_ascii_alphanumeric() || escape(2) || escape(6)
}

/// Where the escape ends (`\uXXXX`) that one of whose digits stands at a place.
fn end_of_escape(bytes: &[u8], at: usize) -> Option<usize> {
    let start = (2..6)
        .filter_map(|back| at.checked_sub(back))
        .find(|start| bytes[*start..].starts_with(b"\\u"))?;
    // After an even number of them it is a backslash that is meant.
    let before = bytes[..start].iter().rev().take_while(|b| **b == b'\\').count();
    (before % 2 == 0).then_some(start + 6)
}

/// Whether what is at a place is in the name of a member that holds text or a list, a name that tells.
fn is_in_telling_name(text: &str, start: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    let far = end + 40;
    let Some(close) = memchr::memchr(b'"', &bytes[end..bytes.len().min(far)]).map(|at| end + at)
    else {
        return false;
    };
    let mut after = bytes[close + 1..].iter().filter(|b| !b.is_ascii_whitespace());
    if !matches!((after.next(), after.next()), (Some(b':'), Some(b'"' | b'['))) {
        return false;
    }
    let near = start.saturating_sub(40);
    memchr::memrchr(b'"', &bytes[near..start])
        .is_some_and(|at| is_telling(&text[near + at + 1..close]))
}

/// The shortest number that is looked for: that of social security.
const SHORTEST: usize = 11;

/// Runs of digits that may be a card, an account or a social security number.
fn numbers(bytes: &[u8]) -> u16 {
    let is_part = |b: &u8| b.is_ascii_digit() || b.is_ascii_uppercase() || matches!(b, b' ' | b'-');
    let mut bits = 0;
    let mut at = SHORTEST - 1;
    // What is as long as the shortest does not fit between two looks.
    while let Some(byte) = bytes.get(at) {
        if !is_part(byte) {
            at += SHORTEST;
            continue;
        }
        let start = at - bytes[..at].iter().rev().take_while(|b| is_part(b)).count();
        let end = at + bytes[at..].iter().take_while(|b| is_part(b)).count();
        if end - start >= SHORTEST {
            bits |= numbers_between(bytes, start, end);
        }
        at = end + SHORTEST;
    }
    bits
}

fn numbers_between(bytes: &[u8], start: usize, end: usize) -> u16 {
    let mut bits = 0;
    let mut at = start;
    while let Some(next) = bytes[at..end].iter().position(u8::is_ascii_digit) {
        at += next;
        if let Some(after) = end_of_escape(bytes, at) {
            at = after.min(end);
            continue;
        }
        let (end, digits) = run(bytes, at);
        if digits >= 9 {
            let groups = Groups::of(bytes, at, end);
            if digits >= 12 && groups.may_be_card() {
                bits |= Detector::Card.bit();
            }
            if groups.may_be_ssn() {
                bits |= Detector::Ssn.bit();
            }
        }
        if at >= 2 && bytes[at - 2..at].iter().all(u8::is_ascii_uppercase) && begins(bytes, at - 2)
        {
            bits |= Detector::Iban.bit();
        }
        at = end;
    }
    bits
}

/// Where digits with single spaces or dashes between them end, and how many they are.
fn run(bytes: &[u8], start: usize) -> (usize, usize) {
    let (mut end, mut digits) = (start, 0);
    loop {
        match bytes.get(end) {
            Some(b'0'..=b'9') => digits += 1,
            Some(b' ' | b'-') if bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => {}
            _ => return (end, digits),
        }
        end += 1;
    }
}

/// Such digits, in their groups.
struct Groups {
    /// How many digits, and the first of them.
    groups: Vec<(usize, u8)>,
    /// Whether the first group begins, and the last ends, where a word does.
    begins: bool,
    ends: bool,
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl Groups {
    fn of(bytes: &[u8], start: usize, end: usize) -> Groups {
        let groups = bytes[start..end]
            .split(|b| !b.is_ascii_digit())
            .map(|group| (group.len(), group[0]))
            .collect();
        Groups {
            groups,
            begins: start == 0 || bytes[start - 1] != b'_' && begins(bytes, start),
            ends: !bytes.get(end).is_some_and(|b| is_word(*b)),
        }
    }

    /// Whether groups that follow each other, and stand apart from words, fit.
    fn some(&self, fits: impl Fn(&[(usize, u8)]) -> bool) -> bool {
        let (first, last) =
            (usize::from(!self.begins), self.groups.len() - usize::from(!self.ends));
        // No number of any kind has more groups than digits.
        (first..last).any(|i| (i + 1..=last.min(i + 19)).any(|j| fits(&self.groups[i..j])))
    }

    fn may_be_card(&self) -> bool {
        self.some(|groups| {
            (b'2'..=b'6').contains(&groups[0].1)
                && (12..=19).contains(&groups.iter().map(|g| g.0).sum::<usize>())
        })
    }

    fn may_be_ssn(&self) -> bool {
        self.some(|groups| matches!(groups, [(3, _), (2, _), (4, _)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_searches_find_the_same() {
        let words: Vec<_> = TOKENS
            .into_iter()
            .chain(TELLING)
            .chain([ESCAPE, "bearer", "eyJ", "private key"])
            .map(|word| (word, None))
            .collect();
        let suspects = |search| Prefilter { words: words.clone(), search, on: u16::MAX };
        let (Some(packed), automaton) = (Search::packed(&words), Search::automaton(&words)) else {
            return;
        };
        let (packed, automaton) = (suspects(packed), suspects(automaton));
        let places = |suspects: &Prefilter, text: &str| {
            let mut all = Vec::new();
            suspects
                .search
                .each(&text.to_ascii_lowercase(), |word, start, end| all.push((word, start, end)));
            all
        };
        for (i, (word, _)) in words.iter().enumerate() {
            for text in [
                word.to_string(),
                format!("{}{word}{}", "ab".repeat(i), "-".repeat(i)),
                words[i..].iter().map(|w| w.0).collect(),
            ] {
                assert_eq!(places(&packed, &text), places(&automaton, &text), "{text}");
                assert!(!places(&packed, &text).is_empty());
            }
        }
    }
}
