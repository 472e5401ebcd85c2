//! Hands decisions to a series for each policy of each service and to its service, bucket by bucket, and tells what
//! these find. Time is what decisions say, but never later than `now`: who is given a wrong clock does not go blind.

use std::collections::HashMap;

use super::baseline::{MINUTE, bucket};
use super::config::{Config, HOUR};
use super::heartbeat::{Heartbeat, STREAM};
use super::room::Room;
use super::series::flood::Beside;
use super::series::{Around, Series};
use super::service::{Late, Service};
use super::{BUCKET, Change, Dimension, Finding, Kind, Observation, decision_key, service_key};
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;

/// What comes late counts when it comes, unless it comes a minute late: that is a backlog, and says nothing of now.
pub const LATE: i64 = MINUTE;
/// After so long without a decision nothing is judged bucket by bucket any more.
const LONGEST: i64 = 40 * 24 * HOUR / BUCKET;
/// Nothing is counted further ahead of what is closed: 1 h.
const AHEAD: i64 = HOUR / BUCKET;
/// Nobody goes on with what was found before nobody watched for so long: 10 min.
const FORGOTTEN: i64 = 10 * MINUTE;

pub struct Detector {
    config: Config,
    /// By service, zero byte, policy.
    pub(super) names: HashMap<String, usize>,
    pub(super) series: Vec<Series>,
    /// By name.
    pub(super) service_names: HashMap<String, usize>,
    pub(super) services: Vec<Service>,
    pub(super) stream: Heartbeat,
    /// The first bucket that the stream's heartbeat does not know.
    pub(super) stream_next: i64,
    /// The first bucket that is not closed; none before the first decision.
    pub(super) next: Option<i64>,
    pub(super) room: Room,
    late: Late,
    scratch: String,
}

impl Detector {
    pub fn new(config: Config) -> Detector {
        Detector {
            room: Room::new(config.max_series),
            config,
            names: HashMap::new(),
            series: Vec::new(),
            service_names: HashMap::new(),
            services: Vec::new(),
            stream: Heartbeat::default(),
            stream_next: i64::MIN,
            next: None,
            late: Late::default(),
            scratch: String::new(),
        }
    }

    /// What comes first may be an attack.
    pub fn doubt_first(&mut self) {
        self.config.trusts_first = false;
    }

    /// Whether nothing was seen yet.
    pub fn is_new(&self) -> bool {
        self.next.is_none()
    }

    /// Policies of services that have a place.
    pub fn watched(&self) -> usize {
        self.series.len()
    }

    /// Decisions of policies for which there was no room.
    pub fn unwatched(&self) -> u64 {
        self.room.unwatched
    }

    /// `now`: when it was seen; a decision that says to be of later is of then.
    pub fn observe(&mut self, seen: &Observation<'_>, now: Nanos) {
        let seen = &Observation { at: seen.at.min(now), ..*seen };
        let mut at = bucket(seen.at);
        let next = *self.next.get_or_insert(at);
        if at < next - LATE {
            // Too old to be counted.
            return self.excuse(seen);
        }
        at = at.max(next).min(next + AHEAD);
        let signal = match seen.verdict {
            Verdict::Deny => Some(0),
            Verdict::Error | Verdict::Undefined => Some(1),
            Verdict::Allow | Verdict::Finding => None,
        };
        if at >= self.stream_next {
            self.stream.note(usize::try_from(at - next.max(self.stream_next)).unwrap_or(0));
        }
        if let Some(service) = self.service(seen.service, next) {
            self.services[service].observe(seen.who[Dimension::Instance as usize], at);
        }
        key(&mut self.scratch, seen.service, seen.policy);
        let index = match self.names.get(&self.scratch) {
            Some(index) => *index,
            None => {
                let Some(index) = self.place(seen, at, next) else { return };
                index
            }
        };
        let series = &mut self.series[index];
        if series.observe(seen, signal, at) {
            series.heat += self.room.weight;
        }
    }

    /// One came, too late to count or in time.
    pub(super) fn came(&mut self, seen: &Observation<'_>, late: bool, written: Nanos) {
        self.late.came(late, written);
        if let Some(service) = self.service_names.get(seen.service) {
            self.services[*service].late.came(late, written);
        }
    }

    /// It is not counted here, and shows that its service is alive.
    pub(super) fn excuse(&mut self, seen: &Observation<'_>) {
        self.stream.excuse();
        if let Some(service) = self.service_names.get(seen.service) {
            self.services[*service].excuse(seen.who[Dimension::Instance as usize]);
        }
        key(&mut self.scratch, seen.service, seen.policy);
        if let Some(series) = self.names.get(&self.scratch) {
            self.series[*series].excuse();
        }
    }

    /// A place for a policy that is new: a free one, or the coldest one's if this one is warmer.
    fn place(&mut self, seen: &Observation<'_>, at: i64, next: i64) -> Option<usize> {
        let new = || Series::new(seen.service, seen.policy, at, next);
        if self.series.len() < self.config.max_series {
            self.series.push(new());
            self.names.insert(self.scratch.clone(), self.series.len() - 1);
            return Some(self.series.len() - 1);
        }
        let (index, heat) = self.room.instead(&self.scratch, &self.series)?;
        let mut new = new();
        new.heat = heat;
        let cold = std::mem::replace(&mut self.series[index], new);
        let name = decision_key(&cold.service, &cold.policy);
        self.names.remove(&name["policy\0".len()..]);
        self.room.forgotten.push(name);
        self.names.insert(self.scratch.clone(), index);
        Some(index)
    }

    /// Takes a policy back, if there is room.
    pub(super) fn restore_series(&mut self, mut series: Series) -> bool {
        key(&mut self.scratch, &series.service, &series.policy);
        let room = self.series.len() < self.config.max_series;
        if room && !self.names.contains_key(&self.scratch) {
            series.heat *= self.room.weight;
            self.names.insert(self.scratch.clone(), self.series.len());
            self.series.push(series);
        }
        room
    }

    pub(super) fn restore_service(&mut self, service: Service) -> bool {
        let room = self.services.len() < self.config.max_series;
        if room && !self.service_names.contains_key(&service.name) {
            self.service_names.insert(service.name.clone(), self.services.len());
            self.services.push(service);
        }
        room
    }

    /// A service's place. Where there is no more room the one goes that was quiet for longest, and nobody misses.
    fn service(&mut self, name: &str, next: i64) -> Option<usize> {
        if let Some(index) = self.service_names.get(name) {
            return Some(*index);
        }
        let new = Service::new(name, next);
        if self.services.len() < self.config.max_series {
            self.service_names.insert(name.to_owned(), self.services.len());
            self.services.push(new);
            return Some(self.services.len() - 1);
        }
        if self.room.full_of_services {
            return None;
        }
        let idle = |s: &Service| s.gap() > MINUTE as u32 && s.active().next().is_none();
        let longest = self.services.iter().enumerate().filter(|(_, s)| idle(s));
        let Some((index, _)) = longest.max_by_key(|(_, s)| s.gap()) else {
            self.room.full_of_services = true;
            return None;
        };
        let gone = std::mem::replace(&mut self.services[index], new);
        self.service_names.remove(&gone.name);
        self.room.forgotten.push(service_key(&gone.name));
        self.service_names.insert(name.to_owned(), index);
        Some(index)
    }

    /// Whether hardly anything is known of a service: its decisions of a quarter of an hour at most.
    /// `policy` is one of its policies: where that one is known, the others need not be looked through.
    pub fn is_strange(&self, service: &str, policy: &str) -> bool {
        let mut name = String::new();
        key(&mut name, service, policy);
        let is_known = |series: &Series| series.quarters() >= 2;
        if self.names.get(&name).is_some_and(|index| is_known(&self.series[*index])) {
            return false;
        }
        !self.series.iter().filter(|s| s.service == service).any(is_known)
    }

    /// One with the same settings that knows nothing.
    pub(super) fn anew(&self) -> Detector {
        Detector::new(self.config.clone())
    }

    /// Takes over what another one knows of its services, in the place of what this one knows. Says what ends with that.
    pub(super) fn adopt(&mut self, other: Detector) -> Vec<Change> {
        let mut changes = Vec::new();
        for service in other.services {
            match self.service_names.get(&service.name) {
                Some(index) => {
                    let old = std::mem::replace(&mut self.services[*index], service);
                    changes.extend(old.active().cloned());
                }
                None => {
                    self.restore_service(service);
                }
            }
        }
        for series in other.series {
            key(&mut self.scratch, &series.service, &series.policy);
            match self.names.get(&self.scratch) {
                Some(index) => {
                    let old = std::mem::replace(&mut self.series[*index], series);
                    changes.extend(old.active().cloned());
                }
                None => {
                    self.restore_series(series);
                }
            }
        }
        let end = self.next.unwrap_or_default() * BUCKET;
        changes.into_iter().map(|f| Change::Ends(Finding { ended: Some(end), ..f })).collect()
    }

    /// Keys of what was forgotten to make room, since this was asked last: their snapshots are to be deleted.
    pub fn forgotten(&mut self) -> Vec<String> {
        std::mem::take(&mut self.room.forgotten)
    }

    /// All decisions before `watermark` were observed, and it is `now`. Says what that makes certain.
    pub fn advance(&mut self, watermark: Nanos, now: Nanos) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(mut next) = self.next else { return changes };
        let to = bucket(watermark.min(now));
        let watched = to.min(next + LONGEST);
        while next < watched {
            self.close(next, &mut changes);
            next += 1;
            self.next = Some(next);
        }
        // Whoever decides again after that long is somebody new: a wrong clock, most often.
        if next < to {
            changes.extend(self.skip(to * BUCKET));
        }
        changes
    }

    /// Nobody watched until `to`: of the time before nothing is said nor learned, least of all that it was quiet. What
    /// ends with that is told.
    pub fn skip(&mut self, to: Nanos) -> Vec<Change> {
        let mut changes = Vec::new();
        let to = bucket(to);
        let Some(next) = self.next.filter(|next| *next < to) else { return changes };
        self.stream.skip(usize::try_from(to - next).unwrap_or(0));
        if to - next > FORGOTTEN
            && let Some(mut finding) = self.stream.active.take()
        {
            finding.ended = Some(next * BUCKET);
            changes.push(Change::Ends(finding));
        }
        self.services.iter_mut().for_each(|s| s.skip(to, &mut changes));
        self.series.iter_mut().for_each(|s| s.skip(to, &mut changes));
        self.next = Some(to);
        changes
    }

    /// What goes on.
    pub fn active(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.series.iter().flat_map(Series::active).cloned().collect();
        all.extend(self.services.iter().flat_map(Service::active).cloned());
        all.extend(self.stream.active.iter().chain(&self.room.active).cloned());
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Denials of policies that are new, where their service is known, or the OPA that is asked.
    fn floods(&mut self, at: i64, changes: &mut Vec<Change>) {
        for index in 0..self.series.len() {
            let (series, config) = (&self.series[index], &self.config);
            if series.next != at + 1 || !series.may_be_flooded(at, config) {
                continue;
            }
            let known = |service: &str| {
                let its = self.series.iter().filter(|s| s.service == service);
                its.filter(|s| s.is_known(at, config)).collect::<Vec<_>>()
            };
            let mut beside = Beside { series: known(&series.service) };
            if beside.series.is_empty()
                && let Some(opa) = series.opa()
            {
                let its = self.services.iter().filter(|s| s.knows(&opa, config));
                beside.series = its.flat_map(|s| known(&s.name)).collect();
            }
            if let Some(finding) = series.flood(at, &beside, config) {
                changes.push(self.series[index].flooded(finding, at));
            }
        }
    }

    /// What is found is none of the traffic that a service, or the stream, is missed by.
    fn discount(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::Begins(finding) = change else { continue };
            if !matches!(finding.kind, Kind::DenialSpike | Kind::FailureSpike) {
                continue;
            }
            self.stream.discount(finding.excess());
            if let Some(service) = self.service_names.get(&finding.service) {
                self.services[*service].discount(finding.excess());
            }
        }
    }

    fn close(&mut self, at: i64, changes: &mut Vec<Change>) {
        let (config, from) = (&self.config, changes.len());
        let known = at < self.stream_next;
        let excess = self.series.iter().map(|s| s.excess).sum();
        let all = (!known).then(|| self.stream.close_beside(excess));
        // Where many come late, as of OPAs that upload every ten minutes, nobody knows who is silent now.
        let all_late = self.late.is_more_than(0.5);
        if all_late {
            self.stream.excuse();
        }
        let late = |service: &Service| all_late || service.late.is_more_than(0.2);
        for service in &mut self.services {
            if late(service) {
                service.excuse_all();
            }
        }
        // Which service a series is of is looked up only where that matters.
        if all_late || self.services.iter().any(late) {
            for series in &mut self.series {
                let service = self.service_names.get(&series.service).map(|i| &self.services[*i]);
                if service.map_or(all_late, late) {
                    series.excuse();
                }
            }
        }
        let fewest = || self.series.iter().filter_map(|s| s.fewest(at)).reduce(|a, b| a + b);
        changes.extend(
            self.stream
                .judge(at, config, fewest, STREAM, || Finding::new(Kind::StreamQuiet, "", "")),
        );
        let hushed = self.stream.active.is_some() || self.stream.gap > 0;
        let hole = self.stream.silent_buckets();
        for service in &mut self.services {
            if service.next < at {
                service.skip(at, changes);
            }
            if service.next > at {
                continue;
            }
            let name = service.name.clone();
            let its = || self.series.iter().filter(|s| s.service == name);
            service.close(config, its, (hushed, hole), changes);
        }
        let silent = self.stream.active.is_some();
        for series in &mut self.series {
            if series.next < at {
                series.skip(at, changes);
            }
            if series.next > at {
                continue;
            }
            let service = self.service_names.get(&series.service).map(|i| &self.services[*i]);
            let quiet = service.is_some_and(|s| s.gap() > 0);
            let silent = silent || service.is_some_and(Service::is_silent);
            let hole = hole.max(service.map_or(0, Service::hole));
            series.close(Around { config, hushed: hushed || quiet, hole, silent }, changes);
        }
        self.floods(at, changes);
        self.discount(&changes[from..]);
        self.room.close(at, all, &mut self.series, changes);
        changes[from..].sort_by_cached_key(|change| {
            let (Change::Begins(finding) | Change::Ends(finding)) = change;
            (finding.kind, finding.service.clone(), finding.policy.clone())
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
mod tests;
