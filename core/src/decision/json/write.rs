//! JSON written.

use super::bits::plain_run;

/// Puts a valid document on one line. Line breaks in it are white space between its parts: inside strings JSON has none.
pub fn one_line(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(n) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) {
        bytes[at + n] = b' ';
        at += n + 1;
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    if plain_run(text.as_bytes()) == text.len() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a string is always written to memory");
    }
}
