//! How secrets and personal data look, and what tells them from look-alikes.

use std::ops::Range;

use base64::Engine;
use regex::Regex;

use super::detector::Detector;
use super::{addresses, makers};
use crate::decision::base64::BASE64;

#[derive(Debug)]
pub struct Patterns {
    authorization: Regex,
    jwt: Regex,
    private_key: Regex,
    aws_key: Regex,
    api_token: Regex,
    within: Regex,
    url_password: Regex,
    dsn_password: Regex,
    email: Regex,
    iban: Regex,
    digits: Regex,
    ssn: Regex,
}

impl Default for Patterns {
    fn default() -> Patterns {
        let regex = |pattern: &str| Regex::new(pattern).expect("the pattern is right");
        Patterns {
            authorization: regex(
                r"(?i)\b(bearer|basic|negotiate|ntlm)[ \t]+([A-Za-z0-9._~+/=:-]{4,})",
            ),
            jwt: regex(r"\beyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){1,4}"),
            private_key: regex(
                r"(?is)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
            ),
            aws_key: regex(&makers::pattern(Detector::AwsKey)),
            api_token: regex(&makers::pattern(Detector::ApiToken)),
            // Microsoft Entra's, and a Telegram bot's.
            within: regex(
                r"\b(?:[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}|[0-9]{8,10}:AA[A-Za-z0-9_-]{32,34})",
            ),
            // The password ends at the last @ before the path: there may be one in it.
            url_password: regex(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@?#]*:([^/\s?#]+)@"),
            // What is no URL: Go's DSN for MySQL, Oracle's.
            dsn_password: regex(
                r"[A-Za-z0-9_.-]+:([^\s:@/]+)@(?:tcp|udp|unix)\(|\bjdbc:oracle:[a-z0-9]+:[^\s/@:]+/([^\s/@]+)@",
            ),
            email: regex(r"(?i)[a-z0-9._%+'-]+@(?:[a-z0-9-]+\.)+[a-z]{2,24}\b"),
            iban: regex(r"\b(?:[A-Z]{2}|[a-z]{2})[0-9]{2}"),
            digits: regex(&format!("[0-9](?:[{SEPARATORS}]?[0-9]){{11,}}")),
            ssn: regex(r"\b[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}\b"),
        }
    }
}

/// Detectors that find by how something looks, in the order in which they look.
pub const LOOKING: [Detector; 10] = {
    use Detector::*;
    [PrivateKey, Jwt, ApiToken, AwsKey, Authorization, UrlPassword, Iban, Card, Ssn, Email]
};

impl Patterns {
    /// Where a detector's finds are in a text, in their order, none within another.
    pub fn find(&self, detector: Detector, text: &str) -> Vec<Range<usize>> {
        let all = |regex: &Regex| regex.find_iter(text).map(|m| m.range()).collect();
        let first = |regex: &Regex, is: fn(&str) -> bool| {
            let group = regex.captures_iter(text).filter_map(|c| c.get(1));
            group.filter(|m| is(m.as_str())).map(|m| m.range()).collect()
        };
        match detector {
            Detector::Named => Vec::new(),
            Detector::PrivateKey => all(&self.private_key),
            Detector::Jwt => all(&self.jwt),
            Detector::ApiToken => {
                let mut found: Vec<Range<usize>> = first(&self.api_token, makers::is_token);
                if found.is_empty() {
                    found = all(&self.within);
                }
                found
            }
            Detector::AwsKey => first(&self.aws_key, |_| true),
            Detector::Authorization => self.credentials(text),
            Detector::UrlPassword => {
                let found: Vec<Range<usize>> = first(&self.url_password, |_| true);
                if !found.is_empty() {
                    return found;
                }
                let dsns = self.dsn_password.captures_iter(text);
                dsns.filter_map(|c| c.get(1).or(c.get(2))).map(|m| m.range()).collect()
            }
            Detector::Iban => self.ibans(text),
            Detector::Card => self.cards(text),
            Detector::Ssn => {
                self.ssn.find_iter(text).filter(|m| is_ssn(m.as_str())).map(|m| m.range()).collect()
            }
            Detector::Email => {
                let found = self.email.find_iter(text).map(|m| m.range());
                found.filter(|range| addresses::is_person_s(text, range)).collect()
            }
        }
    }

    fn credentials(&self, text: &str) -> Vec<Range<usize>> {
        let found = self.authorization.captures_iter(text).filter_map(|captures| {
            let (scheme, credential) = (captures.get(1)?, captures.get(2)?);
            let is_all = scheme.start() == 0 && credential.end() == text.len();
            is_credential(scheme.as_str(), credential.as_str(), is_all).then(|| credential.range())
        });
        found.collect()
    }

    /// Card numbers among other numbers: `2 4111111111111111 12/29 737`.
    fn cards(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for run in self.digits.find_iter(text) {
            let groups = groups(text, run.range());
            let mut at = 0;
            while at < groups.len() {
                let longest = (at + 1..=groups.len().min(at + 5)).rev();
                let card = longest
                    .map(|end| (end, groups[at].start..groups[end - 1].end))
                    .filter(|(end, range)| is_grouped(&groups[at..*end], &text[range.clone()]))
                    .find(|(_, range)| stands_apart(text, range) && is_card(&text[range.clone()]));
                match card {
                    Some((end, range)) => {
                        found.push(range);
                        at = end;
                    }
                    None => at += 1,
                }
            }
        }
        found
    }

    /// Account numbers, whatever words follow them: a country's have one length.
    fn ibans(&self, text: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for begins in self.iban.find_iter(text) {
            if found.last().is_some_and(|last| begins.start() < last.end) {
                continue;
            }
            let country = begins.as_str()[..2].to_ascii_uppercase();
            let Some(length) = iban_length(&country) else { continue };
            let is_lower = begins.as_str().starts_with(|c: char| c.is_ascii_lowercase());
            let (mut end, mut count, mut digits) = (begins.start(), 0, 0);
            let mut after_separator = true;
            for (at, c) in text[begins.start()..].char_indices() {
                if count == length {
                    break;
                }
                if c.is_ascii_digit()
                    || (c.is_ascii_lowercase() && is_lower)
                    || (c.is_ascii_uppercase() && !is_lower)
                {
                    count += 1;
                    digits += usize::from(c.is_ascii_digit());
                    after_separator = false;
                } else if is_separator(c) && !after_separator {
                    after_separator = true;
                } else {
                    break;
                }
                end = begins.start() + at + c.len_utf8();
            }
            let range = begins.start()..end;
            // In lower case there are words, too.
            let is_enough = !is_lower || digits >= 10;
            if count == length
                && is_enough
                && stands_apart(text, &range)
                && is_iban(&text[range.clone()].to_ascii_uppercase())
            {
                found.push(range);
            }
        }
        found
    }
}

/// What stands between groups of digits, in a class of a regular expression.
const SEPARATORS: &str =
    " +.\u{a0}\u{b7}\u{2000}-\u{200a}\u{2010}-\u{2015}\u{202f}\u{205f}\u{3000}-";

fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '+' | '.' | '\u{a0}' | '\u{b7}' | '\u{2000}'..='\u{200a}')
        || matches!(c, '\u{2010}'..='\u{2015}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// Groups of digits between what separates them.
fn groups(text: &str, run: Range<usize>) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = run.start;
    for (i, b) in text.as_bytes()[run.clone()].iter().enumerate() {
        if !b.is_ascii_digit() {
            groups.push(start..run.start + i);
            start = run.start + i + 1;
        }
    }
    groups.push(start..run.end);
    // Some separators are several bytes.
    groups.retain(|group| !group.is_empty());
    groups
}

/// Whether a card's number is written so: in one, or in groups of three to seven, the last one shorter.
/// Other numbers have dots in them: between those, groups are as on cards.
fn is_grouped(groups: &[Range<usize>], text: &str) -> bool {
    let Some((last, before)) = groups.split_last() else { return false };
    if before.is_empty() {
        return true;
    }
    if text.contains('.') {
        let lengths: Vec<usize> = groups.iter().map(ExactSizeIterator::len).collect();
        return matches!(lengths[..], [4, 4, 4, 4] | [4, 6, 5] | [4, 6, 4] | [4, 4, 4, 4, 3]);
    }
    before.iter().all(|g| (3..=7).contains(&g.len())) && (1..=7).contains(&last.len())
}

fn stands_apart(text: &str, range: &Range<usize>) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..range.start].chars().next_back().is_some_and(word)
        && !text[range.end..].chars().next().is_some_and(word)
}

/// Words follow `Bearer`, too.
fn is_credential(scheme: &str, text: &str, is_all: bool) -> bool {
    // A challenge's parameters: WWW-Authenticate: Bearer realm="x".
    let lower = text.to_ascii_lowercase();
    if [
        "realm=",
        "scope=",
        "error=",
        "charset=",
        "title=",
        "authorization_uri=",
        "resource_metadata=",
    ]
    .iter()
    .any(|parameter| lower.starts_with(parameter))
    {
        return false;
    }
    let has_digit = text.bytes().any(|b| b.is_ascii_digit());
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = BASE64.decode(text.trim_end_matches('=')).is_ok_and(|b| b.contains(&b':'));
        let is_base64 = text.bytes().all(|b| !matches!(b, b'.' | b':' | b'~'));
        return pair || (is_base64 && text.len() >= 8 && (has_digit || text.len() >= 24));
    }
    let is_mixed = text.bytes().skip(1).any(|b| b.is_ascii_uppercase())
        && text.bytes().any(|b| b.is_ascii_lowercase());
    let is_word = || {
        ["token", "auth", "scheme", "realm", "error", "only", "required", "format"]
            .iter()
            .any(|word| text.to_ascii_lowercase().starts_with(word))
    };
    text.len() >= 24
        || (text.len() >= 4 && has_digit)
        || text.ends_with('=')
        || (text.len() >= 8 && is_mixed)
        || (is_all && !is_word())
}

fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    if !(13..=19).contains(&digits.len()) {
        return false;
    }
    let number = |n: usize| digits[..n].iter().fold(0, |sum, d| sum * 10 + d);
    // Issuers' ranges, with how long their numbers are.
    let (two, three, four) = (number(2), number(3), number(4));
    let known = match digits.len() {
        13 => digits[0] == 4,
        14 => matches!(three, 300..=305) || matches!(two, 36 | 38 | 39),
        15 => matches!(two, 34 | 37),
        16 => {
            digits[0] == 4
                || matches!(two, 51..=55 | 35 | 65 | 60 | 62)
                || matches!(four, 2200..=2204 | 2221..=2720)
                || matches!(three, 644..=649)
        }
        19 => digits[0] == 4 || matches!(two, 62 | 65 | 60),
        _ => false,
    };
    let luhn = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| if i % 2 == 1 { d * 2 % 10 + d * 2 / 10 } else { *d })
        .sum::<u32>();
    known && luhn % 10 == 0
}

/// How long a country's account numbers are: the IBAN registry of ISO 13616.
pub fn iban_length(country: &str) -> Option<usize> {
    Some(match country {
        "NO" => 15,
        "BE" => 16,
        "DK" | "FI" | "FK" | "FO" | "GL" | "NL" | "SD" => 18,
        "MK" | "SI" => 19,
        "AT" | "BA" | "EE" | "KZ" | "LT" | "LU" | "MN" | "XK" => 20,
        "CH" | "CR" | "HR" | "LI" | "LV" => 21,
        "BG" | "BH" | "DE" | "GB" | "GE" | "IE" | "ME" | "RS" | "VA" => 22,
        "AE" | "GI" | "IL" | "IQ" | "OM" | "SO" | "TL" => 23,
        "AD" | "CZ" | "ES" | "MD" | "PK" | "RO" | "SA" | "SE" | "SK" | "TN" | "VG" => 24,
        "LY" | "PT" | "ST" => 25,
        "IS" | "TR" => 26,
        "BI" | "DJ" | "FR" | "GR" | "IT" | "MC" | "MR" | "SM" => 27,
        "AL" | "AZ" | "BY" | "CY" | "DO" | "GT" | "HN" | "HU" | "LB" | "NI" | "PL" | "SV" => 28,
        "BR" | "EG" | "PS" | "QA" | "UA" => 29,
        "JO" | "KW" | "MU" | "YE" => 30,
        "MT" | "SC" => 31,
        "LC" => 32,
        "RU" => 33,
        _ => return None,
    })
}

fn is_iban(text: &str) -> bool {
    let bare: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).collect();
    let value =
        |b: &u8| if b.is_ascii_digit() { u32::from(b - b'0') } else { u32::from(b - b'A') + 10 };
    bare[4..]
        .iter()
        .chain(&bare[..4])
        .map(value)
        .fold(0, |rest, v| if v < 10 { rest * 10 + v } else { rest * 100 + v } % 97)
        == 1
}

fn is_ssn(text: &str) -> bool {
    !(text.starts_with("000")
        || text.starts_with("666")
        || &text[4..6] == "00"
        || text.ends_with("0000"))
}
