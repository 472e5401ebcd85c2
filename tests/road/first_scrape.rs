//! What docket's own first scrape has, before anything came: `tests/data/first-scrape.prom`, recorded from a run. The alerts' test cases begin with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use docket::config::secrets::Real;
use docket::pipeline::yaml::{self, Node, Tree};
use regex_lite::Regex;

use super::*;

const RULES: &str = include_str!("../../deploy/prometheus/docket.rules.yaml");
const CASES: &str = include_str!("../../deploy/prometheus/docket.rules.test.yaml");
const RECORDED: &str = include_str!("../data/first-scrape.prom");

/// Everything that a pipeline can have.
const PIPELINE: &str = "name: opa
sources: [{topic: opa-decisions}]
docket: {create: false}
door: {listen: \"127.0.0.1:0\"}
join: {facts: [{topic: access-log, format: access_log}]}
spikes: {notify: {chat: {type: webhook, url: \"http://127.0.0.1:9\"}}}
sinks:
  loki: {type: loki, url: \"http://127.0.0.1:9\"}
  search: {type: elasticsearch, url: \"http://127.0.0.1:9\", index: opa}
  metrics: {type: metrics}
";

/// A series: its name and its labels, without those that Prometheus adds.
type Series = (String, BTreeMap<String, String>);

fn series(text: &str) -> Series {
    let (name, rest) = text.split_once('{').unwrap_or((text, "}"));
    let label = Regex::new(r#"(\w+)="([^"]*)""#).unwrap();
    let labels = label
        .captures_iter(rest)
        .map(|c| (c[1].to_owned(), c[2].to_owned()))
        .filter(|(name, _)| !["job", "instance", "version"].contains(&name.as_str()))
        .collect();
    (name.to_owned(), labels)
}

/// What a scrape has of docket, with its values. Of histograms only that they are there.
fn scraped(text: &str, file: &Path) -> BTreeMap<Series, String> {
    let own = |line: &&str| {
        line.starts_with("docket_") && !line.contains("_bucket{") && !line.contains("_created{")
    };
    let file = file.display().to_string();
    text.lines()
        .filter(own)
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (series(&name.replace(&file, "/etc/docket/opa.yaml")), value.to_owned())
        })
        .collect()
}

fn line((name, labels): &Series) -> String {
    let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_scrape_is_the_recorded_one() {
    let topics = [
        ("opa-decisions", 1),
        ("access-log", 1),
        ("docket.opa", 2),
        ("docket.opa.rejects", 1),
        ("docket.opa.pending", 2),
        ("docket.opa.facts", 2),
        ("docket.opa.amendments", 1),
        ("docket.opa.join", 1),
        ("docket.opa.spikes", 1),
    ];
    let mock = Mock::start(&topics).unwrap();
    let place = Place::new("first-scrape");
    let path = place.pipeline(&format!("{PIPELINE}kafka: {{brokers: \"{}\"}}\n", mock.bootstrap()));
    let running = Running::start(&place, &path);
    let scrape = async || scraped(&running.metrics().await.0, &path);
    if std::env::var_os("DOCKET_RECORD").is_some() {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        let text: String =
            scrape().await.iter().map(|(s, v)| format!("{} {v}\n", line(s))).collect();
        let to = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/first-scrape.prom");
        return std::fs::write(to, text).unwrap();
    }
    let recorded = scraped(RECORDED, &path);
    let known: BTreeSet<&Series> = recorded.keys().collect();
    let first = support::until("all are there, and no other", 60, async || {
        let now = scrape().await;
        // Gauges come as what they tell of is known; counters are there before.
        let there: BTreeSet<&Series> = now.keys().collect();
        let more = there.difference(&known).filter(|series| series.0.ends_with("_total"));
        let differ: Vec<String> = known.difference(&there).chain(more).map(|s| line(s)).collect();
        if differ.is_empty() { Ok(now) } else { Err(differ.join("\n")) }
    })
    .await;
    for (series, value) in first.iter().filter(|(s, _)| s.0.ends_with("_total")) {
        // What docket itself does is no event.
        let own =
            ["docket_transactions_total", "docket_rebalances_total", "docket_spikes_state_total"];
        assert!(value == "0" || own.contains(&series.0.as_str()), "{} {value}", line(series));
    }
}

fn read(text: &str) -> Node {
    let mut problems = Vec::new();
    let node = yaml::read(text, &Real, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    node.unwrap()
}

fn items<'n>(node: &'n Node, name: &str) -> Vec<&'n Node> {
    match &node.tree {
        Tree::Mapping(members) => match members.iter().find(|(key, _)| key.name == name) {
            Some((_, Node { tree: Tree::Sequence(items), .. })) => items.iter().collect(),
            Some((_, node)) => vec![node],
            None => Vec::new(),
        },
        _ => panic!("{node:?}"),
    }
}

fn value<'n>(node: &'n Node, name: &str) -> &'n str {
    match items(node, name).first().map(|node| &node.tree) {
        Some(Tree::Scalar(scalar)) => &scalar.value,
        _ => "",
    }
}

/// What is called after what comes, and so is not known before.
const OPEN: [&str; 4] = ["service", "policy", "opa", "revision"];

/// The labels of docket's metrics, as docs/metrics.md has them.
fn documented(name: &str) -> Option<BTreeSet<&'static str>> {
    let row = include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|row| row.strip_prefix("| `"))
        .find(|row| {
            row.split(" | ").next().unwrap().contains(&format!("{name}`"))
                || row.starts_with(&format!("{name}`"))
        })?;
    let words = row.split(" | ").nth(1).unwrap_or_default().split([',', ';', ' ']);
    Some(words.filter(|w| !w.is_empty() && *w != "or").chain(["pipeline"]).collect())
}

/// What is wrong with how a case's series begins.
fn begins_wrong(of: &str, values: &str, recorded: &BTreeMap<Series, String>) -> Option<String> {
    let mut asked = series(of);
    // Another pipeline begins as the recorded one does.
    if let Some(pipeline) = asked.1.get_mut("pipeline") {
        "opa".clone_into(pipeline);
    }
    let later = values.starts_with('_');
    let start = |value: &String| {
        let rest = values.strip_prefix(value.as_str());
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
    };
    if let Some(value) = recorded.get(&asked) {
        // Another process may come later, but its counters begin at nothing, too.
        let well = start(value) || (later && !asked.0.ends_with("_total"));
        return (!well).then(|| format!("{of} begins with {value}, not with {values}"));
    }
    if !later {
        return Some(format!("{of} is not there from the start"));
    }
    let alike = |(known, _): &(&Series, &String)| {
        let same = |(k, v): (&String, &String)| {
            asked.1.get(k).is_some_and(|a| a == v || OPEN.contains(&k.as_str()))
        };
        known.0 == asked.0 && known.1.len() == asked.1.len() && known.1.iter().all(same)
    };
    if recorded.keys().any(|known| known.0 == asked.0) {
        let well = recorded.iter().any(|known| alike(&known));
        return (!well).then(|| format!("{of} is none of those recorded"));
    }
    let well = documented(&asked.0)
        .is_some_and(|labels| asked.1.keys().all(|label| labels.contains(label.as_str())));
    (!well).then(|| format!("{of} is not in docs/metrics.md"))
}

#[test]
fn cases_of_alerts_begin_with_the_first_scrape() {
    let recorded = scraped(RECORDED, Path::new("/etc/docket/opa.yaml"));
    let cases = read(CASES);
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for case in items(&cases, "tests") {
        for input in items(case, "input_series") {
            let of = value(input, "series");
            used.insert(series(of).0);
            if of.starts_with("docket_") {
                wrong.extend(begins_wrong(of, value(input, "values"), &recorded));
            }
        }
    }
    assert!(used.len() > 20, "{used:?}");
    assert_eq!(wrong, Vec::<String>::new());
    let word = Regex::new(r"\bdocket_\w+").unwrap();
    let asked: BTreeSet<String> = word.find_iter(RULES).map(|m| m.as_str().to_owned()).collect();
    let unused: Vec<&String> = asked.difference(&used).collect();
    assert!(unused.is_empty(), "rules ask for {unused:?}, which no case has");
    // A check that lets everything pass is none.
    for (of, values) in [
        (r#"docket_reloads_total{file="/etc/docket/opa.yaml",outcome="refused"}"#, "1x5"),
        (r#"docket_reloads_total{file="/etc/docket/opa.yaml",outcome="refused"}"#, "_x5 1x5"),
        (r#"docket_rejects_total{pipeline="opa",part="intake",reason="made_up"}"#, "_x5 0x5"),
        (r#"docket_rejects_total{pipeline="opa",part="intake"}"#, "0x5"),
        (r#"docket_decisions_total{pipeline="opa",verdict="deny"}"#, "0+1x5"),
        (r#"docket_decisions_total{pipeline="opa",outcome="deny"}"#, "_ 0+1x5"),
        (r#"docket_part_up{pipeline="opa",part="loki"}"#, "10x5"),
        (r#"docket_made_up_total{pipeline="opa"}"#, "_x5"),
    ] {
        assert!(begins_wrong(of, values, &recorded).is_some(), "{of} {values}");
    }
}

/// In minutes.
fn minutes(time: &str) -> u32 {
    let (mut all, mut number) = (0, 0);
    for c in time.chars() {
        match c {
            '0'..='9' => number = number * 10 + c.to_digit(10).unwrap(),
            'h' => (all, number) = (all + number * 60, 0),
            'm' => (all, number) = (all + number, 0),
            _ => panic!("{time}"),
        }
    }
    all
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_is_over() {
    let alerts: BTreeSet<String> = items(&read(RULES), "groups")
        .into_iter()
        .flat_map(|group| items(group, "rules"))
        .map(|rule| value(rule, "alert").to_owned())
        .filter(|alert| !alert.is_empty())
        .collect();
    assert!(alerts.len() > 20);
    let mut driven = BTreeSet::new();
    for case in items(&read(CASES), "tests") {
        let mut steps: BTreeMap<&str, Vec<(u32, bool)>> = BTreeMap::new();
        for step in items(case, "alert_rule_test") {
            let fires = !items(step, "exp_alerts").is_empty();
            let at = minutes(value(step, "eval_time"));
            steps.entry(value(step, "alertname")).or_default().push((at, fires));
        }
        for (alert, mut steps) in steps {
            steps.sort_unstable();
            let mut fires: Vec<bool> = steps.into_iter().map(|(_, fires)| fires).collect();
            fires.dedup();
            if fires.starts_with(&[false, true, false]) {
                driven.insert(alert.to_owned());
            }
        }
    }
    let missing: Vec<&String> = alerts.difference(&driven).collect();
    assert!(missing.is_empty(), "not driven from quiet to firing and back: {missing:?}");
}
