//! What the demo shows: a few decisions as traces, counts, and at the end what there is to say.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anstyle::Style;

use super::findings::Live;
use crate::cli::columns;
use crate::cli::offline::{Example, way_out};
use crate::cli::shown::{flowing, sentence_columns, wrapped};
use crate::cli::tail::{printable, style};
use crate::decision::ids::hex;
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::reject::Reason;
use crate::decision::time;
use crate::decision::verdict::{Basis, Verdict};
use crate::sink::{Outcome, Sink};
use crate::spike::Observation;
use crate::spike::reorder::Kept;
use crate::words::counted;

/// The sink that the terminal reads.
#[derive(Clone, Default)]
pub struct Screen(Arc<Mutex<Seen>>);

#[derive(Default)]
pub struct Seen {
    pub total: u64,
    /// Decisions and denials by second of arrival.
    pub seconds: VecDeque<(u64, u64)>,
    second: Option<Instant>,
    verdicts: HashMap<&'static str, u64>,
    /// Results that no rule can judge.
    unjudged: u64,
    /// Denials by service and policy.
    denied: HashMap<(String, String), u64>,
    /// What is found as it happens.
    pub live: Option<Live>,
    /// What happened before the detector had learned.
    early: Vec<Kept>,
    /// A few decisions, drawn as traces: the last denial, the last that was allowed, one whose trace OPA's caller began elsewhere.
    examples: HashMap<&'static str, String>,
}

impl Screen {
    /// Decisions by verdict.
    pub fn verdicts(&self) -> Vec<(Verdict, u64)> {
        let seen = self.lock();
        let of = |verdict: &Verdict| (*verdict, seen.verdicts.get(verdict.as_str()).copied());
        Verdict::ALL.iter().map(of).filter_map(|(v, n)| Some((v, n?))).collect()
    }

    /// The detector has learned: it is shown what happened meanwhile, and looks on.
    pub fn look_on(&self, live: Option<Live>) {
        let mut seen = self.lock();
        let early = std::mem::take(&mut seen.early);
        seen.live = live.map(|mut live| {
            live.catch_up(&early);
            live
        });
    }

    pub fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note(&mut self, batch: &[Record<'_>]) {
        /// More than what comes while it learns, wherever it does in the end.
        const EARLY: usize = 100_000;
        match &mut self.live {
            Some(live) => batch.iter().for_each(|record| live.note(record)),
            None if self.early.len() < EARLY => {
                self.early
                    .extend(batch.iter().filter_map(|record| Observation::with(record, Kept::of)));
            }
            None => {}
        }
    }
}

/// What one batch adds to the screen.
#[derive(Default)]
pub struct Shown {
    total: u64,
    verdicts: HashMap<&'static str, u64>,
    unjudged: u64,
    denied: HashMap<(String, String), u64>,
    examples: HashMap<&'static str, String>,
}

impl Sink for Screen {
    type Body = Shown;

    fn encode(&self, batch: &[Record<'_>]) -> Shown {
        let mut shown = Shown { total: batch.len() as u64, ..Shown::default() };
        self.lock().note(batch);
        for record in batch {
            *shown.verdicts.entry(record.verdict.as_str()).or_default() += 1;
            shown.unjudged += u64::from(record.verdict_from == Basis::Nothing.name());
            let kind = match record.verdict {
                Verdict::Deny => {
                    *shown
                        .denied
                        .entry((record.service.to_string(), record.policy.to_string()))
                        .or_default() += 1;
                    "2 deny"
                }
                Verdict::Allow => "1 allow",
                Verdict::Error => "3 error",
                Verdict::Undefined | Verdict::Finding => "4 undefined",
            };
            let traced = record.parent_span_id.is_some() || !shown.examples.contains_key(kind);
            if traced {
                shown.examples.insert(kind, drawn(record, columns()));
            }
        }
        shown
    }

    fn size(_: &Shown) -> usize {
        0
    }

    async fn send(&self, shown: &Shown) -> Outcome {
        self.add(shown);
        Outcome::Delivered
    }
}

impl Screen {
    pub fn add(&self, shown: &Shown) {
        let mut seen = self.lock();
        let denied: u64 = shown.denied.values().sum();
        seen.total += shown.total;
        let fresh = seen.second.is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
        if fresh {
            seen.second = Some(Instant::now());
            seen.seconds.push_back((0, 0));
            if seen.seconds.len() > 600 {
                seen.seconds.pop_front();
            }
        }
        if let Some(last) = seen.seconds.back_mut() {
            *last = (last.0 + shown.total, last.1 + denied);
        }
        for (verdict, count) in &shown.verdicts {
            *seen.verdicts.entry(verdict).or_default() += count;
        }
        seen.unjudged += shown.unjudged;
        for (key, count) in &shown.denied {
            *seen.denied.entry(key.clone()).or_default() += count;
        }
        seen.examples.extend(shown.examples.iter().map(|(kind, text)| (*kind, text.clone())));
    }
}

/// A decision as the trace that it becomes.
fn drawn(record: &Record<'_>, columns: usize) -> String {
    let dim = Style::new().dimmed();
    let verdict = style(record.verdict);
    let trace = hex(&record.trace_id.to_bytes());
    let above = match record.parent_span_id {
        Some(span) => {
            format!("span {} (from {})", hex(&span.to_bytes()), printable(&record.trace_from))
        }
        None => "no span above: the trace id is derived from the decision id".to_owned(),
    };
    let mut span = vec![
        format!("  └─ policy.decision {}", printable(&record.policy)),
        format!("{verdict}{}{verdict:#}", record.verdict.as_str()),
    ];
    span.extend(record.duration.map(|ns| format!("{:.2} ms", ns as f64 / 1e6)));
    let mut out = format!("trace {trace}\n  {above}\n{}", flowing(&span, 7, columns));
    let reasons: Vec<String> = json::elements(record.reasons)
        .take(2)
        .filter_map(json::as_str)
        .map(|r| printable(&r))
        .collect();
    if !reasons.is_empty() {
        let reasons = format!("       because {}", reasons.join("; "));
        out.push_str(&format!("\n{}", wrapped(&reasons, 15, columns)));
    }
    let revisions: Vec<String> = record
        .revisions()
        .iter()
        .map(|(name, revision)| format!("{name}@{}", revision.chars().take(8).collect::<String>()))
        .collect();
    let revisions = if revisions.is_empty() { "-".into() } else { printable(&revisions.join(",")) };
    let about = [
        format!("       service {}", printable(&record.service)),
        format!("bundle {revisions}"),
        time::format(record.timestamp),
        format!("decision {}", printable(&record.decision_id)),
    ];
    out.push_str(&format!("\n{dim}{}{dim:#}", flowing(&about, 7, columns)));
    out
}

pub fn sparkline(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(1).max(1);
    values.iter().map(|v| BARS[(v * 7 / most) as usize]).collect()
}

/// What there is to say at the end.
pub struct Summary {
    /// What was read.
    pub from: String,
    pub verdicts: Vec<(Verdict, u64)>,
    pub ignored: u64,
    /// Of them, lines that are rejected where each is a Kafka record.
    pub rejected_alone: u64,
    pub dropped: u64,
    pub repeats: u64,
    /// Findings among what was read.
    pub written: u64,
    pub rejects: Vec<(Reason, u64, Option<Example>)>,
    /// Denials over time.
    pub over_time: Vec<u64>,
    pub findings: Vec<String>,
}

impl Summary {
    pub fn print(&self, screen: &Screen) {
        let (bold, columns) = (Style::new().bold(), sentence_columns());
        let total: u64 = self.verdicts.iter().map(|(_, n)| n).sum();
        anstream::println!("\n{bold}{}{bold:#} from {}", counted(total, "decision"), self.from);
        for (verdict, count) in &self.verdicts {
            let style = style(*verdict);
            anstream::println!("  {style}{:9}{style:#} {count:>8}", verdict.as_str());
        }
        let ignored = if self.ignored == 1 {
            "line that is no decision"
        } else {
            "lines that are no decisions"
        };
        for (name, count, what) in [
            ("ignored", self.ignored, ignored),
            ("dropped", self.dropped, "not to be recorded, by your drop policy"),
            ("repeats", self.repeats, "left out: they came before"),
            ("findings", self.written, "left out: docket wrote them, of decisions"),
        ] {
            if count > 0 {
                anstream::println!("  {name:9} {count:>8}  {what}");
            }
        }
        if self.rejected_alone > 0 {
            let told = format!(
                "  {} of text among what is ignored: where each comes as a Kafka record of its own, docket run rejects it (not_json)",
                counted(self.rejected_alone, "line")
            );
            anstream::println!("{}", wrapped(&told, 4, columns));
        }
        let unjudged = screen.lock().unjudged;
        if unjudged > 0 {
            let told = format!(
                "  {} no rule can judge: set `verdict` or `verdict_policy` in a pipeline file (docs/record.md)",
                counted(unjudged, "result")
            );
            anstream::println!("{}", wrapped(&told, 4, columns));
        }
        self.rejects(bold);
        self.denied(screen, bold);
        if !self.findings.is_empty() {
            anstream::println!("\n{bold}what the spike detector says{bold:#}");
            for finding in &self.findings {
                anstream::println!("{}", wrapped(&format!("  {finding}"), 4, columns));
            }
        }
        let seen = screen.lock();
        let mut examples: Vec<_> = seen.examples.iter().collect();
        examples.sort();
        if !examples.is_empty() {
            anstream::println!("\n{bold}decisions as spans{bold:#}");
            for (_, example) in examples {
                anstream::println!("{example}");
            }
        }
    }

    /// One of each kind, and what to do about it.
    fn rejects(&self, bold: Style) {
        if self.rejects.is_empty() {
            return;
        }
        let columns = sentence_columns();
        for (reason, count, _) in &self.rejects {
            anstream::println!("  {:9} {count:>8}  {}", "rejected", reason.as_str());
        }
        anstream::println!("\n{bold}one of each kind of reject{bold:#}");
        for (reason, _, example) in &self.rejects {
            anstream::println!("  {}", reason.as_str());
            if let Some(example) = example {
                let detail = format!("    {}", printable(&example.detail));
                anstream::println!("{}", wrapped(&detail, 4, columns));
                if !example.begins.is_empty() {
                    anstream::println!("    it begins with {}", example.begins);
                }
            }
            let detail = example.as_ref().map_or("", |example| &example.detail);
            let way_out = format!("    -> {}", way_out(*reason, detail));
            anstream::println!("{}", wrapped(&way_out, 7, columns));
        }
    }

    fn denied(&self, screen: &Screen, bold: Style) {
        let seen = screen.lock();
        let mut denied: Vec<_> = seen.denied.iter().collect();
        denied.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        if denied.is_empty() {
            return;
        }
        anstream::println!("\n{bold}denied most{bold:#}");
        for ((service, policy), count) in denied.into_iter().take(5) {
            anstream::println!("  {count:>8}  {} {}", printable(service), printable(policy));
        }
        if self.over_time.len() > 3 {
            anstream::println!("  denials over time {}", sparkline(&self.over_time));
        }
    }
}
