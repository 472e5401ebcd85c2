//! The elements of an array, for who wants each on its own.

use super::json;

/// The elements of an array that was not looked at yet, with where each begins; what is no array any more comes last.
pub struct Elements<'t> {
    text: &'t [u8],
    at: usize,
    first: bool,
    over: bool,
}

/// What is left of an array, and what is wrong with it.
#[derive(Debug)]
pub struct Broken<'t> {
    pub rest: &'t [u8],
    pub detail: String,
}

impl<'t> Elements<'t> {
    /// `text` begins with its bracket.
    pub fn of(text: &'t [u8]) -> Elements<'t> {
        Elements { text, at: 1, first: true, over: false }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn broken(
        &mut self,
        rest: usize,
        detail: String,
    ) -> Option<Result<(usize, &'t [u8]), Broken<'t>>> {
        self.over = true;
        Some(Err(Broken { rest: &self.text[rest.min(self.text.len())..], detail }))
    }
}

impl<'t> Iterator for Elements<'t> {
    type Item = Result<(usize, &'t [u8]), Broken<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        self.space();
        let at = self.at;
        match self.text.get(at) {
            None => return self.broken(at, format!("the array ends at byte {at}, without its ]")),
            Some(b']') => {
                self.over = true;
                self.at += 1;
                self.space();
                let rest = self.at;
                return if rest == self.text.len() {
                    None
                } else {
                    self.broken(
                        rest,
                        format!("something follows the end of the array at byte {}", at + 1),
                    )
                };
            }
            Some(b',') if !self.first => {
                self.at += 1;
                self.space();
            }
            Some(_) if !self.first => {
                return self.broken(at, format!("expected , or ] in the array at byte {at}"));
            }
            Some(_) => {}
        }
        self.first = false;
        let start = self.at;
        self.at = element_end(self.text, start);
        Some(Ok((start, json::trim(&self.text[start..self.at]))))
    }
}

/// Where the element that starts at `start` ends: the comma or bracket after it, as far as brackets and
/// strings tell, so that an element that is not JSON ends somewhere, too.
fn element_end(text: &[u8], start: usize) -> usize {
    let mut at = json::end_of_value(text, start);
    while let Some(b) = text.get(at) {
        if matches!(b, b',' | b']') {
            break;
        }
        at = json::end_of_value(text, at).max(at + 1);
    }
    at.min(text.len())
}
