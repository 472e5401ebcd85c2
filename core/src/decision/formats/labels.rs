//! Label sets as Loki and Prometheus print them: `{app="opa", msg="say \"hi\" {}"}`.

/// Where the label set ends that begins at `at`, whatever stands in its values.
pub(super) fn labels_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let blank = |mut i: usize| {
        while matches!(bytes.get(i), Some(b' ' | b'\t')) {
            i += 1;
        }
        i
    };
    let mut i = blank(at + 1);
    loop {
        let name = bytes[i..].iter().take_while(|b| is_name(b)).count();
        i = blank(i + name);
        if name == 0 || bytes.get(i) != Some(&b'=') {
            return None;
        }
        i = blank(i + 1);
        i = quoted_end(bytes, i)?;
        i = blank(i);
        match bytes.get(i)? {
            b'}' => return Some(i + 1),
            b',' => i = blank(i + 1),
            _ => return None,
        }
    }
}

fn is_name(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || b"_.:-/".contains(b)
}

/// Where a string ends as Go quotes it; it has no line breaks.
fn quoted_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut i = at + 1;
    loop {
        match bytes.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            b'\n' => return None,
            _ => i += 1,
        }
    }
}
