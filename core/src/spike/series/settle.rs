//! What was learned at first may be an attack, in the midst of which a file begins. What one alone was denied is not usual
//! then: it is a spike, for as long as it goes on, and nobody misses it when it is over.

use super::Series;
use crate::spike::config::Config;

/// One has so much of all denials, and gets so much of what he asks for denied; others asked for so much.
const SHARE: f64 = 0.5;
const DENIED: f64 = 0.9;
const OTHERS: f64 = 50.0;
/// So many times the denials that a spike takes.
const FLOORS: f64 = 2.0;

impl Series {
    /// Looks, once, at what was learned at first.
    pub(super) fn settle(&mut self, config: &Config) {
        if std::mem::replace(&mut self.settled, true) || config.trusts_first {
            return;
        }
        let is_attack = |one: &crate::spike::explain::Denied| {
            one.share >= SHARE
                && one.denied >= DENIED
                && one.denials >= FLOORS * config.floor
                && one.others >= OTHERS
        };
        if let Some(one) = self.memory.most_denied().filter(is_attack) {
            self.learner.without(0, one.share);
            self.memory.forget(&one.who);
        }
    }
}
