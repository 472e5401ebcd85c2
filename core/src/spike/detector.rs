//! Hands decisions to a series for each policy of each service and to a heartbeat for each OPA, bucket by bucket, and tells
//! what these find.

use std::collections::{BTreeMap, HashMap};

use super::baseline::{MINUTE, bucket};
use super::config::{Config, HOUR};
use super::heartbeat::{Fading, Heartbeat, ONE, STREAM};
use super::series::{DELAY, Series};
use super::{BUCKET, Cause, Change, Dimension, Finding, Kind, Observation, SECOND};
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;

/// What comes late counts when it comes, unless it comes a minute late: that is a backlog, and says nothing of now.
const LATE: i64 = MINUTE;
/// A decision that is an hour ahead has a wrong clock.
const AHEAD: i64 = HOUR / BUCKET;
/// An OPA that was quiet for so long is gone: 1 h.
const GONE: u32 = (3600 * SECOND / BUCKET) as u32;

pub struct Detector {
    config: Config,
    /// By service, zero byte, policy.
    names: HashMap<String, usize>,
    series: Vec<Series>,
    /// By service, zero byte, instance; in this order findings are told.
    heartbeats: BTreeMap<String, Heartbeat>,
    /// By service.
    services: HashMap<String, Service>,
    stream: Heartbeat,
    /// The first bucket that is not closed; none before the first decision.
    next: Option<i64>,
    /// Decisions that came after their bucket was closed.
    pub late: u64,
    /// Decisions of policies for which there was no room.
    unwatched: u64,
    scratch: String,
}

#[derive(Default)]
struct Service {
    /// Decisions of the bucket that is closed, and a bucket on average over some ten minutes.
    now: u32,
    mean: Fading,
    /// Buckets without any.
    gap: u32,
    /// When the latest OPA of it appeared.
    newest: i64,
}

impl Detector {
    pub fn new(config: Config) -> Detector {
        Detector {
            config,
            names: HashMap::new(),
            series: Vec::new(),
            heartbeats: BTreeMap::new(),
            services: HashMap::new(),
            stream: Heartbeat::new(0),
            next: None,
            late: 0,
            unwatched: 0,
            scratch: String::new(),
        }
    }

    pub fn observe(&mut self, seen: &Observation<'_>) {
        let mut at = bucket(seen.at);
        let next = *self.next.get_or_insert(at);
        if at < next {
            self.late += 1;
            if at < next - LATE {
                return;
            }
            at = next;
        }
        at = at.min(next + AHEAD);
        let signal = match seen.verdict {
            Verdict::Deny => Some(0),
            Verdict::Error | Verdict::Undefined => Some(1),
            Verdict::Allow | Verdict::Finding => None,
        };
        key(&mut self.scratch, seen.service, seen.policy);
        let index = match self.names.get(&self.scratch) {
            Some(index) => *index,
            None if self.series.len() >= self.config.max_series => {
                self.unwatched += 1;
                return;
            }
            None => {
                self.series.push(Series::new(seen.service, seen.policy, at));
                self.names.insert(self.scratch.clone(), self.series.len() - 1);
                self.series.len() - 1
            }
        };
        self.series[index].observe(seen, signal, at, next);
        let instance = seen.who[Dimension::Instance as usize];
        if !instance.is_empty() {
            key(&mut self.scratch, seen.service, instance);
            if let Some(heartbeat) = self.heartbeats.get_mut(&self.scratch) {
                heartbeat.note(at, next);
            } else if self.heartbeats.len() < self.config.max_series {
                self.services.entry(seen.service.to_owned()).or_default().newest = at;
                let mut heartbeat = Heartbeat::new(at);
                heartbeat.note(at, next);
                self.heartbeats.insert(self.scratch.clone(), heartbeat);
            }
        }
        self.stream.note(at, next);
    }

    /// All decisions before `watermark` were observed. Says what that makes certain.
    pub fn advance(&mut self, watermark: Nanos) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(mut next) = self.next else { return changes };
        while next < bucket(watermark) {
            self.close(next, &mut changes);
            next += 1;
            self.next = Some(next);
        }
        changes
    }

    /// What goes on.
    pub fn active(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.series.iter().flat_map(Series::active).cloned().collect();
        all.extend(
            self.heartbeats
                .values()
                .chain([&self.stream])
                .filter_map(|p| p.active.as_ref())
                .cloned(),
        );
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    fn close(&mut self, at: i64, changes: &mut Vec<Change>) {
        let config = &self.config;
        let stream_went = self.stream.close(at, None);
        let stream_gap = self.stream.gap;
        if let Some(change) =
            self.stream.judge(at, config, None, STREAM, || Finding::new(Kind::StreamQuiet, "", ""))
        {
            changes.push(change);
        }
        let all_quiet = self.stream.active.is_some() || (stream_gap > 0 && !stream_went);
        self.services.values_mut().for_each(|s| s.now = 0);
        for series in &mut self.series {
            let counts = series.close(at, config, all_quiet, changes);
            if let Some(service) = self.services.get_mut(&series.service) {
                service.now += counts.all;
            }
        }
        for service in self.services.values_mut() {
            service.gap = if service.now == 0 { service.gap + 1 } else { 0 };
            service.mean.add(f64::from(service.now));
        }
        self.heartbeats.retain(|key, heartbeat| {
            let (service, instance) = key.split_once('\0').unwrap_or_default();
            let of = self.services.get(service);
            // What it would have got of its service's decisions: whatever happens to the service's traffic, the share stays.
            if heartbeat.gap == 0 {
                heartbeat.share =
                    of.map_or(1.0, |s| heartbeat.mean.get() / s.mean.get().max(1e-9)).min(0.98);
            }
            let share = heartbeat.share;
            let due = of.map_or(0.0, |s| f64::from(s.now)) * share;
            heartbeat.close(at, Some((due, due / share.max(1e-9) * -(1.0 - share).ln())));
            let service_quiet = of.is_none_or(|s| s.gap > 0);
            // Another OPA of the service that came about when this one went takes its place.
            let replaced = of.is_some_and(|s| {
                s.newest > heartbeat.born && s.newest >= at - i64::from(heartbeat.gap) - DELAY
            });
            let gone = heartbeat.gap > GONE;
            if (all_quiet || service_quiet || replaced) && heartbeat.active.is_none() {
                return !(gone || (replaced && heartbeat.gap > 3));
            }
            let change = heartbeat.judge(at, config, None, ONE, || {
                let mut finding = Finding::new(Kind::InstanceQuiet, service, "");
                finding.causes.push(Cause::whole(Dimension::Instance, instance));
                finding
            });
            if gone && let Some(mut finding) = heartbeat.active.take() {
                finding.ended = Some((at + 1) * BUCKET);
                changes.push(Change::Ends(finding));
            }
            changes.extend(change);
            !gone
        });
    }
}

fn key(out: &mut String, service: &str, name: &str) {
    out.clear();
    out.push_str(service);
    out.push('\0');
    out.push_str(name);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::scenario::{Day, Scenario};

    /// From 50 minutes before a day's event to five minutes after it.
    fn lived(scenario: Scenario, seed: u64) -> (Day, Vec<Change>) {
        let start = 1_767_744_000 * SECOND;
        let mut day = Day::new(scenario, seed, start, 1.0);
        day.skip_to(day.event_at() - 3000 * SECOND);
        let mut detector = Detector::new(Config::default());
        let (mut changes, mut second) = (Vec::new(), Vec::new());
        let mut now = day.event_at() - 3000 * SECOND;
        let end = day.events().first().map_or(now + 6000 * SECOND, |e| e.to + 600 * SECOND);
        while now < end {
            day.second(&mut second);
            now += SECOND;
            second.iter().for_each(|made| day.observe(made, |seen| detector.observe(seen)));
            changes.extend(detector.advance(now - 5 * SECOND));
        }
        assert_eq!(detector.active(), []);
        (day, changes)
    }

    #[test]
    fn what_happens_is_found_explained_and_ends() {
        for scenario in [
            Scenario::Attack,
            Scenario::MisconfiguredClient,
            Scenario::BadBundle,
            Scenario::PermissiveBundle,
            Scenario::DeadOpa,
            Scenario::Silence,
            Scenario::MissingData,
        ] {
            let (day, changes) = lived(scenario, 5);
            let event = day.events().remove(0);
            let [Change::Begins(begins), Change::Ends(ends)] = changes.as_slice() else {
                panic!("{scenario:?}: {changes:#?}")
            };
            assert!(
                event.kinds.contains(&begins.kind) && begins.service == event.service,
                "{scenario:?}: {begins:#?}"
            );
            let late = (begins.detected - event.from) / SECOND;
            assert!(
                (0..=if scenario == Scenario::PermissiveBundle { 300 } else { 40 }).contains(&late),
                "{scenario:?}: {late} s"
            );
            assert!((begins.onset - event.from).abs() <= 40 * SECOND, "{scenario:?}: {begins:#?}");
            let cause = begins.causes.first().map(|c| (c.dimension, c.value.clone()));
            assert_eq!(cause, event.cause, "{scenario:?}");
            assert_eq!((&ends.id, ends.ended.is_some()), (&begins.id, true));
            assert!(
                (ends.ended.unwrap() - event.to).abs() <= 180 * SECOND,
                "{scenario:?}: {ends:#?}"
            );
        }
        assert_eq!(
            lived(Scenario::Attack, 5).1,
            lived(Scenario::Attack, 5).1,
            "a pure function of the stream"
        );
        assert_eq!(lived(Scenario::Launch, 5).1, [], "more traffic is no spike");
    }

    #[test]
    fn series_are_bounded_and_what_comes_late_is_counted() {
        let mut detector = Detector::new(Config { max_series: 2, ..Config::default() });
        let mut see = |policy: &str, at: Nanos| {
            let trace_id = crate::decision::ids::TraceId::INVALID;
            detector.observe(&Observation {
                at,
                service: "s",
                policy,
                verdict: Verdict::Deny,
                who: [""; 5],
                trace_id,
                decision_id: "",
            });
            detector.advance(at);
        };
        ["a", "b", "c"]
            .into_iter()
            .enumerate()
            .for_each(|(i, policy)| see(policy, 1000 * SECOND + i as i64));
        see("a", 2000 * SECOND);
        see("a", 1990 * SECOND);
        see("a", 1500 * SECOND);
        assert_eq!((detector.series.len(), detector.unwatched, detector.late), (2, 1, 2));
    }
}
