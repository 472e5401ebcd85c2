//! How deep brackets are open in a text that came in parts.

/// How deep brackets are open, over the parts of a text.
#[derive(Debug, Clone, Default)]
pub(super) struct Balance {
    depth: usize,
    string: bool,
    escaped: bool,
    began: bool,
}

impl Balance {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for b in bytes {
            if self.escaped {
                self.escaped = false;
            } else if self.string {
                match b {
                    b'"' => self.string = false,
                    b'\\' => self.escaped = true,
                    _ => {}
                }
            } else {
                match b {
                    b'"' if self.began => self.string = true,
                    b'{' | b'[' => {
                        self.began = true;
                        self.depth += 1;
                    }
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.began && (self.depth > 0 || self.string)
    }
}
