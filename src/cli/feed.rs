//! Decision logs from files into Kafka records, for `docket demo FILE`.

use std::io::{ErrorKind, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::Exit;
use crate::decision::formats;
use crate::decision::json;
use crate::decision::reject::Reject;

/// At most so many bytes of lines go into one Kafka record.
const RECORD: usize = 64 << 10;
/// Where the lines go on what stands before, up to so many.
const LONGEST: usize = 8 << 20;
/// A file may not be larger than this once decompressed.
const LIMIT: usize = 2 << 30;

/// The content of a file, or of standard input for `-`, decompressed if it is gzip; of a file that is cut, the lines before the cut. What ends
/// too early in a pipe is an error: who sends it has failed.
pub fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut content = Vec::new();
    super::input(path)?.read_to_end(&mut content).map_err(|e| named(&e))?;
    if let Some(told) = foreign(&content) {
        return Err(named(&told).into());
    }
    if !content.starts_with(&[0x1f, 0x8b]) {
        return Ok(content);
    }
    unzipped(&content).or_else(|told| {
        let lines = if path.is_file() { before_the_cut(&content) } else { None };
        let lines = lines.ok_or_else(|| named(&told.detail))?;
        anstream::eprintln!(
            "{}: its gzip data is cut, as that of a file that was copied while it was written: only what stands before the cut is read; \
            copy it again once it is whole",
            path.display()
        );
        Ok(lines)
    })
}

/// What is no text in UTF-8, and neither gzip: what it is, and how it becomes what docket reads.
pub fn foreign(content: &[u8]) -> Option<String> {
    let (name, makes) = match content {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => {
            ("UTF-16", "iconv -f UTF-16 -t UTF-8 FILE")
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "zstd -dc FILE"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("xz", "xz -dc FILE"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => ("bzip2", "bzip2 -dc FILE"),
        [0x04, 0x22, 0x4d, 0x18, ..] => ("lz4", "lz4 -dc FILE"),
        [b'P', b'K', 3, 4, ..] => ("a zip archive", "unzip -p FILE"),
        _ => return None,
    };
    Some(format!("it is {name}; docket reads text in UTF-8, and gzip:\n  {makes} | docket demo -"))
}

/// Whole lines of gzip data that ends too early; nothing of what is not cut.
fn before_the_cut(content: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let ended = MultiGzDecoder::new(content).take(LIMIT as u64).read_to_end(&mut plain);
    if ended.err()?.kind() != ErrorKind::UnexpectedEof {
        return None;
    }
    let whole = memchr::memrchr(b'\n', &plain)? + 1;
    plain.truncate(whole);
    Some(plain)
}

/// What gzip holds, and what stands behind it.
pub fn unzipped(content: &[u8]) -> Result<Vec<u8>, Reject> {
    let (mut plain, rest) = formats::gunzip(content, LIMIT)?;
    if !rest.is_empty() {
        plain.push(b'\n');
        plain.extend_from_slice(rest);
    }
    Ok(plain)
}

/// Cuts a file into Kafka records: groups of elements of an array or of whole lines, or all of it.
pub fn records(content: &[u8]) -> Vec<&[u8]> {
    let text = json::trim(content);
    match text.first() {
        Some(b'[') => elements(text).unwrap_or_else(|| vec![text]),
        Some(b'{') if json::end_of_value(text, 0) == text.len() => vec![text],
        // OTLP as protobuf has no lines.
        _ if content.first() == Some(&0x0a) && std::str::from_utf8(content).is_err() => {
            vec![content]
        }
        None => Vec::new(),
        Some(_) => lines(text),
    }
}

/// The elements of a whole, valid array; parts of a line stay with its last one.
fn elements(text: &[u8]) -> Option<Vec<&[u8]>> {
    json::check(text).ok()?;
    let valid = std::str::from_utf8(text).ok()?;
    let mut records = Vec::new();
    let mut start = None;
    let mut end = 0;
    for element in json::elements(valid) {
        let at = element.as_ptr() as usize - text.as_ptr() as usize;
        let from = *start.get_or_insert(at);
        end = at + element.len();
        if !formats::is_part(element.as_bytes()) {
            records.push(&text[from..end]);
            start = None;
        }
    }
    records.extend(start.map(|from| &text[from..end]));
    Some(records)
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    let (mut start, mut last) = (0, 0);
    for end in memchr::memchr_iter(b'\n', text).chain([text.len()]) {
        let line = &text[last..end];
        last = (end + 1).min(text.len());
        // A line's parts stay with the last one, and what is printed over several lines stays whole.
        let goes_on = matches!(text.get(last), Some(b' ' | b'\t' | b'}' | b']'));
        let whole = !goes_on || end - start >= LONGEST;
        if end - start >= RECORD && whole && !formats::is_part(line) {
            records.push(&text[start..end]);
            start = last;
        }
    }
    if start < text.len() {
        records.push(&text[start..]);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_where_nothing_is_torn() {
        assert_eq!(records(b" [{\"a\":1}, {\"b\":2}] "), [b"{\"a\":1}", b"{\"b\":2}"]);
        assert_eq!(records(b"{\n\"a\":1\n}"), [b"{\n\"a\":1\n}"]);
        assert!(records(b"  ").is_empty());
        let parts =
            br#"[{"log":"{\"a\":","stream":"stdout"},{"log":"1}\n","stream":"stdout"},{"b":2}]"#;
        let cut = records(parts);
        assert!(
            cut.len() == 2
                && cut[0].ends_with(br#"1}\n","stream":"stdout"}"#)
                && cut[1] == b"{\"b\":2}"
        );
        let line = format!("2026-11-24T12:48:50.000000000Z stdout P {}\n", "x".repeat(40_000));
        let last = format!("2026-11-24T12:48:50.000000000Z stdout F {}\n", "y".repeat(10));
        let text = line.repeat(3) + &last + &last;
        let cut = records(text.as_bytes());
        assert_eq!(cut.len(), 2);
        assert!(cut[0].ends_with(b"yyy") && cut[1].ends_with(b"yyy"));
        assert_eq!(cut.iter().map(|c| c.len() + 1).sum::<usize>(), text.len());
        // As jq prints it.
        let one = format!("{{\n  \"a\": {{\n    \"b\": \"{}\"\n  }}\n}}\n", "x".repeat(30_000));
        let text = one.repeat(9);
        let cut = records(text.as_bytes());
        assert_eq!(cut.len(), 3);
        assert!(cut.iter().all(|c| c.starts_with(b"{\n") && c.ends_with(b"\n}")));
    }

    #[test]
    fn what_is_in_another_form_is_named_with_what_makes_it_readable() {
        let told = |content: &[u8]| foreign(content).unwrap_or_default();
        let wide: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(told(&wide).contains("it is UTF-16; ") && told(&wide).contains("\n  iconv "));
        assert!(told(b"\xff\xfe{\0").contains("UTF-16"));
        assert!(told(b"\x28\xb5\x2f\xfd....").contains("zstd -dc FILE | docket demo -"));
        assert!(told(b"\xfd7zXZ\0....").contains("xz -dc"));
        for own in [&b"{\"a\":1}"[..], b"[]", b"", b"\x1f\x8b\x08", b"\x0a\x00{", b"PKI"] {
            assert_eq!(foreign(own), None);
        }
    }

    #[test]
    fn the_lines_before_a_cut_are_read_and_other_damage_is_told() {
        let folder = std::env::temp_dir().join(format!("docket-cut-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("cut.ndjson.gz");
        let text: String = (0..20_000_u64)
            .map(|i| {
                format!("{{\"decision_id\":\"{:x}\"}}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            })
            .collect();
        let mut zipped = crate::gzip::gzip(text.as_bytes());
        std::fs::write(&path, &zipped[..zipped.len() / 2]).unwrap();
        let lines = read(&path).unwrap();
        assert!(lines.len() > 1000 && text.as_bytes().starts_with(&lines));
        assert_eq!(lines.last(), Some(&b'\n'));
        let middle = zipped.len() / 2;
        zipped[middle..middle + 64].fill(0xff);
        std::fs::write(&path, &zipped).unwrap();
        let told = read(&path).unwrap_err();
        assert!(told.told.contains("cut.ndjson.gz: gzip data can't be read"), "{told}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
