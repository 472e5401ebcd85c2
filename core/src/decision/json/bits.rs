//! Eight bytes at a time: where a string's plain run ends.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that is zero; bits above the first such byte may be wrong.
#[inline]
fn zero_byte(v: u64) -> u64 {
    v.wrapping_sub(ONES) & !v & HIGH
}

/// How many bytes from the start are neither a quote, a backslash nor a control character: eight at a time.
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    let mut n = 0;
    for chunk in bytes.chunks_exact(8) {
        let v = u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes"));
        let stop = zero_byte(v ^ (ONES * b'"' as u64))
            | zero_byte(v ^ (ONES * b'\\' as u64))
            | (v.wrapping_sub(ONES * 0x20) & !v & HIGH);
        if stop != 0 {
            return n + (stop.trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + bytes[n..].iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count()
}

/// How many bytes stand before the first quote or backslash: eight at a time, since most strings are short.
#[inline]
pub(super) fn quote_or_escape(bytes: &[u8]) -> usize {
    let mut n = 0;
    for chunk in bytes.chunks_exact(8) {
        let v = u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes"));
        let stop = zero_byte(v ^ (ONES * b'"' as u64)) | zero_byte(v ^ (ONES * b'\\' as u64));
        if stop != 0 {
            return n + (stop.trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + bytes[n..].iter().take_while(|b| !matches!(b, b'"' | b'\\')).count()
}

/// Whether there is a backslash. Most names and values are short, and for these a call costs more than a look at each word.
#[inline]
pub(super) fn has_escape(bytes: &[u8]) -> bool {
    if bytes.len() >= 64 {
        return memchr::memchr(b'\\', bytes).is_some();
    }
    let is_in = |word: &[u8; 8]| zero_byte(u64::from_le_bytes(*word) ^ (ONES * b'\\' as u64)) != 0;
    match bytes.last_chunk() {
        // The last word may begin in the one before.
        Some(last) => is_in(last) || bytes.as_chunks().0.iter().any(is_in),
        None => bytes.contains(&b'\\'),
    }
}
