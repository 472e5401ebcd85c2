//! gzip, as fast as it gets: what is sent or made up, not what is kept.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}
