//! Files of decisions that were copied while they were written: what is whole of their gzip data is read, and the rest told.

use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// A file may not be larger than this once decompressed.
const LIMIT: u64 = 2 << 30;

/// The content of a file, or of standard input for `-`; of gzip that is cut, the lines before the cut.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    super::feed::read(path).or_else(|told| {
        let lines = if path.is_file() { before_the_cut(path) } else { None };
        let lines = lines.ok_or(told)?;
        anstream::eprintln!(
            "{}: its gzip data is cut, as that of a file that was copied while it was written: only what stands before the cut is read; \
            copy it again once it is whole",
            path.display()
        );
        Ok(lines)
    })
}

/// Whole lines of gzip data that ends too early; nothing of what is not cut, or not gzip.
fn before_the_cut(path: &Path) -> Option<Vec<u8>> {
    let file = BufReader::new(std::fs::File::open(path).ok()?);
    let mut plain = Vec::new();
    let ended = MultiGzDecoder::new(file).take(LIMIT).read_to_end(&mut plain);
    if ended.err()?.kind() != ErrorKind::UnexpectedEof {
        return None;
    }
    let whole = memchr::memrchr(b'\n', &plain)? + 1;
    plain.truncate(whole);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(told.contains("cut.ndjson.gz: gzip data can't be read"), "{told}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
