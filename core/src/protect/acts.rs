//! Which detectors look, and what is done with what they find.

use ring::hmac;

use super::detector::{ALL, Detector, mark};
use super::keys::pseudonym;
use super::patterns::Patterns;
use super::prefilter::Prefilter;

/// What is done with what is found.
#[derive(Debug, Clone)]
pub enum Act {
    /// `[erased:<detector>]` in its place.
    Erase,
    /// A pseudonym in its place.
    Hash(hmac::Key),
    /// It stays, and is counted.
    Count,
}

impl Act {
    pub fn instead(&self, detector: Detector, text: &str) -> Option<String> {
        match self {
            Act::Erase => Some(mark(detector.name())),
            Act::Hash(key) => Some(pseudonym(key, text)),
            Act::Count => None,
        }
    }
}

#[derive(Debug)]
pub struct Detect {
    /// By detector.
    acts: [Option<Act>; ALL.len()],
    pub(super) prefilter: Prefilter,
    pub(super) patterns: Patterns,
}

/// Who asked for what: an address there is hashed with this key rather than erased, so that what was
/// denied to whom keeps its meaning.
pub struct Asked<'a> {
    pub key: &'a hmac::Key,
    /// Subject, action, resource and tenant of the decision as it was.
    pub texts: &'a dyn Fn() -> Vec<String>,
}

impl Detect {
    pub fn new(acts: [Option<Act>; ALL.len()]) -> Detect {
        let prefilter = Prefilter::new(ALL.into_iter().filter(|d| acts[*d as usize].is_some()));
        Detect { acts, prefilter, patterns: Patterns::default() }
    }

    pub fn act(&self, detector: Detector) -> Option<&Act> {
        self.acts[detector as usize].as_ref()
    }
}
