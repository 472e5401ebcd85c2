//! Findings that have one cause: one attacker at thirty services is one thing to whoever is woken by it.

use std::collections::HashMap;

use super::{Dimension, Finding, SECOND};
use crate::decision::time::Nanos;

/// So much later it is no more of the same.
const SOON: Nanos = 600 * SECOND;

impl Finding {
    /// What is behind most of it, if it may be behind others, too: somebody, a tenant, a bundle, or an OPA.
    pub fn cause(&self) -> Option<String> {
        let first = self.causes.first().filter(|first| first.share >= 0.5)?;
        let told = matches!(
            first.dimension,
            Dimension::Subject | Dimension::Tenant | Dimension::Revision | Dimension::Instance
        );
        told.then(|| format!("{} {}", first.dimension.as_str(), first.value))
    }
}

/// Those of one cause that came soon after each other; `findings` are in the order in which they were found, and so are groups, by
/// their first.
pub fn together(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    let mut latest: HashMap<String, usize> = HashMap::new();
    for finding in findings {
        let Some(cause) = finding.cause() else {
            groups.push(vec![finding]);
            continue;
        };
        let soon = |group: &&usize| {
            groups[**group].last().is_some_and(|last| finding.detected - last.detected <= SOON)
        };
        match latest.get(&cause).filter(soon) {
            Some(group) => groups[*group].push(finding),
            None => {
                latest.insert(cause, groups.len());
                groups.push(vec![finding]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spike::{Cause, Kind};

    #[test]
    fn findings_of_one_cause_are_together_and_others_are_not() {
        let finding = |service: &str, detected: Nanos, dimension, value: &str, share| Finding {
            detected: detected * SECOND,
            causes: vec![Cause { share, ..Cause::whole(dimension, value) }],
            ..Finding::new(Kind::DenialSpike, service, "p")
        };
        let all = [
            finding("a", 0, Dimension::Subject, "mallory", 0.9),
            finding("b", 20, Dimension::Subject, "mallory", 0.6),
            finding("c", 21, Dimension::Subject, "mallory", 0.4),
            finding("d", 22, Dimension::Revision, "mallory", 1.0),
            finding("e", 23, Dimension::Action, "GET", 1.0),
            finding("f", 24, Dimension::Action, "GET", 1.0),
            finding("g", 600, Dimension::Subject, "mallory", 1.0),
            finding("h", 1201, Dimension::Subject, "mallory", 1.0),
            Finding::new(Kind::StreamQuiet, "", ""),
        ];
        let told: Vec<String> = together(&all)
            .iter()
            .map(|group| group.iter().map(|f| f.service.as_str()).collect())
            .collect();
        assert_eq!(told, ["abg", "c", "d", "e", "f", "h", ""]);
        assert_eq!(all[3].cause().as_deref(), Some("revision mallory"));
    }
}
