//! What docket's spike detector says of the demo's decisions: the same detector as in `docket run`.

use crate::cli::offline;
use crate::decision::record::Record;
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;
use crate::pipeline::spikes::Spikes;
use crate::spike::follow::Follower;
use crate::spike::reorder::Kept;
use crate::spike::{Change, Finding, Observation};

const SECOND: Nanos = 1_000_000_000;

/// Decisions that happened: they are looked at in the order of their times once all are there.
pub struct Past {
    spikes: Spikes,
    all: Vec<(Nanos, Vec<u8>)>,
    denied: Vec<Nanos>,
}

impl Past {
    pub fn new(spikes: Spikes) -> Past {
        Past { spikes, all: Vec::new(), denied: Vec::new() }
    }

    pub fn note(&mut self, record: &Record<'_>, bytes: &[u8]) {
        self.all.push((record.timestamp, bytes.to_vec()));
        if record.verdict == Verdict::Deny {
            self.denied.push(record.timestamp);
        }
    }

    /// Denials over the time that the decisions span, in so many steps.
    pub fn denials(&self) -> Vec<u64> {
        const STEPS: usize = 40;
        let times = self.all.iter().map(|(at, _)| *at);
        let (Some(from), Some(to)) = (times.clone().min(), times.max()) else { return Vec::new() };
        if to - from < 10 * SECOND {
            return Vec::new();
        }
        let mut steps = vec![0; STEPS];
        for at in &self.denied {
            let step = (at - from) as i128 * STEPS as i128 / (to - from + 1) as i128;
            steps[usize::try_from(step).unwrap_or(0).min(STEPS - 1)] += 1;
        }
        steps
    }

    /// One sentence each.
    pub fn found(mut self) -> Vec<String> {
        self.all.sort_by_key(|(at, _)| *at);
        let (Some(first), Some(last)) = (self.all.first(), self.all.last()) else {
            return Vec::new();
        };
        let (span, learn) = (last.0 - first.0, time::nanos(self.spikes.learn.0));
        let mut found: Vec<String> = past(&self.spikes, &self.all).iter().map(sentence).collect();
        if found.is_empty() && span < learn {
            found.push(format!(
                "none yet: the decisions span {} s, and it needs {} s to learn what is usual",
                span / SECOND,
                learn / SECOND
            ));
        }
        let reused = offline::reused(&self.all).into_iter().filter(|f| !self.spikes.ignores(f));
        found.extend(reused.map(|finding| sentence(&finding)));
        found
    }
}

/// What is found in docket records that stand in the order of their times.
pub fn past(spikes: &Spikes, ordered: &[(Nanos, Vec<u8>)]) -> Vec<Finding> {
    let lateness = time::nanos(spikes.lateness.0);
    let mut follower = Follower::new(spikes.config(), lateness, std::iter::once(0));
    let times: Vec<Nanos> = ordered.iter().map(|(at, _)| *at).collect();
    let mut changes = follower.look_at_file(&times, |i, take| {
        if let Ok(record) = Record::parse(&ordered[i].1) {
            Observation::with(&record, take);
        }
    });
    changes.extend(follower.past());
    let mut findings: Vec<Finding> = Vec::new();
    for change in changes {
        let (Change::Begins(finding) | Change::Ends(finding)) = change;
        match findings.iter_mut().find(|known| known.id == finding.id) {
            _ if spikes.ignores(&finding) => {}
            Some(known) => *known = finding,
            None => findings.push(finding),
        }
    }
    findings
}

/// A finding in one sentence: what, where, and what is behind it.
pub fn sentence(finding: &Finding) -> String {
    let more: Vec<String> = finding
        .causes
        .iter()
        .skip(1)
        .take(2)
        .map(|c| format!("{:.0} % by {} {}", 100.0 * c.share, c.dimension.as_str(), c.value))
        .collect();
    let more = if more.is_empty() { String::new() } else { format!(", {}", more.join(", ")) };
    crate::cli::tail::printable(&format!("{}{more}", finding.sentence()))
}

/// Decisions that happen: what is usual is known, and what is found is said as it is found. Its time is that of the decisions: where
/// the machine is slow to make them or to bring them here it passes slowly, and nothing is taken for silence.
pub struct Live {
    follower: Follower,
    found: Vec<Finding>,
    /// So late it is to the detector.
    now: Nanos,
    /// From the decisions' time to the detector's, known with the first of them: it is the next after what was learned.
    shift: Option<Nanos>,
}

impl Live {
    /// Learns from docket records, as if they had come again and again, so many a second, until now.
    pub fn new(usual: &[Kept], a_second: f64, period: Nanos, now: Nanos) -> Live {
        let spikes = Spikes::default();
        let lateness = time::nanos(spikes.lateness.0);
        let mut live = Live {
            follower: Follower::new(spikes.config(), lateness, std::iter::once(0)),
            found: Vec::new(),
            now: now - period,
            shift: Some(0),
        };
        let count = (period as f64 / SECOND as f64 * a_second) as i64;
        live.advance();
        let mut told = live.now;
        for (i, kept) in (0..count).zip(usual.iter().cycle()) {
            let at = now - period + (period as f64 * i as f64 / count as f64) as Nanos;
            live.observe(&Observation { at, ..kept.seen() });
            if at - told >= SECOND {
                told = at;
                live.advance();
            }
        }
        // What is found in what was made up to learn from is none of the show.
        live.found.clear();
        live.shift = None;
        live
    }

    /// What happened before, as if it had been looked at as it happened.
    pub fn catch_up(&mut self, early: &[Kept]) {
        let mut told = self.now;
        for kept in early {
            self.observe(&kept.seen());
            if self.now - told >= SECOND {
                told = self.now;
                self.advance();
            }
        }
    }

    pub fn note(&mut self, record: &Record<'_>) {
        Observation::with(record, |seen| self.observe(seen));
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        let at = seen.at + *self.shift.get_or_insert(self.now - seen.at);
        self.now = self.now.max(at);
        self.follower.observe(0, &Observation { at, ..*seen }, self.now);
    }

    /// Looks at what came.
    pub fn advance(&mut self) {
        self.follower.ended(0);
        for change in self.follower.advance(self.now) {
            let (Change::Begins(finding) | Change::Ends(finding)) = change;
            match self.found.iter_mut().find(|known| known.id == finding.id) {
                Some(known) => *known = finding,
                None => self.found.push(finding),
            }
        }
    }

    /// What came last is judged as if some seconds had passed: the detector waits for what is late.
    pub fn end(&mut self) {
        self.now += 4 * SECOND;
        self.advance();
    }

    /// What goes on now.
    pub fn active(&self) -> usize {
        self.follower.active().len()
    }

    pub fn sentences(&self) -> Vec<String> {
        self.found.iter().map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::offline::{Reader, pipeline};
    use crate::generate::{Generator, Mix, SPIKE, Shape};

    /// A quarter of an hour, with a spike in the last minute.
    fn quarter(spiking: bool) -> Past {
        let mut generator = Generator::new(Mix::default());
        let mut reader = Reader::new(pipeline(None).unwrap());
        let mut past = Past::new(Spikes::default());
        let began = 1_795_524_530 * SECOND;
        for i in 0..18_000 {
            generator.spike = spiking && i > 16_800;
            let (record, _) = generator.record(Shape::Json, began + i * SECOND / 20);
            reader.read(&record, &mut |bytes| past.note(&Record::parse(bytes).unwrap(), bytes));
        }
        past
    }

    #[test]
    fn the_detector_finds_the_spike_and_says_who_is_behind_it() {
        let past = quarter(true);
        let steps = past.denials();
        assert!(steps[39] > 3 * steps[10], "{steps:?}");
        let found = past.found();
        let on = format!("denial spike on {} of {}: ", SPIKE.1, SPIKE.0);
        let spike =
            found.iter().find(|f| f.starts_with(&on)).unwrap_or_else(|| panic!("{found:?}"));
        assert!(spike.contains(" by revision bad4"), "{found:?}");
        assert!(found.iter().all(|f| f.contains(SPIKE.0)), "nothing else: {found:?}");
    }

    /// What is found of decisions, a hundred a second, made at these times; and when the first of it.
    fn lived(learned: Nanos, times: impl Iterator<Item = (bool, Nanos)>) -> (Live, Option<usize>) {
        let mut generator = Generator::new(Mix::default());
        let mut reader = Reader::new(pipeline(None).unwrap());
        let mut decision = |spiking, at| {
            generator.spike = spiking;
            let mut made = Vec::new();
            reader.read(&generator.record(Shape::Json, at).0, &mut |bytes| made = bytes.to_vec());
            made
        };
        let kept =
            |bytes: Vec<u8>| Observation::with(&Record::parse(&bytes).unwrap(), Kept::of).unwrap();
        let usual: Vec<_> = (0..3000).map(|_| kept(decision(false, learned))).collect();
        let mut live = Live::new(&usual, 100.0, 660 * SECOND, learned);
        let mut first = None;
        for (i, (spiking, at)) in times.enumerate() {
            let bytes = decision(spiking, at);
            live.note(&Record::parse(&bytes).unwrap());
            if i % 25 == 0 {
                live.advance();
                if live.active() > 0 {
                    first.get_or_insert(i);
                }
            }
        }
        live.end();
        (live, first)
    }

    #[test]
    fn what_happens_is_found_as_it_happens() {
        let now = 1_795_524_530 * SECOND;
        let times = (0..2000).map(|i| (i > 1000, now + i * SECOND / 100));
        let (live, first) = lived(now, times);
        assert!(first.is_some_and(|i| (1000..1900).contains(&i)), "{first:?}");
        let on = format!("denial spike on {} of {}: ", SPIKE.1, SPIKE.0);
        assert!(live.sentences().iter().any(|s| s.starts_with(&on)), "{:?}", live.sentences());
    }

    /// Twenty minutes pass until the groups are joined, and while the show goes on the machine stands still for two minutes.
    #[test]
    fn a_machine_that_stands_still_is_no_silence() {
        let now = 1_795_524_530 * SECOND;
        let mut schedule = crate::cli::demo::Schedule::new(now + 1200 * SECOND);
        let mut wall = 0;
        let times = (0..20_000).map(|i| {
            wall += SECOND / 100 + if i == 9_000 { 120 * SECOND } else { 0 };
            schedule.pause(wall);
            (false, schedule.next(100.0))
        });
        let (live, first) = lived(now, times);
        assert_eq!((first, live.sentences()), (None, Vec::new()));
        assert!((live.now - now - 204 * SECOND).abs() < SECOND, "{}", live.now - now);
    }

    #[test]
    fn where_nothing_happens_nothing_is_found() {
        assert_eq!(quarter(false).found(), Vec::<String>::new());
    }
}
