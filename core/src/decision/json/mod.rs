//! JSON as the data path needs it: one strict pass over a document that keeps where its members are,
//! and look-ups by pointer in what that pass accepted. No tree is built.
//!
//! Strict means RFC 8259, and more: names within one object are unique at every depth (a log store
//! may keep either of two equal names, so such a document has no one meaning), and nesting is bounded.

mod bits;
mod paths;
mod read;
mod strict;
mod write;

pub use paths::Paths;
pub use read::{
    Elements, Members, Pointer, as_str, as_u64, elements, end_of_value, get, inner, kind, members,
    unescape,
};
pub use strict::{check, parse_object, parse_prefix, value_prefix};
pub use write::{one_line, push_string};

use std::borrow::Cow;

/// How deep a document may nest. The same bound as serde_json's.
pub const MAX_DEPTH: usize = 128;

/// Why a document is not acceptable JSON, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not valid UTF-8 at byte {0}")]
    Utf8(usize),
    #[error("ends at byte {0}, in the middle of a value")]
    Truncated(usize),
    #[error("{what} at byte {at}")]
    Syntax { what: &'static str, at: usize },
    #[error("the name {name:?} stands twice in one object, the second time at byte {at}")]
    DuplicateKey { name: String, at: usize },
    #[error("nested deeper than {MAX_DEPTH} levels at byte {0}")]
    TooDeep(usize),
}

/// One member of an object: its name as written (escapes and all) and its value as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Between the quotes, escapes not resolved.
    pub name: &'a str,
    pub value: &'a str,
}

impl<'a> Member<'a> {
    pub fn key(&self) -> Cow<'a, str> {
        unescape(self.name)
    }

    /// Whether this is its name. Written with escapes, it is longer.
    pub fn is(&self, name: &str) -> bool {
        self.name == name || self.name.len() > name.len() && self.key() == name
    }
}

/// Trims what JSON calls white space.
pub fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |i| i + 1);
    &bytes[start..end]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
