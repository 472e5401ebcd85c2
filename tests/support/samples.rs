use std::io::Read;

/// The decisions that a real OPA 1.22.2 wrote, one a line.
pub fn samples() -> Vec<String> {
    let bytes = include_bytes!("../data/decisions-opa-1.22.2.ndjson.gz");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}
