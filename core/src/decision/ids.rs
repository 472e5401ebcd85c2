//! Trace and span ids: OpenTelemetry's types, the strict reading of W3C Trace Context, and the ids that
//! docket derives from a decision id.

pub use opentelemetry::{SpanId, TraceId};
use sha2::{Digest, Sha256};

/// Reads 32 hex digits, not all zero.
pub fn trace_id(hex: &str) -> Option<TraceId> {
    Some(TraceId::from_bytes(bytes::<16>(hex.as_bytes())?))
}

/// Reads 16 hex digits, not all zero.
pub fn span_id(hex: &str) -> Option<SpanId> {
    Some(SpanId::from_bytes(bytes::<8>(hex.as_bytes())?))
}

fn bytes<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    if hex.len() != N * 2 {
        return None;
    }
    let (mut out, mut none) = ([0; N], 0);
    for (byte, pair) in out.iter_mut().zip(hex.as_chunks().0) {
        let [high, low] = pair.map(|b| DIGITS[usize::from(b)]);
        *byte = high << 4 | low;
        none |= high | low;
    }
    (none != NO_DIGIT && out != [0; N]).then_some(out)
}

const NO_DIGIT: u8 = 0xff;
/// What a byte is as a hexadecimal digit.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut n = 0;
    while n < 16 {
        digits[b"0123456789abcdef"[n] as usize] = n as u8;
        digits[b"0123456789ABCDEF"[n] as usize] = n as u8;
        n += 1;
    }
    digits
};

pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS[usize::from(n)];
    out.reserve(bytes.len() * 2);
    bytes.iter().for_each(|b| out.extend_from_slice(&[digit(b >> 4), digit(b & 15)]));
}

pub fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    push_hex(&mut out, bytes);
    String::from_utf8(out).expect("hex digits are ASCII")
}

/// The ids that follow from a decision id alone.
pub struct Derived {
    /// The decision's own span: the first 8 bytes of SHA-256("docket" + decision id).
    pub span: SpanId,
    /// The trace of a decision that carries no trace context: the next 16 bytes.
    pub trace: TraceId,
}

pub fn derive(decision_id: &str) -> Derived {
    let digest = Sha256::new().chain_update(b"docket").chain_update(decision_id).finalize();
    let mut span = [0; 8];
    let mut trace = [0; 16];
    span.copy_from_slice(&digest[..8]);
    trace.copy_from_slice(&digest[8..24]);
    // An all-zero id is invalid in OpenTelemetry.
    if span == [0; 8] {
        span[7] = 1;
    }
    if trace == [0; 16] {
        trace[15] = 1;
    }
    Derived { span: SpanId::from_bytes(span), trace: TraceId::from_bytes(trace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_exact_hex_and_never_zero() {
        assert!(trace_id("4bf92f3577b34da6a3ce929d0e0e4736").is_some());
        assert!(trace_id("4BF92F3577B34DA6A3CE929D0E0E4736").is_some());
        for bad in [
            "",
            "4bf9",
            "00000000000000000000000000000000",
            "4bf92f3577b34da6a3ce929d0e0e473g",
            "+bf92f3577b34da6a3ce929d0e0e4736",
        ] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
        assert_eq!(span_id("0000000000000000"), None);
        assert!(span_id("00f067aa0ba902b7").is_some());
    }

    #[test]
    fn the_span_of_a_decision_is_the_head_of_a_hash() {
        // printf docket35d70696-0122-435d-8e2e-4046910e1c1b | sha256sum
        let derived = derive("35d70696-0122-435d-8e2e-4046910e1c1b");
        let mut hex = Vec::new();
        push_hex(&mut hex, &derived.span.to_bytes());
        push_hex(&mut hex, &derived.trace.to_bytes());
        assert_eq!(
            String::from_utf8(hex).unwrap(),
            "5a73b3d0f4af5933180816474d10c46604bacecc9bd2e7d7"
        );
    }
}
