//! Detectors: secrets and personal data that no rule names. Found by how they look, or by the name of the member that holds them,
//! however the text is encoded that they stand in (`encoded`).
//!
//! One pass over the text (`prefilter`) says which of them may be in it; most decisions hold none, and cost no more than that. Only then the
//! document is opened, along what is suspect.

use std::ops::Range;

use ring::hmac;

use super::detector::{ALL, Detector, Hit, mark};
use super::keys::pseudonym;
use super::opa::Done;
use super::patterns::Patterns;
use super::prefilter::Prefilter;
use super::rules::is_opa_s;
use super::taken::Taken;
use super::tree::{Distinct, Node, quoted_inside};
use super::walk::Walk;
use crate::decision::json;

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

/// Members of a decision that detectors leave alone: they say what was decided when, by which OPA and which rules of which
/// revision, how fast.
pub fn is_left(name: &str) -> bool {
    matches!(
        name,
        "decision_id"
            | "batch_decision_id"
            | "timestamp"
            | "@timestamp"
            | "path"
            | "trace_id"
            | "span_id"
            | "labels"
            | "bundles"
            | "revision"
            | "metrics"
            | "req_id"
            | "rule_labels"
    )
}

/// Members that say what was taken out: paths. What stands in them is taken out, and not noted again.
pub fn is_note(name: &str) -> bool {
    matches!(name, "erased" | "masked")
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

    /// Looks through a decision. What is found is acted on, noted in `masked`, and told; what was taken out
    /// is added to `taken`.
    pub fn apply(
        &self,
        raw: &str,
        event: &mut Node<'_>,
        asked: Option<&Asked<'_>>,
        hits: &mut Vec<Hit>,
        taken: &mut Taken,
    ) -> Done {
        let mut done = Done::default();
        let lower = raw.to_ascii_lowercase();
        let suspects = |part: Range<usize>| self.prefilter.within(&raw[part.clone()], &lower[part]);
        // Paths name members, and hold no values.
        let named = Detector::Named.bit();
        let suspected: Vec<&str> = json::members(raw)
            .filter(|m| {
                let name = m.key();
                let not = if is_note(&name) { named } else { 0 };
                !is_left(&name) && suspects(with_name(raw, m)) & !not != 0
            })
            .map(|m| m.name)
            .collect();
        if suspected.is_empty() {
            return done;
        }
        let Node::Object(members) = event.open() else { return done };
        let mut walk = Walk::new(self, asked, (raw, &lower), hits, taken);
        let mut distinct = None;
        for i in 0..members.len() {
            let (name, node) = &mut members[i];
            if matches!(node, Node::Raw(_)) && !suspected.contains(&&**name) {
                continue;
            }
            let name = json::unescape(name).into_owned();
            if is_note(&name) {
                walk.unnoted(node);
            } else if !is_left(&name) {
                walk.member(&name, node);
            }
            // OPA's own names say nothing.
            if !is_opa_s(&name)
                && let Some(clean) = walk.name(&name)
            {
                let clean = distinct.get_or_insert_with(|| Distinct::of(members)).name(&clean);
                members[i].0 = quoted_inside(&clean).into();
                walk.renamed(&name, &clean);
            }
        }
        done.masked = walk.masked;
        done.note(event);
        done
    }

    /// The same for any other text in JSON; what is found is not noted in it.
    pub fn apply_to_text(
        &self,
        text: &str,
        hits: &mut Vec<Hit>,
        taken: &mut Taken,
    ) -> Option<String> {
        if self.prefilter.of(text) == 0 {
            return None;
        }
        let lower = text.to_ascii_lowercase();
        let mut node = Node::Raw(text);
        let mut walk = Walk::new(self, None, (text, &lower), hits, taken);
        walk.place = "/docket/agent".into();
        walk.value(&mut node);
        (walk.changes > 0).then(|| node.to_text())
    }

    /// What detectors find in what something else has taken out: it may stand elsewhere, too.
    pub fn listen(&self, text: &str, taken: &mut Taken) {
        if self.prefilter.of(text) != 0 {
            let mut hits = Vec::new();
            let lower = text.to_ascii_lowercase();
            let document = (text, &*lower);
            Walk::new(self, None, document, &mut hits, taken).value(&mut Node::Raw(text));
        }
    }
}

/// A member of a document as it stands there, its name with it.
fn with_name(raw: &str, member: &json::Member<'_>) -> Range<usize> {
    let from = member.name.as_ptr() as usize - raw.as_ptr() as usize;
    let to = member.value.as_ptr() as usize - raw.as_ptr() as usize + member.value.len();
    // With its quotes and what follows: the prefilter tells names from values by them.
    from.saturating_sub(1)..raw.len().min(to + 1)
}

#[cfg(test)]
mod tests;
