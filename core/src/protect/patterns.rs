//! How secrets and personal data look, and what tells them from look-alikes.

use regex::Regex;

#[derive(Debug)]
pub struct Patterns {
    pub authorization: Regex,
    pub jwt: Regex,
    pub private_key: Regex,
    pub aws_key: Regex,
    pub api_token: Regex,
    pub url_password: Regex,
    pub card: Regex,
    pub email: Regex,
    pub iban: Regex,
    pub ssn: Regex,
}

const TOKEN: &str = r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_.-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{20,}|dop_v1_[a-f0-9]{40,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|shpat_[A-Fa-f0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|hvs\.[A-Za-z0-9_-]{20,}|dckr_pat_[A-Za-z0-9_-]{20,}|AGE-SECRET-KEY-1[0-9A-Z]{30,})";

impl Default for Patterns {
    fn default() -> Patterns {
        let regex = |pattern: &str| Regex::new(pattern).expect("the pattern is right");
        Patterns {
            authorization: regex(
                r"(?i)\b(?:bearer|basic|negotiate)[ \t]+([A-Za-z0-9._~+/=:-]{8,})",
            ),
            jwt: regex(r"\beyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){1,4}"),
            private_key: regex(
                r"(?is)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
            ),
            aws_key: regex(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
            api_token: regex(&format!(r"(?:\b|_)({TOKEN})")),
            url_password: regex(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@?#]*:([^/\s@?#]+)@"),
            card: regex(r"\b[2-6](?:[ -]?[0-9]){11,18}\b"),
            email: regex(r"(?i)[a-z0-9._%+'-]+@(?:[a-z0-9-]+\.)+[a-z]{2,24}\b"),
            iban: regex(r"\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}\b"),
            ssn: regex(r"\b[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}\b"),
        }
    }
}

/// Words follow `Bearer`, too.
pub fn is_credential(text: &str) -> bool {
    text.len() >= 24 || text.bytes().any(|b| b.is_ascii_digit()) || text.ends_with('=')
}

pub fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
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
                || matches!(four, 2221..=2720)
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

pub fn is_iban(text: &str) -> bool {
    let bare: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).collect();
    if !(15..=34).contains(&bare.len()) {
        return false;
    }
    let value =
        |b: &u8| if b.is_ascii_digit() { u32::from(b - b'0') } else { u32::from(b - b'A') + 10 };
    bare[4..]
        .iter()
        .chain(&bare[..4])
        .map(value)
        .fold(0, |rest, v| if v < 10 { rest * 10 + v } else { rest * 100 + v } % 97)
        == 1
}

pub fn is_ssn(text: &str) -> bool {
    !(text.starts_with("000")
        || text.starts_with("666")
        || &text[4..6] == "00"
        || text.ends_with("0000"))
}
