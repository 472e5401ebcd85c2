//! The text of a layer, and the bytes that it came as.

/// Text of one layer, and the bytes that it came as: of the same length, and the same where they are UTF-8.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    pub text: &'t str,
    pub bytes: &'t [u8],
}

impl<'t> Text<'t> {
    pub(super) fn new(text: &'t str) -> Text<'t> {
        Text { text, bytes: text.as_bytes() }
    }

    pub(super) fn damaged(clean: &'t str, bytes: &'t [u8]) -> Text<'t> {
        Text { text: clean, bytes }
    }

    pub(super) fn slice(self, from: usize, to: usize) -> Text<'t> {
        Text { text: &self.text[from..to], bytes: &self.bytes[from..to] }
    }

    pub(super) fn is_damaged(self) -> bool {
        self.text.as_bytes() != self.bytes
    }
}

/// Each byte that is not UTF-8 becomes a control character, which JSON has nowhere: what holds one is refused,
/// and what stands beside it is read.
pub(super) fn cleaned(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|_| out.push('\u{1}'));
    }
    out
}
