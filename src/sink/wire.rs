//! Just enough of the protobuf wire format to write Loki's push request without building it first.
//! <https://protobuf.dev/programming-guides/encoding/>

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A varint field; zero is left out, as proto3 does.
pub fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        varint(out, u64::from(field) << 3);
        varint(out, value);
    }
}

/// How long a varint field (of a field number below 16) is.
pub fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// The tag and length of a field of bytes, text or a message.
pub fn header(out: &mut Vec<u8>, field: u32, len: usize) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, len as u64);
}

pub fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    header(out, field, value.len());
    out.extend_from_slice(value);
}

/// How long a field of `len` bytes is with its tag (of a field number below 16) and length.
pub fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_foretold() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u64::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            out.clear();
            number(&mut out, 15, value);
            assert_eq!(out.len(), number_len(value), "{value}");
        }
        let mut out = Vec::new();
        bytes(&mut out, 3, &[7; 200]);
        assert_eq!(out.len(), field_len(200));
    }
}
