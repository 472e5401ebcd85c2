//! Services that nothing is known of yet, and whose past comes at once: a drill that writes the hour before, OPAs that
//! upload what they kept, in a docket that others are watched in. Their past is learned apart, in its order and silently;
//! then they are watched with the others.

use std::collections::{HashMap, HashSet};

use super::backlog::{Backlog, Learn};
use super::detector::Detector;
use super::{Change, Finding, Kind, Observation};
use crate::decision::time::Nanos;

/// So many services are learned once, and never again.
const MOST: usize = 10_000;

#[derive(Default)]
pub struct Newcomers {
    group: Option<Group>,
    /// A service whose clock is wrong for good has no past to learn from twice.
    learned: HashSet<String>,
}

struct Group {
    backlog: Backlog,
    detector: Detector,
    /// What their past holds.
    past: Vec<Change>,
    /// Which services were asked for, and whether they are of these.
    services: HashMap<String, bool>,
}

/// Whether a finding is about newcomers: the stream, and the room that there is, are those of all.
pub fn is_own(finding: &Finding) -> bool {
    finding.kind != Kind::StreamQuiet && !finding.service.is_empty()
}

impl Newcomers {
    /// Takes a decision of a newcomer; `old`, if it is too old for the others. Whether it was one.
    pub fn take(
        &mut self,
        others: &Detector,
        lateness: Nanos,
        seen: &Observation<'_>,
        written: Nanos,
        old: bool,
    ) -> bool {
        let known = self.group.as_ref().and_then(|group| group.services.get(seen.service)).copied();
        let is_new = known.unwrap_or_else(|| {
            old && !self.learned.contains(seen.service)
                && self.learned.len() < MOST
                && others.is_strange(seen.service, seen.policy)
        });
        if !is_new && (self.group.is_none() || !old) {
            return false;
        }
        let group = self.group.get_or_insert_with(|| Group {
            backlog: Backlog::begins(seen, written),
            detector: others.anew(),
            past: Vec::new(),
            services: HashMap::new(),
        });
        if known.is_none() && group.services.len() < MOST {
            group.services.insert(seen.service.to_owned(), is_new);
        }
        if is_new {
            group.backlog.note(seen, written, old);
            let (detector, past) = (&mut group.detector, &mut group.past);
            group.backlog.push(seen, written, &mut Learn { detector, lateness, past });
        }
        is_new
    }

    /// Whether some are there, and nothing more of their past comes.
    pub fn are_over(&self, now: Nanos) -> bool {
        self.group.as_ref().is_some_and(|group| !group.backlog.goes_on(now))
    }

    /// Who has learned their past, and what it holds; nothing more of it comes.
    pub fn settle(&mut self, now: Nanos, lateness: Nanos) -> Option<(Detector, Vec<Change>)> {
        let Group { backlog, mut detector, mut past, services } = self.group.take()?;
        let new = services.into_iter().filter(|(_, is_new)| *is_new);
        self.learned.extend(new.map(|(service, _)| service));
        let to = &mut Learn { detector: &mut detector, lateness, past: &mut past };
        backlog.learn(now, to);
        past.retain(|change| {
            let (Change::Begins(finding) | Change::Ends(finding)) = change;
            is_own(finding)
        });
        Some((detector, past))
    }
}
