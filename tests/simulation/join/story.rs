//! What happens in a world of the join: requests, what is decided of them, what is lost, and what is to be found.

use std::collections::BTreeMap;

use docket::correlate::missing::Missing;
use docket::decision::time;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::{ACCESS, SOURCE};
use crate::world;

/// What can't be read begins so.
pub const TORN: &str = "torn off";

/// What is written when, and what must become of it.
#[derive(Default)]
pub struct Input {
    /// By when, in nanoseconds after the start: topic, partition, record.
    pub due: BTreeMap<i64, Vec<(&'static str, i32, String)>>,
    /// By decision id.
    pub decisions: BTreeMap<String, Decision>,
    /// Each with whether it has to be found; otherwise it may be.
    pub findings: BTreeMap<(String, String), bool>,
}

#[derive(Default, Clone)]
pub struct Decision {
    /// The path of its request, if it has one, and whether it may go without.
    pub path: Option<String>,
    pub may_lack: bool,
    /// Kafka does not want it in the docket; or may not, once its request is added.
    pub unwanted: bool,
    pub large: bool,
}

const MS: i64 = 1_000_000;
const HOUR: i64 = 3_600_000;

/// What is the matter with a request.
struct Story {
    /// 0: it failed open, 1: nobody asked, 2: denied and served, 3: its log is lost; above 14 it was denied.
    what: u32,
    /// Its proxy logs the decision's ID.
    exact: bool,
    /// Another proxy logs the same request ID, and serves.
    hop: bool,
    /// Its line comes later than lines may,
    late: bool,
    /// or comes once more.
    again: bool,
    /// The OPA's clock.
    clock: i64,
    unwanted: bool,
    large: bool,
    lost: Lost,
}

/// What is lost of a request where something is.
#[derive(Clone, Copy, PartialEq)]
enum Lost {
    Nothing,
    /// What came of its decision can't be read, or its OPA dropped it and says so later.
    Decision,
    Dropped,
    /// Its line can't be read.
    Line,
}

impl Story {
    fn of(rng: &mut SmallRng, lossy: bool) -> Story {
        let what = rng.random_range(0..20);
        let mut one_in = |n| rng.random_range(0..n) == 0;
        // That another proxy has the ID, too, is to be known in time.
        let (hop, late) = match (one_in(12), one_in(30)) {
            (true, _) => (true, false),
            other => other,
        };
        Story {
            what,
            // One request in three has another ID only.
            exact: !one_in(3),
            hop,
            late,
            again: one_in(20),
            clock: if one_in(30) { [-HOUR, HOUR][usize::from(one_in(2))] } else { 0 },
            unwanted: one_in(40),
            large: one_in(40),
            lost: match lossy {
                true if one_in(15) => Lost::Decision,
                true if one_in(15) => Lost::Dropped,
                true if one_in(8) => Lost::Line,
                _ => Lost::Nothing,
            },
        }
    }

    /// Its decision was made, and comes.
    fn decided(&self) -> bool {
        self.asked() && !matches!(self.lost, Lost::Decision | Lost::Dropped)
    }

    fn asked(&self) -> bool {
        self.what > 1
    }

    fn denied(&self) -> bool {
        self.what == 2 || self.what > 14
    }

    /// What is to be found, and whether it has to be.
    fn finding(&self) -> Option<(&'static str, bool)> {
        let kind = ["failed_open", "served_without_decision", "denied_but_served"];
        let known = self.exact || !self.hop && self.clock == 0;
        let kind = kind.get(self.what as usize).filter(|_| !self.asked() || known)?;
        let is_there = self.lost != Lost::Line && (self.decided() || !self.asked());
        is_there.then_some((kind, !self.late))
    }

    fn decision(&self, n: usize, stamp: impl Fn(i64) -> String, at: i64) -> String {
        let unwanted = if self.unwanted { world::UNWANTED } else { "" };
        let pad = if self.large { 2_300 } else { 0 };
        let headers =
            json!({ "x-request-id": format!("r{n}"), "x": format!("{unwanted}{:pad$}", "") });
        let decision = json!({
            "decision_id": format!("d{n}"), "path": "envoy/authz/allow", "result": !self.denied(), "timestamp": stamp(at + 500 + self.clock),
            "input": { "attributes": { "request": { "http": { "headers": headers } } } },
        });
        decision.to_string()
    }

    fn line(&self, n: usize, stamp: impl Fn(i64) -> String, at: i64) -> Value {
        let served = !self.denied() || self.what == 2;
        let mut line = json!({
            "start_time": stamp(at), "duration": 10, "method": "GET", "path": format!("/api/{n}"),
            "response_code": if served { 200 } else { 403 }, "request_id": format!("r{n}"),
        });
        if self.asked() && self.exact {
            line["decision_id"] = format!("d{n}").into();
        }
        if self.what == 0 {
            line["failure_mode_allowed"] = "true".into();
        }
        line
    }
}

/// Within so much of a time of which something is missing, what an ID that may be shared says is not believed.
const AROUND: i64 = 20_000 + 6_000 + 1_000;

pub fn input(rng: &mut SmallRng, began: i64, partitions: [i32; 2]) -> Input {
    let mut input = Input::default();
    let lossy = rng.random_bool(0.3);
    let (mut missing, mut unsure) = (Vec::new(), Vec::new());
    // One side is late, as a whole; each record is, by some.
    let lag = [rng.random_range(0..12_000), rng.random_range(0..12_000)];
    let lag = if rng.random_bool(0.5) { [lag[0], 0] } else { [0, lag[1]] };
    let stamp = |ms: i64| time::format(began + ms * MS);
    for n in 0..rng.random_range(40..150) {
        let at = rng.random_range(0..60_000);
        let story = Story::of(rng, lossy);
        let logged = story.what != 3;
        if story.asked() {
            let late = at + lag[0] + rng.random_range(0..3_000);
            let to = rng.random_range(0..partitions[0]);
            let record = match story.lost {
                Lost::Decision => format!("{TORN} {n}"),
                Lost::Dropped => {
                    let (from, to) = (began + at * MS, began + late * MS);
                    Missing { from, to }.line("opa")
                }
                _ => story.decision(n, stamp, at),
            };
            input.due.entry(late * MS).or_default().push((SOURCE, to, record));
            if !story.decided() {
                missing.push((at, late));
            }
        }
        if story.decided() {
            let met = logged && (story.exact || story.clock == 0);
            let met = met.then(|| format!("/api/{n}"));
            let hop = story.hop && story.clock == 0;
            let decision = Decision {
                path: match story.lost {
                    Lost::Line => hop.then(|| "/api/hop".to_owned()),
                    _ => met,
                },
                may_lack: story.late,
                unwanted: story.unwanted,
                large: story.large,
            };
            input.decisions.insert(format!("d{n}"), decision);
        }
        if !logged {
            continue;
        }
        if let Some((kind, must)) = story.finding() {
            input.findings.insert((kind.to_owned(), format!("r{n}")), must);
            if kind == "served_without_decision" || kind == "denied_but_served" && !story.exact {
                unsure.push((at, (kind.to_owned(), format!("r{n}"))));
            }
        }
        let mut line = story.line(n, stamp, at);
        let mut log = |late: i64, line: &Value, rng: &mut SmallRng| {
            let to = rng.random_range(0..partitions[1]);
            input.due.entry(late * MS).or_default().push((ACCESS, to, line.to_string()));
        };
        let mut late = at + lag[1] + rng.random_range(0..3_000);
        late += if story.late { rng.random_range(20_000..60_000) } else { 0 };
        let torn = story.lost == Lost::Line;
        if torn {
            missing.push((at, late));
            log(late, &format!("{TORN} {n}").into(), rng);
        }
        for _ in 0..if rng.random_bool(0.1) { 2 } else { 1 } {
            if !torn {
                log(late, &line, rng);
            }
        }
        if story.again && !torn {
            log(late + rng.random_range(30_000..90_000), &line, rng);
        }
        if story.hop && story.asked() {
            line["path"] = "/api/hop".into();
            line["duration"] = 30.into();
            line["response_code"] = 200.into();
            line.as_object_mut().unwrap().remove("decision_id");
            log(at + lag[1] + rng.random_range(0..3_000), &line, rng);
        }
    }
    for (at, finding) in unsure {
        if missing.iter().any(|(from, to)| from - AROUND < at && at < to + AROUND) {
            input.findings.insert(finding, false);
        }
    }
    input
}
