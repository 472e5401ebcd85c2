//! A text that is changed in places.

use std::ops::Range;

#[derive(Debug, Default)]
pub struct Changed {
    text: String,
    end: usize,
}

impl Changed {
    pub fn put(&mut self, text: &str, at: Range<usize>, new: &str) {
        self.text.push_str(&text[self.end..at.start]);
        self.text.push_str(new);
        self.end = at.end;
    }

    pub fn end(mut self, text: &str) -> Option<String> {
        if self.end == 0 {
            return None;
        }
        self.text.push_str(&text[self.end..]);
        Some(self.text)
    }
}
