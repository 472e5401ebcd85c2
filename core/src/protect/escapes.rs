//! Escapes in text that is not JSON: `\u0022` and `\x22`, `&quot;` and `&#34;`, and text in hexadecimal.
//! What is changed inside is written again as it was.

use super::changed::Changed;

/// Looks into what an escape stands for, and answers with what is to stand there instead, if it is to change.
type Look<'l> = &'l mut dyn FnMut(&str) -> Option<String>;

/// The shortest hexadecimal text that is opened: `password=x`.
const SHORTEST_HEX: usize = 20;

/// The longest entity: `&#x1F600;`.
const LONGEST_ENTITY: usize = 10;

/// `\u0022`, `\x22`.
pub fn backslashes(text: &str, look: Look<'_>) -> Option<String> {
    let bytes = text.as_bytes();
    memchr::memmem::find(bytes, b"\\u").or_else(|| memchr::memmem::find(bytes, b"\\x"))?;
    inside(text, b'\\', backslash, look)
}

/// `&quot;`, `&#34;`.
pub fn entities(text: &str, look: Look<'_>) -> Option<String> {
    if !has_entity(text.as_bytes()) {
        return None;
    }
    inside(text, b'&', entity, look)
}

/// A character that is written otherwise at the beginning of a text, and how long that is.
type Read = fn(&str) -> Option<(char, usize)>;

fn inside(text: &str, begin: u8, read: Read, look: Look<'_>) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut written: Vec<(char, &str)> = Vec::new();
    let mut end = 0;
    for at in memchr::memchr_iter(begin, text.as_bytes()) {
        if at < end {
            continue;
        }
        let Some((c, length)) = read(&text[at..]) else { continue };
        plain.push_str(&text[end..at]);
        plain.push(c);
        end = at + length;
        // Letters need no escape, whoever wrote them with one.
        if !c.is_ascii_alphanumeric() && written.iter().all(|(known, _)| *known != c) {
            written.push((c, &text[at..end]));
        }
    }
    if end == 0 {
        return None;
    }
    plain.push_str(&text[end..]);
    let new = look(&plain)?;
    let mut out = String::with_capacity(new.len());
    for c in new.chars() {
        match written.iter().find(|(known, _)| *known == c) {
            Some((_, escape)) => out.push_str(escape),
            None => out.push(c),
        }
    }
    Some(out)
}

fn backslash(text: &str) -> Option<(char, usize)> {
    let (from, to) = match text.as_bytes().get(1)? {
        b'u' => (2, 6),
        b'x' => (2, 4),
        _ => return None,
    };
    let code = u32::from_str_radix(text.get(from..to)?, 16).ok()?;
    Some((char::from_u32(code)?, to))
}

fn entity(text: &str) -> Option<(char, usize)> {
    let near = &text.as_bytes()[..text.len().min(LONGEST_ENTITY)];
    let end = memchr::memchr(b';', near)?;
    let name = &text[1..end];
    let c = match name {
        "quot" => '"',
        "apos" => '\'',
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "nbsp" => '\u{a0}',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    };
    Some((c, end + 1))
}

/// Whether there may be an entity in a text, or in JSON that holds it.
pub fn has_entity(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b';', bytes).any(|end| {
        let near = &bytes[end.saturating_sub(LONGEST_ENTITY)..end];
        let name = near.iter().rev().take_while(|b| b.is_ascii_alphanumeric() || **b == b'#');
        let begin = end - name.count();
        let is_named = |name: &[u8]| {
            matches!(name, b"quot" | b"apos" | b"amp" | b"lt" | b"gt" | b"nbsp")
                || name.first() == Some(&b'#')
        };
        // As Go's encoder writes it: \u0026quot;
        let after = |at: usize| bytes.get(at..end).is_some_and(is_named);
        begin > 0
            && (bytes[begin - 1] == b'&' && after(begin)
                || bytes[begin..end].starts_with(b"u0026") && after(begin + 5))
    })
}

// --- hexadecimal

fn is_written(b: u8) -> bool {
    matches!(b, b' '..=b'~' | b'\t' | b'\n' | b'\r')
}

fn byte(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    Some((digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?) as u8)
}

/// Whether text in hexadecimal may begin a run.
pub fn may_be_hex(run: &[u8]) -> bool {
    run.len() >= SHORTEST_HEX
        && run.chunks_exact(2).take(SHORTEST_HEX / 2).all(|pair| byte(pair).is_some_and(is_written))
}

/// Where text in hexadecimal may begin in a run of letters and digits: `0x7b22..`, `id-7b22..`.
pub fn may_have_hex(run: &[u8]) -> bool {
    if may_be_hex(run) {
        return true;
    }
    let apart = |b: &u8| matches!(b, b'x' | b'X' | b'-' | b'_' | b'/' | b'+');
    run.len() > SHORTEST_HEX
        && run.iter().enumerate().any(|(i, b)| apart(b) && may_be_hex(&run[i + 1..]))
}

pub fn hexadecimal(text: &str, look: Look<'_>) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Changed::default();
    let mut at = 0;
    while let Some(next) = bytes.get(at..)?.iter().position(u8::is_ascii_hexdigit) {
        let start = at + next;
        let length = bytes[start..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
        at = start + length;
        let run = &bytes[start..at - length % 2];
        if !may_be_hex(run) {
            continue;
        }
        let decoded: Option<Vec<u8>> = run.chunks_exact(2).map(byte).collect();
        if let Some(inner) = decoded.and_then(|bytes| String::from_utf8(bytes).ok())
            && let Some(new) = look(&inner)
        {
            let is_upper = run.iter().any(u8::is_ascii_uppercase);
            let hex = |b: u8| if is_upper { format!("{b:02X}") } else { format!("{b:02x}") };
            out.put(text, start..start + run.len(), &new.bytes().map(hex).collect::<String>());
        }
    }
    out.end(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_told_from_other_semicolons() {
        for text in ["&quot;a", "x&#34;y&#x22;", "\\u0026lt;b"] {
            assert!(has_entity(text.as_bytes()), "{text}");
        }
        for text in ["a;b", "text/html; q=0.8;", "&a=1;", "&&;", ";", "(X11; Linux)"] {
            assert!(!has_entity(text.as_bytes()), "{text}");
        }
        assert_eq!(entity("&#x22;"), Some(('"', 6)));
        assert_eq!(entity("&#34;"), Some(('"', 5)));
        assert_eq!(entity("&none;"), None);
    }

    #[test]
    fn hexadecimal_text_is_told_from_hashes() {
        assert!(may_have_hex(b"7b2270617373776f7264223a2278227d"));
        assert!(may_have_hex(b"0x7B2270617373776F7264223A2278227D"));
        assert!(!may_have_hex(b"2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"));
        assert!(!may_have_hex(b"550e8400-e29b-41d4-a716-446655440000"));
    }
}
