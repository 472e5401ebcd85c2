//! Which detectors may find something in a text: one quick pass, which may suspect too much, and never too little.

use aho_corasick::packed::{self, MatchKind};
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use memchr::memmem;

use super::detector::Detector;
use super::names::{self, Told};
use super::patterns::iban_length;
use super::{commands, encoded, makers};

/// How escapes begin that may stand for any of their characters: two hexadecimal digits follow.
const ESCAPES: [&str; 2] = ["\\u00", "\\x"];

/// What stands before a password in SQL.
const IDENTIFIED: &str = "identified";

/// What says of others that they are secrets: Terraform's `after_sensitive`, `"sensitive": true`.
const SENSITIVE: &str = "sensitive";

/// The bit of what has to be decoded to be seen.
const ENCODED: u16 = 1 << 15;

#[derive(Debug)]
pub struct Prefilter {
    /// What finds begin with or hold, as it is written, and the detector of each; none for an escape.
    words: Vec<(&'static str, Option<Detector>)>,
    search: Search,
    /// Beginnings of tokens.
    tokens: Tokens,
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
        let mut words = ESCAPES.map(|escape| (escape, None)).to_vec();
        let mut on = 0;
        let mut tokens = Vec::new();
        for detector in detectors {
            on |= detector.bit();
            if detector == Detector::Jwt {
                tokens.push(("eyJ", detector.bit()));
            }
            let its: &[&'static str] = match detector {
                Detector::Named => &names::WORDS,
                Detector::Authorization => &["bearer", "basic", "negotiate", "ntlm"],
                Detector::PrivateKey => &["private key"],
                _ => &[],
            };
            words.extend(its.iter().map(|word| (*word, Some(detector))));
            if detector == Detector::Named {
                words.extend([(IDENTIFIED, Some(detector)), (SENSITIVE, Some(detector))]);
            }
            tokens.extend(makers::begins(detector).map(|begins| (begins, detector.bit())));
        }
        if on != 0 {
            on |= ENCODED;
        }
        let search = Search::packed(&words).unwrap_or_else(|| Search::automaton(&words));
        Prefilter { words, search, tokens: Tokens::new(tokens), on }
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
            let (_, mut detector) = self.words[word];
            // {"bearer":"x"}
            if detector == Some(Detector::Authorization) && !may_be_followed(bytes, end) {
                detector = Some(Detector::Named);
            }
            let bit = detector.map_or(u16::MAX, Detector::bit);
            let may_be = match detector {
                _ if bits & bit == bit => false,
                None => hides(bytes, end),
                Some(Detector::Named) => {
                    [IDENTIFIED, SENSITIVE].contains(&self.words[word].0)
                        || is_in_telling_name(text, start, end)
                }
                Some(Detector::Authorization) => begins(bytes, start),
                Some(_) => true,
            };
            if may_be {
                bits |= bit;
            }
        };
        self.search.each(lower, found);
        bits |= self.tokens.find(bytes);
        if bits & ENCODED == 0 && encoded::may_be_in(bytes) {
            bits |= ENCODED;
        }
        if bits & Detector::Named.bit() == 0 && (commands::may_have(bytes) || has_foreign(bytes)) {
            bits |= Detector::Named.bit();
        }
        if makers::WITHIN.iter().any(|within| memmem::find(bytes, within.as_bytes()).is_some()) {
            bits |= Detector::ApiToken.bit();
        }
        if memchr::memchr(b'@', bytes).is_some() {
            bits |= Detector::Email.bit() | Detector::UrlPassword.bit();
        }
        (bits | numbers(bytes)) & self.on
    }
}

/// Beginnings of tokens, looked for where words begin. They are too many to be searched for together
/// with what names tell by.
#[derive(Debug)]
struct Tokens {
    /// By first byte, and which second ones there are, as bits of what is left by 64.
    second: Box<[[u64; 4]; 256]>,
    /// By first byte, which of all.
    range: Box<[(u8, u8); 256]>,
    all: Vec<(&'static str, u16)>,
}

impl Tokens {
    fn new(mut all: Vec<(&'static str, u16)>) -> Tokens {
        all.sort_unstable();
        let mut second = Box::new([[0u64; 4]; 256]);
        let mut range = Box::new([(0, 0); 256]);
        for (i, (begins, _)) in all.iter().enumerate() {
            if let [first, next, ..] = begins.as_bytes() {
                let first = usize::from(*first);
                second[first][usize::from(next / 64)] |= 1 << (next % 64);
                if range[first].1 == 0 {
                    range[first].0 = i as u8;
                }
                range[first].1 = i as u8 + 1;
            }
        }
        Tokens { second, range, all }
    }

    /// The detectors whose tokens may begin in a text, as bits.
    fn find(&self, bytes: &[u8]) -> u16 {
        if self.all.is_empty() {
            return 0;
        }
        let mut bits = 0;
        let mut in_word = false;
        for (at, pair) in bytes.windows(2).enumerate() {
            let is_word = OF_WORDS[usize::from(pair[0])];
            if is_word && !in_word {
                bits |= self.at(bytes, at, pair);
            }
            in_word = is_word;
        }
        // After an escape: \n, \u0026.
        for at in memchr::memchr_iter(b'\\', bytes) {
            for begin in [at + 2, at + 6] {
                if let Some(pair) = bytes.get(begin..begin + 2) {
                    bits |= self.at(bytes, begin, pair);
                }
            }
        }
        bits
    }

    fn at(&self, bytes: &[u8], at: usize, pair: &[u8]) -> u16 {
        let second = &self.second[usize::from(pair[0])];
        if second[usize::from(pair[1] / 64)] >> (pair[1] % 64) & 1 == 0 {
            return 0;
        }
        let (from, to) = self.range[usize::from(pair[0])];
        let all = &self.all[usize::from(from)..usize::from(to)];
        let found = all.iter().filter(|(begins, _)| bytes[at..].starts_with(begins.as_bytes()));
        found.fold(0, |bits, (_, bit)| bits | bit)
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

/// Whether a scheme's credential may follow.
fn may_be_followed(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|b| b" \t\\+%".contains(b))
}

/// Whether escapes stand there in which names in other languages may be.
fn has_foreign(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', bytes).any(|at| {
        let is = |escape: &&str| {
            let there = bytes.get(at + 1..at + 1 + escape.len());
            there.is_some_and(|there| there.eq_ignore_ascii_case(escape.as_bytes()))
        };
        names::ESCAPED.iter().any(is)
    })
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

/// Bytes of names, as they stand in JSON, forms, headers and programs.
fn is_of_name(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || b"_-.$[] %".contains(b) || *b >= 0x80
}

/// How far a name is followed, both ways.
const NEAR: usize = 64;

/// Whether what is at a place is in a name that tells, and a value may follow: the name of a member, of a
/// pair in a form, or a text that names a value beside it.
fn is_in_telling_name(text: &str, start: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    if is_followed(text, start, end) {
        return true;
    }
    let rest = &bytes[end..bytes.len().min(end + NEAR)];
    let name_end = end + rest.iter().take_while(|b| is_of_name(b)).count();
    // Quotes, and what escapes them, in whatever depth.
    let mut after = bytes[name_end..]
        .iter()
        .skip_while(|b| matches!(b, b'\\' | b'"' | b'\''))
        .skip_while(|b| b.is_ascii_whitespace());
    let follows = match after.next() {
        Some(b':' | b'=' | b'!') => {
            let value =
                after.find(|b| !b.is_ascii_whitespace() && !matches!(b, b'\\' | b'>' | b'='));
            !matches!(value, None | Some(b't' | b'f' | b'n' | b'}')) || bytes[name_end] != b'"'
        }
        // {"name":"password","value":"x"}
        Some(b',' | b'}' | b']') => matches!(bytes.get(name_end), Some(b'"' | b'\\')),
        // <password>, name="password" of multipart/form-data, <key>password</key>, value="x" key="password"/>.
        Some(b'>' | b'<' | b'/') => true,
        // name="csrf_token" value="x"
        Some(b'v' | b'c' | b't') => true,
        _ if ends_yaml(bytes, start, name_end) => true,
        _ => {
            let next = &bytes[name_end..bytes.len().min(name_end + 8)];
            next.contains(&b'"')
                && (next.contains(&b'\n')
                    || next.windows(2).any(|pair| matches!(pair, [b'\\', b'n' | b'r'])))
        }
    };
    if !follows {
        return false;
    }
    let near = start.saturating_sub(NEAR);
    let length = bytes[near..start].iter().rev().take_while(|b| is_of_name(b)).count();
    // Of a long one, the beginning may be cut within a character.
    let name = String::from_utf8_lossy(&bytes[start - length..name_end]);
    let tells = |name: &str| names::told(name) != Told::Nothing;
    // In prose it is the last word.
    if tells(&name) || name.rsplit_once(' ').is_some_and(|(_, last)| tells(last)) {
        return true;
    }
    // After an escape that is no part of the name: \n, \u0026.
    let is_escaped = start > length && bytes[start - length - 1] == b'\\';
    let rest = name.get(1..).unwrap_or_default();
    is_escaped && (tells(rest) || rest.get(4..).is_some_and(tells))
}

/// Whether a name is all of a value in YAML, as it is written or in JSON: `- name: API_TOKEN`, `kind: Secret`.
fn ends_yaml(bytes: &[u8], start: usize, end: usize) -> bool {
    let escapes = bytes[end..].iter().take_while(|b| **b == b'\\').count();
    let after = bytes.get(end + escapes);
    let ends = match escapes {
        0 => matches!(after, Some(b'\n' | b'\r')),
        _ => matches!(after, Some(b'n' | b'r')),
    };
    ends && bytes[..start].iter().rev().take(NEAR).find(|b| !is_of_name(b)) == Some(&b':')
}

/// Whether what is at a place is in a name that a value follows without more: `--password x`,
/// `PASSWORD 'x'`, `login bot password x`.
fn is_followed(text: &str, start: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    let is_of_word = |b: &u8| is_of_name(b) && *b != b' ';
    let word_end = end + bytes[end..].iter().take(NEAR).take_while(|b| is_of_word(b)).count();
    if !matches!(bytes.get(word_end), Some(b' ' | b'\\' | b',')) {
        return false;
    }
    let near = &bytes[start.saturating_sub(NEAR)..start];
    let before = near.iter().rev().take_while(|b| is_of_word(b)).count();
    let word = String::from_utf8_lossy(&bytes[start - before..word_end]);
    let is_quoted = bytes[word_end..].iter().find(|b| !matches!(b, b' ' | b'\\')) == Some(&b'\'');
    // After an escape that is no part of it: \n.
    let flag = word.find('-').filter(|at| *at < 6).map(|at| &word[at..]);
    let tells = |word: &str| names::told(word) != Told::Nothing;
    flag.is_some_and(tells)
        || (is_quoted || memmem::find(near, b"login ").is_some()) && tells(&word)
}

/// The shortest number that is looked for: that of social security.
const SHORTEST: usize = 11;

/// What stands in numbers: with what separates groups, and its escapes.
const OF_NUMBERS: [bool; 256] = {
    let mut all = [false; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        all[b] = byte.is_ascii_digit()
            || byte.is_ascii_uppercase()
            || matches!(byte, b' ' | b'-' | b'+' | b'.' | b'\\' | b'u' | b'a' | b'f')
            || byte >= 0x80;
        b += 1;
    }
    all
};

/// Letters and digits.
const OF_WORDS: [bool; 256] = {
    let mut all = [false; 256];
    let mut b = 0;
    while b < 256 {
        all[b] = (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    all
};

/// Runs of digits that may be a card, an account or a social security number.
fn numbers(bytes: &[u8]) -> u16 {
    let is_part = |b: &u8| OF_NUMBERS[usize::from(*b)];
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
        let run = Groups::of(bytes, at);
        if run.digits >= 9 {
            if run.digits >= 13 && run.may_be_card() {
                bits |= Detector::Card.bit();
            }
            if run.may_be_ssn() {
                bits |= Detector::Ssn.bit();
            }
        }
        if may_be_iban(bytes, at, run.digits) {
            bits |= Detector::Iban.bit();
        }
        at = run.end;
    }
    bits
}

/// How long what separates groups of digits is at a place: spaces of all widths, dashes and dots, as they
/// are and as JSON's escapes.
fn separator(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..) {
        Some([b' ' | b'-' | b'.' | b'+', ..]) => 1,
        Some([0xC2, 0xA0 | 0xB7, ..]) => 2,
        Some([0xE2, 0x80, 0x80..=0x8A | 0x90..=0x95 | 0xAF, ..])
        | Some([0xE2, 0x81, 0x9F, ..])
        | Some([0xE3, 0x80, 0x80, ..]) => 3,
        Some(rest @ [b'\\', ..]) => {
            let slashes = rest.iter().take_while(|b| **b == b'\\').count();
            let escape = rest.get(slashes..slashes + 5).unwrap_or_default();
            let is_one = [
                "u00a0", "u00b7", "u2000", "u2001", "u2002", "u2003", "u2004", "u2005", "u2006",
                "u2007", "u2008", "u2009", "u200a", "u2010", "u2011", "u2012", "u2013", "u2014",
                "u2015", "u202f", "u205f", "u3000",
            ]
            .iter()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(escape));
            if is_one { slashes + 5 } else { 0 }
        }
        _ => 0,
    }
}

/// Whether an account number may have these digits: two letters of a country and two digits stand at its
/// beginning, here or a few characters before.
fn may_be_iban(bytes: &[u8], at: usize, digits: usize) -> bool {
    let begins_at = |start: usize| {
        let Some([a, b, c, d, ..]) = bytes.get(start..) else { return false };
        let is_upper = a.is_ascii_uppercase() && b.is_ascii_uppercase();
        let is_country = || {
            let country = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
            std::str::from_utf8(&country).is_ok_and(|country| iban_length(country).is_some())
        };
        // In lower case words and ids begin so, too.
        c.is_ascii_digit()
            && d.is_ascii_digit()
            && (is_upper || (a.is_ascii_lowercase() && b.is_ascii_lowercase() && digits >= 6))
            && begins(bytes, start)
            && is_country()
    };
    let far = if digits >= 6 { 14 } else { 2 };
    (2..=far).filter_map(|back| at.checked_sub(back)).any(begins_at)
}

/// Digits with single separators between them, in their groups.
struct Groups {
    end: usize,
    digits: usize,
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
    fn of(bytes: &[u8], start: usize) -> Groups {
        let (mut end, mut digits, mut groups) = (start, 0, Vec::new());
        loop {
            let length = bytes[end..].iter().take_while(|b| b.is_ascii_digit()).count();
            groups.push((length, bytes[end]));
            digits += length;
            end += length;
            let between = separator(bytes, end);
            if between == 0 || !bytes.get(end + between).is_some_and(u8::is_ascii_digit) {
                break;
            }
            end += between;
        }
        Groups {
            end,
            digits,
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
                && matches!(groups.iter().map(|g| g.0).sum::<usize>(), 13..=16 | 19)
        })
    }

    fn may_be_ssn(&self) -> bool {
        self.some(|groups| matches!(groups, [(3, _), (2, _), (4, _)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::detector::ALL;
    use super::*;

    #[test]
    fn both_searches_find_the_same() {
        let words = Prefilter::new(ALL.into_iter()).words;
        let (Some(packed), automaton) = (Search::packed(&words), Search::automaton(&words)) else {
            // Only some processors have the search; where one has, the words must fit it.
            #[cfg(target_arch = "x86_64")]
            let has = std::is_x86_feature_detected!("avx2");
            #[cfg(not(target_arch = "x86_64"))]
            let has = false;
            assert!(!has, "they are more than the processor's search takes");
            return;
        };
        let places = |search: &Search, text: &str| {
            let mut all = Vec::new();
            search
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
