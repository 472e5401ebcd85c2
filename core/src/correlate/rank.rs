//! Which fact is a decision's request: by class of key, then by what is nearest. The order is total and depends on
//! nothing but what the facts say, so that the same facts give the same match in whatever order they come.

use super::Settings;
use super::asked::Asked;
use super::store::{DECISION, Keys, OBJECT, REQUEST, Store, TRACE};
use crate::decision::ids::SpanId;
use crate::decision::time::Nanos;
use crate::facts::{Kind, Marks, Packed};

/// By what a decision and a fact belong together, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Exact, however far apart in time.
    DecisionId,
    /// The span that asked, or its nearest ancestor that is a request: exact.
    TraceAndParent,
    /// Exact, as far as clients don't choose it twice within the window.
    RequestId,
    /// The narrowest enclosing request of the trace; of Kubernetes who did what to which object. Never a finding's
    /// evidence.
    Likely,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::DecisionId => "decision_id",
            Class::TraceAndParent => "trace_and_parent",
            Class::RequestId => "request_id",
            Class::Likely => "likely",
        }
    }
}

/// How good a match is: the less the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub class: Class,
    /// It is part of a request, not one; or of another service.
    apart: bool,
    /// How far the decision is outside of it, beyond what clocks may differ.
    distance: Nanos,
    kind: Kind,
    width: Nanos,
    tie: u64,
}

impl Rank {
    /// Whether the decision goes on with it at once.
    pub fn is_exact(&self) -> bool {
        self.class != Class::Likely && !(self.class == Class::TraceAndParent && self.apart)
    }
}

/// So many facts of a key are looked at; a trace may have any number of spans.
const MOST: usize = 512;

/// The best of the facts for a decision.
pub fn best(
    facts: &Store<Box<[u8]>>,
    asked: &Asked,
    keys: Keys,
    settings: &Settings,
) -> Option<(Rank, u32)> {
    let mut best: Option<(Rank, u32)> = None;
    let mut consider = |rank: Rank, slot: u32| {
        if best.is_none_or(|(than, _)| rank < than) {
            best = Some((rank, slot));
        }
    };
    let rank = |class, apart, slot: u32| -> Option<Rank> {
        let packed = Packed::of(facts.get(slot)?);
        if packed.marks().has(Marks::ASKING) {
            return None;
        }
        let outside =
            (packed.start() - asked.time).max(asked.time.saturating_sub(packed.end())).max(0);
        Some(Rank {
            class,
            apart,
            distance: (outside - settings.skew).max(0),
            kind: packed.kind()?,
            width: packed.end().saturating_sub(packed.start()),
            tie: tie(facts.get(slot)?),
        })
    };
    for slot in facts.with(DECISION, keys[DECISION]).take(MOST) {
        if let Some(rank) = rank(Class::DecisionId, false, slot) {
            consider(rank, slot);
        }
    }
    if best.is_some() {
        return best;
    }
    let mut consider = |rank: Option<Rank>, slot: u32| {
        if let Some(rank) = rank.filter(|rank| rank.distance <= settings.window)
            && best.is_none_or(|(than, _)| rank < than)
        {
            best = Some((rank, slot));
        }
    };
    for slot in facts.with(REQUEST, keys[REQUEST]).take(MOST) {
        let other = facts.get(slot).is_some_and(|bytes| other_service(bytes, asked));
        consider(rank(Class::RequestId, other, slot), slot);
    }
    for slot in facts.with(OBJECT, keys[OBJECT]).take(MOST) {
        consider(rank(Class::Likely, false, slot), slot);
    }
    if keys[TRACE] != 0 {
        if let Some((slot, apart)) = ancestor(facts, asked, keys[TRACE]) {
            consider(rank(Class::TraceAndParent, apart, slot), slot);
        }
        for slot in facts.with(TRACE, keys[TRACE]).take(MOST) {
            let Some(bytes) = facts.get(slot) else { continue };
            let packed = Packed::of(bytes);
            let own = asked.engines_own && packed.span().is_some() && packed.span() == asked.parent;
            // A trace may have many requests, and it is none whose ID is another.
            let ids = [facts.keys(slot)[REQUEST], keys[REQUEST]];
            let other = ids[0] != ids[1] && !ids.contains(&0);
            let fits = is_request(packed) && !own && !other;
            let likely = rank(Class::Likely, false, slot).filter(|r| fits && r.distance == 0);
            consider(likely, slot);
        }
    }
    best
}

/// The span that asked or the nearest one above it that is a request; failing that, the one that asked and that it is
/// apart from the request. What the engine was asked with is neither.
fn ancestor(facts: &Store<Box<[u8]>>, asked: &Asked, trace: u64) -> Option<(u32, bool)> {
    let mut at = asked.parent?;
    let mut nearest = None;
    let find = |span: SpanId| {
        let spans = facts.with(TRACE, trace).take(MOST);
        // Of copies, and of a span and an access log line of the same id, always the same one.
        spans
            .filter_map(|slot| Some((slot, facts.get(slot)?)))
            .filter(|(_, bytes)| Packed::of(bytes).span() == Some(span))
            .min_by_key(|(_, bytes)| (Packed::of(bytes).kind(), tie(bytes)))
    };
    for hop in 0..64 {
        let Some((slot, bytes)) = find(at) else { break };
        let packed = Packed::of(bytes);
        let asking = packed.marks().has(Marks::ASKING);
        let own = asking || (hop == 0 && asked.engines_own);
        if is_request(packed) && !own {
            return Some((slot, false));
        }
        if !own {
            nearest = nearest.or(Some((slot, true)));
        }
        match packed.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    nearest
}

/// Not a part of one, such as a span of its client's.
fn is_request(fact: Packed<'_>) -> bool {
    fact.kind() != Some(Kind::Span) || fact.marks().has(Marks::SERVER)
}

/// FNV-1a: the same in every process.
fn tie(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn other_service(bytes: &[u8], asked: &Asked) -> bool {
    Packed::of(bytes).fact().is_ok_and(|fact| *fact.service != *asked.service)
}
