//! `docket spikes PIPELINE`: what is found in a docket topic.

use std::collections::BTreeMap;

use rdkafka::message::Message;

use super::{Args, config, tell_all};
use crate::cli::recent::Recent;
use crate::cli::shown::{note, say_aside};
use crate::cli::{CommandResult, bound, progress, waiting};
use crate::clock;
use crate::decision::record::Record;
use crate::decision::time::{self, Nanos};
use crate::log::scan::ScanBound;
use crate::pipeline::Pipeline;
use crate::pipeline::spikes::Spikes;
use crate::spike::follow::Follower;
use crate::spike::{Change, Finding, Observation, record};
use crate::stage::events::CameUpon;
use crate::words::counted;

/// What a look at the docket topic found.
struct Look {
    /// By the detector, by their ids.
    findings: BTreeMap<String, Finding>,
    /// So many of them came as a backlog, of which `docket run` says nothing.
    backlog: u64,
    came_upon: CameUpon,
    decisions: u64,
    /// Those that came again.
    repeats: u64,
    unreadable: u64,
    follower: Follower,
}

/// What is found in the docket topic: the detector judges its decisions again; what parts came upon stands there.
pub(super) fn of_topic(args: &Args, pipeline: &Pipeline, spikes: &Spikes) -> CommandResult {
    let lateness = time::nanos(spikes.lateness.0);
    let mut seen = look(args, pipeline, spikes, lateness)?;
    // What `docket run` could not know in time is known by now.
    let waited = seen.follower.waits(seen.decisions + seen.repeats);
    let mut missed = 0;
    if let Some(lateness) = waited {
        let again = look(args, pipeline, spikes, lateness)?;
        let known: Vec<&Finding> = seen.findings.values().collect();
        let new = |finding: &&Finding| !known.iter().any(|known| is_same(known, finding, lateness));
        let new: Vec<Finding> = again.findings.values().filter(new).cloned().collect();
        missed = new.len() as u64;
        seen.findings.extend(new.into_iter().map(|finding| (finding.id.clone(), finding)));
    }
    let Look { findings, backlog, came_upon, decisions, repeats, unreadable, follower } = seen;
    let mut findings: Vec<Finding> = findings.into_values().collect();
    let (written, left_out) = came_upon.told();
    let read = written.len() as u64;
    findings.extend(written);
    findings.sort_by_key(|f| f.detected);
    tell_all(args, &findings);
    let late = (follower.late > 0).then(|| late(follower.late, lateness, waited));
    let counts = (findings.len() as u64, decisions, unreadable);
    let [first, rest @ ..] = &summed(counts, [missed, backlog, read, left_out, repeats], late)[..]
    else {
        return Ok(());
    };
    say_aside(first);
    let open = findings.iter().any(|f| f.ended.is_none() && !f.kind.is_event());
    let silent = silent(follower.latest(), clock::now()).filter(|_| open);
    rest.iter().chain(&silent).for_each(|told| note(told));
    Ok(())
}

/// Reads the docket topic once, and waits so long for decisions that come late.
fn look(
    args: &Args,
    pipeline: &Pipeline,
    spikes: &Spikes,
    lateness: Nanos,
) -> Result<Look, Box<dyn std::error::Error>> {
    let since = match args.since {
        Some(since) => since,
        None => bound("7d")?,
    };
    let waiting = waiting(&format!("Kafka at {}", pipeline.file.kafka.brokers));
    let past = pipeline.scan("spikes", &pipeline.docket_topic(), since, ScanBound::End)?;
    drop(waiting);
    let partitions = past.ranges().iter().filter(|s| s.from < s.to).map(|s| s.partition);
    let mut follower = Follower::new(config(args, spikes), lateness, partitions);
    follower.is_now(clock::now());
    let bar = progress(past.offsets(), "looking");
    let mut findings: BTreeMap<String, Finding> = BTreeMap::new();
    let (mut came_upon, mut recent) = (CameUpon::default(), Recent::default());
    let (mut decisions, mut repeats, mut unreadable) = (0u64, 0u64, 0u64);
    let mut found = |changes| findings.extend(in_the_end(changes, spikes));
    past.read_ends(&mut |n| bar.inc(n), &mut |partition, message| {
        let Some(message) = message else {
            follower.closed(partition);
            return true;
        };
        let Ok(record) = Record::parse(message.payload().unwrap_or_default()) else {
            unreadable += 1;
            return true;
        };
        let written = message.timestamp().to_millis().map_or(record.timestamp, |ms| ms * 1_000_000);
        if let Some(finding) = record::event(&record, written) {
            if !spikes.ignores(&finding) {
                came_upon.add(finding);
            }
        } else if Observation::with(&record, |seen| follower.observe(partition, seen, written))
            .is_some()
        {
            // The detector of `docket run` sees repeats, too.
            let repeated = recent.has(&record);
            decisions += u64::from(!repeated);
            repeats += u64::from(repeated);
            if (decisions + repeats).is_multiple_of(64) {
                found(follower.look_back(false));
            }
        }
        true
    })?;
    found(follower.look_back(true));
    // What came as a backlog: `docket run` says nothing of it, but here people ask for the past.
    let past = in_the_end(follower.past(), spikes);
    bar.finish_and_clear();
    let backlog = add_past(&mut findings, past);
    Ok(Look { findings, backlog, came_upon, decisions, repeats, unreadable, follower })
}

/// Whether a finding is one that was known already, perhaps later by so long.
fn is_same(known: &Finding, found: &Finding, later: Nanos) -> bool {
    let end = |finding: &Finding| finding.ended.unwrap_or(Nanos::MAX);
    (known.kind, &known.service, &known.policy) == (found.kind, &found.service, &found.policy)
        && known.onset <= end(found).saturating_add(later)
        && found.onset <= end(known)
}

/// Findings by their ids, as they were at last.
fn in_the_end(changes: Vec<Change>, spikes: &Spikes) -> BTreeMap<String, Finding> {
    let found =
        changes.into_iter().map(|(Change::Begins(finding) | Change::Ends(finding))| finding);
    let found = found.filter(|finding| !spikes.ignores(finding));
    found.map(|finding| (finding.id.clone(), finding)).collect()
}

/// Adds what a backlog held, and says how many of that `docket run` told nothing: what went on when the backlog ended it told, and how that
/// ended.
fn add_past(findings: &mut BTreeMap<String, Finding>, past: BTreeMap<String, Finding>) -> u64 {
    let before = findings.len();
    for (id, finding) in past {
        findings.entry(id).or_insert(finding);
    }
    (findings.len() - before) as u64
}

/// How much was found in how much, and what is to be known of that; `late` is what is to be said of decisions that came late.
fn summed(
    (findings, decisions, unreadable): (u64, u64, u64),
    [missed, backlog, read, left_out, repeats]: [u64; 5],
    late: Option<String>,
) -> Vec<String> {
    let found = format!("{} in {}", counted(findings, "finding"), counted(decisions, "decision"));
    let nothing = (decisions == 0).then(|| "--since says how far back to look (start: all)".into());
    let several = [
        (
            missed,
            "N of the findings are by when decisions were made: `docket run` could not know them in time",
        ),
        (backlog, "N of the findings came as a backlog, of which `docket run` says nothing"),
        (
            read,
            "N of the findings came from other parts of docket, as they stand in the docket topic",
        ),
        (left_out, "N more that stand there are left out: a later --since shows them"),
        (
            repeats,
            "decisions that came again are not counted: N; the detector of `docket run` sees them",
        ),
    ];
    let several = several.into_iter().filter(|(n, _)| *n > 0);
    let several = several.map(|(n, told)| told.replacen('N', &n.to_string(), 1));
    let unreadable = (unreadable > 0)
        .then(|| format!("{} in the topic not written by docket", counted(unreadable, "record")));
    [found].into_iter().chain(nothing).chain(late).chain(several).chain(unreadable).collect()
}

/// What is said of findings that go on where nothing came for a while.
fn silent(last: Nanos, now: Nanos) -> Option<String> {
    let seconds = now.saturating_sub(last) / 1_000_000_000;
    (last > Nanos::MIN && seconds > 90).then(|| {
        format!(
            "the last decision came {seconds} s ago: what lasted \"to the end\" went on then; how `docket run` ended it stands in the docket topic (docket tail --verdict finding)"
        )
    })
}

/// What came too late to be waited for; where it was waited for here, for how long.
fn late(decisions: u64, lateness: Nanos, waited: Option<Nanos>) -> String {
    let came = format!(
        "{} came more than {} s after being made",
        counted(decisions, "decision"),
        lateness as f64 / 1e9
    );
    match waited {
        Some(waited) => format!(
            "{came}, many of them too late for `docket run`: they are looked at once more as if it had waited {} s for them",
            waited / 1_000_000_000
        ),
        None => format!(
            "{came} and counted when they came; to wait longer, raise spikes.lateness in the pipeline file (everything is found later by that)"
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_comes_any_more_what_goes_on_is_of_the_last_decision() {
        let second = 1_000_000_000;
        assert_eq!(silent(Nanos::MIN, 900 * second), None);
        assert_eq!(silent(5 * second, 60 * second), None);
        let said = silent(5 * second, 605 * second).unwrap();
        assert!(said.starts_with("the last decision came 600 s ago: "), "{said}");
    }

    #[test]
    fn what_is_late_says_by_which_setting() {
        let said = late(2, 3_500_000_000, None);
        assert!(said.starts_with("2 decisions came more than 3.5 s after being made"), "{said}");
        assert!(said.contains("spikes.lateness in the pipeline file"), "{said}");
        let said = late(2, 3_500_000_000, Some(1024 * 1_000_000_000));
        assert!(said.ends_with("as if it had waited 1024 s for them"), "{said}");
    }

    #[test]
    fn what_run_found_late_is_not_found_twice() {
        let second = 1_000_000_000;
        let of = |onset: i64, ended: Option<i64>| Finding {
            onset: onset * second,
            ended: ended.map(|at| at * second),
            ..Finding::new(crate::spike::Kind::DenialSpike, "s", "p")
        };
        let found = of(1000, Some(1300));
        for (known, same) in [
            (of(1000, None), true),
            (of(1600, Some(1900)), true),
            (of(2100, None), false),
            (of(100, Some(900)), false),
        ] {
            assert_eq!(is_same(&known, &found, 720 * second), same, "{known:?}");
        }
        let other = Finding { service: "t".into(), ..of(1000, None) };
        assert!(!is_same(&other, &found, 0));
    }

    #[test]
    fn what_went_on_after_a_backlog_is_as_it_ended() {
        let finding = |ended| Finding {
            id: "i".into(),
            ended,
            ..Finding::new(crate::spike::Kind::DenialSpike, "s", "p")
        };
        let spikes = Spikes::default();
        let mut findings = in_the_end(
            vec![Change::Begins(finding(None)), Change::Ends(finding(Some(9)))],
            &spikes,
        );
        let past = in_the_end(vec![Change::Begins(finding(None))], &spikes);
        assert_eq!(add_past(&mut findings, past.clone()), 0);
        assert_eq!(findings["i"].ended, Some(9));
        assert_eq!(add_past(&mut BTreeMap::new(), past), 1);
        let all = summed((2, 7, 1), [0, 1, 0, 0, 0], Some(late(3, 3_000_000_000, None)));
        assert_eq!(all[0], "2 findings in 7 decisions");
        assert!(all.len() == 4 && all[2].starts_with("1 of the findings came as a backlog"));
    }
}
