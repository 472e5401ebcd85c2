//! What the detector is told of what is worth saying.

use super::SECOND;
use crate::decision::time::Nanos;

/// How sure is sure, and what is worth saying.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Denials (failures) beyond the expected before anything is said.
    pub floor: f64,
    /// How improbable a finding must be: the exponent of e.
    pub certainty: f64,
    /// How long a policy is watched before anything is said of it.
    pub learn: Nanos,
    /// So many policies of services, and as many OPAs, are watched; further ones are not.
    pub max_series: usize,
    /// What comes first is usual: most platforms have somebody who is denied all the time, and nobody is woken for that. Of a file, which
    /// may begin in the midst of an attack, it is not taken for granted.
    pub trusts_first: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            floor: 12.0,
            certainty: 28.0,
            learn: 600 * SECOND,
            max_series: 1000,
            trusts_first: true,
        }
    }
}

pub const HOUR: Nanos = 3600 * SECOND;
