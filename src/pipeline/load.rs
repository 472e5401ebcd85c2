//! From a pipeline file to what the running parts need, or to all that is wrong with it at once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{File, amending};
use super::join::Join;
use super::yaml::{self, Node, Place, Problem, Tree};
use super::{Defaulted, Pipeline, addresses, check, policies, rules};
use crate::config::secrets::{Outside, Real};
use crate::decision::formats::Limits;
use crate::log::config::Kafka;
use crate::log::tried;
use crate::protect::record::Rules;
use crate::sink::config::SinkConfig;

/// All that is wrong with a file.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    /// The file's text, to quote the lines from.
    text: String,
    problems: Vec<Problem>,
}

impl LoadError {
    /// Line, column and message of each; a line of 0 is none.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize, &str)> {
        self.problems.iter().map(|p| (p.at.line, p.at.column, p.message.as_str()))
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.text.lines().collect();
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let Place { line, column } = problem.at;
            if line == 0 {
                write!(f, "{}: {}", self.path.display(), problem.message)?;
                continue;
            }
            write!(f, "{}:{line}:{column}: {}", self.path.display(), problem.message)?;
            let hidden = self.problems.iter().any(|p| p.hidden && p.at.line == line);
            if let Some(text) = lines.get(line - 1).filter(|_| !hidden) {
                let pad = " ".repeat(line.to_string().len());
                write!(f, "\n  {line} | {text}\n  {pad} | {}^", " ".repeat(column - 1))?;
            }
        }
        Ok(())
    }
}

/// Reads a pipeline file, with references resolved from the environment and the file system.
pub fn load(path: &Path) -> Result<Pipeline, LoadError> {
    crate::config::tracked::reads(path);
    let text = std::fs::read_to_string(path).map_err(|e| LoadError {
        path: path.to_owned(),
        text: String::new(),
        problems: vec![Problem::new(Place { line: 0, column: 0 }, unread(&e))],
    })?;
    parse(path, &text, &Real)
}

fn unread(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::InvalidData => "can't be read: it is not text in UTF-8".into(),
        _ => format!("can't be read: {error}"),
    }
}

pub fn parse(path: &Path, text: &str, outside: &dyn Outside) -> Result<Pipeline, LoadError> {
    let mut problems = Vec::new();
    let error = |mut problems: Vec<Problem>| {
        problems.sort_by_key(|p| p.at);
        LoadError { path: path.to_owned(), text: text.to_owned(), problems }
    };
    let Some(node) = yaml::read(text, outside, &mut problems) else {
        if problems.is_empty() {
            problems.push(Problem::new(Place { line: 0, column: 0 }, "the file is empty".into()));
        }
        return Err(error(problems));
    };
    let value = check::check(&node, &check::schema(), &mut problems);
    if !problems.is_empty() {
        // What can still be compiled may be wrong, too; say so at once.
        if let Ok(mut file) = serde_json::from_value::<File>(value) {
            compile(&mut file, path, &node, &mut problems);
        }
        return Err(error(problems));
    }
    let mut file: File = match serde_json::from_value(value) {
        Ok(file) => file,
        Err(e) => {
            problems.push(Problem::new(node.at, e.to_string()));
            return Err(error(problems));
        }
    };
    let (rules, limits) = compile(&mut file, path, &node, &mut problems);
    if let Err(message) = super::memory::fit(&mut file) {
        problems.push(Problem::new(place(&node, &["memory", "budget"]), message));
    }
    if !problems.is_empty() {
        return Err(error(problems));
    }
    let mut defaults = Vec::new();
    defaulted(&node, &mut Vec::new(), &mut defaults);
    let line = |i: usize| place(&node, &["tests", &i.to_string()]).line;
    let test_lines = (0..file.tests.len()).map(line).collect();
    Ok(Pipeline { path: path.to_owned(), file, rules, limits, test_lines, defaults })
}

/// The variables that are not set, by the settings below a node that have their defaults.
fn defaulted(node: &Node, at: &mut Vec<String>, found: &mut Vec<Defaulted>) {
    let mut below = |key: String, node: &Node| {
        at.push(key);
        defaulted(node, at, found);
        at.pop();
    };
    match &node.tree {
        Tree::Mapping(pairs) => {
            pairs.iter().for_each(|(key, node)| below(key.name.clone(), node));
        }
        Tree::Sequence(nodes) => {
            nodes.iter().enumerate().for_each(|(i, node)| below(i.to_string(), node));
        }
        Tree::Scalar(scalar) => found.extend(
            scalar
                .defaults
                .iter()
                .map(|variable| Defaulted { setting: at.clone(), variable: variable.clone() }),
        ),
    }
}

/// Names of parts that are no sinks.
const RESERVED: [&str; 6] = ["intake", "rejects", "watchdog", "kafka", "spikes", "door"];

/// What the schema can't say; and what the running parts get.
fn compile(
    file: &mut File,
    path: &Path,
    node: &Node,
    problems: &mut Vec<Problem>,
) -> (Rules, Limits) {
    let mut problem =
        |path: &[&str], message: String| problems.push(Problem::new(place(node, path), message));
    let folder = path.parent().unwrap_or(Path::new("."));
    let protection =
        file.protect.as_mut().map(|protect| Arc::new(protect.compile(folder, &mut problem)));
    let policy = file
        .verdict_policy
        .as_mut()
        .and_then(|policy| policies::verdict(policy, folder, &mut problem));
    rules::check(file, &mut problem);
    addresses::check(file, &mut problem);
    topics(file, &mut problem);
    properties(&file.kafka, &mut problem);
    if let Some(door) = &file.door {
        door.check(&mut problem);
    }
    if let Some(join) = &file.join {
        join.check(&mut problem);
        joined(file, join, &mut problem);
    }
    sinks(file, &mut problem);
    let rules = Rules { record: rules::compile(file, policy), protection };
    let limits = Limits {
        decision: file.limits.decision_bytes.0,
        record: file.limits.record_bytes.0,
        elements: file.limits.record_elements,
    };
    (rules, limits)
}

/// Kafka's properties, each by itself, and then together.
fn properties(kafka: &Kafka, problem: &mut dyn FnMut(&[&str], String)) {
    let mut right = true;
    for (name, value) in &kafka.properties {
        if let Err(message) = value.check(name) {
            problem(&["kafka", "properties", name], message);
            right = false;
        }
    }
    if right
        && !kafka.properties.is_empty()
        && let Err(message) = tried(kafka)
    {
        problem(&["kafka", "properties"], message);
    }
}

/// No topic is read and written.
fn topics(file: &File, problem: &mut dyn FnMut(&[&str], String)) {
    let mut topics = HashSet::new();
    for (i, source) in file.sources.iter().enumerate() {
        if !topics.insert(&source.topic) {
            problem(
                &["sources", &i.to_string(), "topic"],
                format!("the topic {:?} is already a source", source.topic),
            );
        }
    }
    let (docket, rejects) = (file.docket_topic(), file.rejects_topic());
    for (key, topic) in [("topic", &docket), ("rejects", &rejects)] {
        if topics.contains(topic) {
            problem(
                &["docket", key],
                format!("{topic:?} is a source; docket would read what it writes"),
            );
        }
    }
    let door = file.door.as_ref().and_then(|door| door.topic.as_ref());
    if door.is_some_and(|topic| [&docket, &rejects].contains(&topic)) {
        problem(&["door", "topic"], "the door must write to a source, which intake reads".into());
    }
    if docket == rejects {
        problem(&["docket", "rejects"], "rejects need a topic of their own".into());
    }
    let learned = file.spikes_topic();
    if file.spikes.is_some()
        && (topics.contains(&learned) || [&docket, &rejects].contains(&&learned))
    {
        problem(
            &["spikes", "topic"],
            format!("{learned:?} is another topic; what is learned needs one of its own"),
        );
    }
}

/// Names of parts that there are with a join.
const JOIN_PARTS: [&str; 2] = ["facts", "join"];

/// No topic of the join is another's, and its members share their partitions out as it needs.
fn joined(file: &File, join: &Join, problem: &mut dyn FnMut(&[&str], String)) {
    let mut taken: HashSet<String> = file.sources.iter().map(|s| s.topic.clone()).collect();
    taken.extend([file.docket_topic(), file.rejects_topic()]);
    taken.extend([file.pending_topic(), file.facts_topic(), file.amendments_topic()]);
    taken.extend(file.spikes.as_ref().map(|_| file.spikes_topic()));
    for (i, source) in join.facts.iter().enumerate() {
        if !taken.insert(source.topic.clone()) {
            let message = format!("{:?} is another topic of this pipeline", source.topic);
            problem(&["join", "facts", &i.to_string(), "topic"], message);
        }
    }
    let own = [file.pending_topic(), file.facts_topic(), file.amendments_topic()];
    let others = [file.docket_topic(), file.rejects_topic(), file.spikes_topic()];
    let others = others.iter().chain(file.sources.iter().map(|s| &s.topic));
    for topic in others.filter(|topic| own.contains(topic)) {
        problem(&["join"], format!("{topic:?} is a topic that the join writes itself"));
    }
    const STRATEGY: &str = "partition.assignment.strategy";
    if file.kafka.properties.get(STRATEGY).is_some_and(|value| value.value() != "range") {
        let message =
            "the join needs range: decisions and requests of one key have to come to one process";
        problem(&["kafka", "properties", STRATEGY], message.into());
    }
    for (sink, _) in file.amended() {
        let part = amending(sink);
        if file.sinks.contains_key(&part) {
            let message = format!(
                "{part:?} can't be the name of a sink: it is the part that amends what {sink} holds"
            );
            problem(&["sinks", &part], message);
        }
    }
    for name in JOIN_PARTS {
        if file.sinks.contains_key(name) {
            let message = format!("{name:?} can't be the name of a sink: it is a part of the join");
            problem(&["sinks", name], message);
        }
    }
}

/// Sinks' names, their own settings, and where they hand on what is too old for them.
fn sinks(file: &File, problem: &mut dyn FnMut(&[&str], String)) {
    let mut files = HashMap::new();
    for (name, sink) in &file.sinks {
        if let SinkConfig::File(config) = sink
            && let Some(path) = config.file()
            && let Some(other) = files.insert(path, name)
        {
            problem(&["sinks", name, "path"], format!("the sink {other} writes to this file"));
        }
        let name_fits = !name.is_empty()
            && !RESERVED.contains(&name.as_str())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !name_fits {
            problem(
                &["sinks", name],
                format!(
                    "{name:?} can't be the name of a sink; use letters, digits, _ and -, but none of {}",
                    RESERVED.join(", ")
                ),
            );
        }
        sink.check(&mut |path, message| problem(&[&["sinks", name], path].concat(), message));
        let too_old = &sink.delivery().too_old;
        if too_old == "rejects" {
            continue;
        }
        let wrong = match file.sinks.get(too_old) {
            None => {
                Some(format!("there is no sink {too_old:?}; give rejects or the name of a sink"))
            }
            Some(_) if too_old == name => Some("a sink can't stand in for itself".into()),
            Some(other) if other.max_age().is_some() => {
                Some(format!("{too_old:?} has a max_age of its own; name a sink without one"))
            }
            Some(_) => None,
        };
        if let Some(message) = wrong {
            problem(&["sinks", name, "delivery", "too_old"], message);
        }
    }
}

/// Where the value at `path` stands; where a part of the path is missing, the place of what encloses it.
fn place(node: &Node, path: &[&str]) -> Place {
    let Some((head, rest)) = path.split_first() else { return node.at };
    let child = match &node.tree {
        Tree::Mapping(pairs) => {
            pairs.iter().find(|(key, _)| key.name == **head).map(|(_, node)| node)
        }
        Tree::Sequence(nodes) => head.parse::<usize>().ok().and_then(|i| nodes.get(i)),
        Tree::Scalar(_) => None,
    };
    child.map_or(node.at, |child| place(child, rest))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    struct Nothing;

    impl Outside for Nothing {
        fn env(&self, name: &str) -> Option<String> {
            (name == "PASSWORD").then(|| "canary".to_owned())
        }

        fn file(&self, _: &str) -> Result<Zeroizing<String>, String> {
            Err("no such file".into())
        }
    }

    fn parsed(text: &str) -> Result<Pipeline, LoadError> {
        parse(Path::new("p.yaml"), text, &Nothing)
    }

    #[test]
    fn no_two_sinks_write_to_one_file() {
        let text = "name: opa
kafka: {brokers: localhost:9092}
sources: [{topic: decisions}]
sinks:
  a: {type: file, path: out.ndjson}
  b: {type: file, path: ./out.ndjson}
  c: {type: file, path: '-'}
  d: {type: file, path: '-'}
";
        let Err(error) = parsed(text) else { panic!("it is taken") };
        let error = error.to_string();
        assert!(error.contains("p.yaml:6:") && error.contains("a writes to this file"), "{error}");
        assert!(!error.contains("p.yaml:8:"), "{error}");
    }

    #[test]
    fn protection_that_can_not_work_says_why() {
        let text = "name: opa
kafka: {brokers: localhost:9092}
sources: [{topic: decisions}]
protect:
  opa: {policies: [none.rego]}
  rules:
    - {path: /decision_id, action: erase}
    - {path: /input/a, action: hash}
    - {path: /input/a, action: truncate}
    - {path: /input/a, action: erase, value: x}
";
        let Err(error) = parsed(text) else { panic!("it is taken") };
        let error = error.to_string();
        for said in [
            "p.yaml:5:",
            "none.rego can't be read",
            "p.yaml:7:",
            "is not a JSON pointer to a part",
            "hash needs protect.hash_key",
            "length is required for truncate",
            "value is for replace only",
        ] {
            assert!(error.contains(said), "{said}:\n{error}");
        }
    }

    #[test]
    fn a_small_file_is_enough() {
        let pipeline =
            parsed("name: opa\nkafka: {brokers: localhost:9092}\nsources: [{topic: decisions}]\n")
                .map_err(|e| e.to_string())
                .unwrap();
        assert_eq!(pipeline.docket_topic(), "docket.opa");
        assert_eq!(pipeline.rejects_topic(), "docket.opa.rejects");
        assert_eq!(pipeline.group("loki"), "docket.opa.loki");
        assert!(pipeline.file.sinks.is_empty());
    }

    /// schemars puts words with a description apart from those without, and `check` knows the former.
    #[test]
    fn every_word_that_the_schema_has_is_taken() {
        fn look(schema: &serde_json::Value, mixed: &mut Vec<String>) {
            let options = schema.get("oneOf").or_else(|| schema.get("anyOf"));
            let options = options.and_then(serde_json::Value::as_array);
            let has = |key: &str| options.is_some_and(|o| o.iter().any(|o| o.get(key).is_some()));
            if has("const") && has("enum") {
                mixed.push(schema.to_string());
            }
            let members = schema.as_object().into_iter().flat_map(|object| object.values());
            let elements = schema.as_array().into_iter().flatten();
            members.chain(elements).for_each(|inner| look(inner, mixed));
        }
        let mut mixed = Vec::new();
        look(&check::schema(), &mut mixed);
        assert_eq!(mixed, Vec::<String>::new());
        parsed(
            "name: opa
kafka: {brokers: x}
sources: [{topic: t, format: otlp_proto}]
telemetry: {push: {p: {type: remote_write, url: http://x, version: \"1.0\"}}}
sinks: {a: {type: otlp, endpoint: http://x, protocol: grpc, signals: [traces, logs], compression: none}}
",
        )
        .map_err(|e| e.to_string())
        .unwrap();
    }

    #[test]
    fn all_errors_of_a_file_are_told_at_once_with_their_places() {
        let error = parsed(
            r#"name: my pipeline
kafka:
  brokers: ${env:UNSET}
  propertys: {}
sources:
  - topic: decisions
    fromat: json
  - topic: decisions
    format: jsn
docket:
  partitions: 0
  retention: forever
verdict:
  - path: "a/[b"
    pointer: allow
sinks:
  logs:
    type: lokki
  search:
    type: elasticsearch
    url: localhost:9200
    auth: {type: basic, username: u}
  more:
    type: loki
    url: http://127.0.0.1:3100
    labels: {service: servce}
    delivery: {concurrency: many, batch_age: 5}
    tenant: 12
limits: [1]
"#,
        )
        .unwrap_err()
        .to_string();
        insta::assert_snapshot!("all_errors_of_a_file", error);
    }

    #[test]
    fn secrets_are_in_no_message() {
        let error = parsed("name: opa\nkafka: {brokers: localhost:9092}\nsources: [{topic: t}]\nsinks:\n  s: {type: elasticsearch, url: \"${env:PASSWORD}\", index: \"${env:PASSWORD}!\"}\nverdict: [{path: \"${env:PASSWORD}[\"}]\n").unwrap_err();
        assert!(error.to_string().contains("does not resolve to a glob"), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }

    #[test]
    fn secrets_do_not_stand_in_the_file() {
        let error = parsed(
            "name: opa
kafka: {brokers: x, properties: {sasl.mechanism: PLAIN, sasl.oauthbearer.token.endpoint.url: \"https://idp/token\", sasl.password: canary}}
sources: [{topic: t}]
door: {listen: \"127.0.0.1:0\", tokens: {team: canary-canary-canary}}
protect:
  hash_key: 1234567890123456
  encryption_key: {id: k, key: \"canary\"}
sinks:
  a: {type: loki, url: \"http://u:canary@x\"}
  b: {type: loki, url: http://x, headers: {X-Scope: a, x-Api-Key: canary}}
  c: {type: loki, url: http://x, auth: {type: basic, username: u, password: canary}, tenannt: canary}
  d: {type: loki, url: http://x, auth: {type: bearer, token: \"${env:PASSWORD}\"}, pasword: canary}
  e: {type: loki, url: \"http://u:${env:PASSWORD}@x\", labels: {a: =canary, b: c}, auth: {type: bearer, token: canary}}
spikes: {notify: {chat: {type: slack, url: https://hooks/canary}}}
",
        )
        .unwrap_err();
        let error = error.to_string();
        assert!(!error.contains("canary") && !error.contains("123456"), "{error}");
        let lines: Vec<usize> = error
            .lines()
            .filter_map(|l| l.strip_prefix("p.yaml:")?.split(':').next()?.parse().ok())
            .collect();
        assert_eq!(lines, [2, 4, 6, 7, 9, 10, 11, 11, 12, 13, 13, 14], "{error}");
        assert!(error.contains("p.yaml:2:130: \"sasl.password\" is a secret and must not be in the file; write ${env:NAME} or ${file:PATH}"), "{error}");
        let broken = parsed("name: opa\nsinks: {a: {token: [canary}\n").unwrap_err().to_string();
        assert!(broken.contains("not YAML") && !broken.contains("canary"), "{broken}");
    }

    #[test]
    fn librdkafka_properties_are_checked_without_showing_their_values() {
        let file = |property: &str| {
            parsed(&format!(
                "name: opa\nkafka: {{brokers: x, properties: {{{property}}}}}\nsources: [{{topic: t}}]\n"
            ))
        };
        file("security.protocol: ssl, session.timeout.ms: 6000, enable.ssl.certificate.verification: true").map_err(|e| e.to_string()).unwrap();
        assert!(
            file("sasl.pasword: canary")
                .unwrap_err()
                .to_string()
                .contains("librdkafka has no property \"sasl.pasword\"")
        );
        for (own, why) in [
            ("enable.auto.commit: false", "docket commits an offset only when"),
            ("auto.offset.reset: earliest", "docket never jumps"),
            ("isolation.level: read_committed", "aborted"),
            ("acks: 1", "not all replicas"),
            ("transactional.id: x", "exactly once"),
            ("group.instance.id: x", "intake.instance_id"),
        ] {
            let error = file(own).unwrap_err().to_string();
            assert!(error.contains("can't be set here") && error.contains(why), "{own}: {error}");
        }
        let error = file("security.protocol: \"${env:PASSWORD}\"").unwrap_err().to_string();
        assert!(error.contains("does not take this value") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn properties_with_which_nothing_can_run_are_refused() {
        let file = |property: &str| {
            parsed(&format!(
                "name: opa\nkafka: {{brokers: x, properties: {{{property}}}}}\nsources: [{{topic: t}}]\n"
            ))
        };
        for (property, why) in [
            ("message.timeout.ms: 1", "5000 at least"),
            ("topic.message.timeout.ms: 4999", "5000 at least"),
            ("delivery.timeout.ms: 0", "5000 at least"),
            ("message.timeout.ms: 15001", "`transaction.timeout.ms`"),
            ("retries: 0", "`retries` must be set >= 1"),
            ("message.send.max.retries: 0", "`retries` must be set >= 1"),
            ("max.in.flight: 100", "`max.in.flight` must be set <= 5"),
            ("max.in.flight.requests.per.connection: 6", "`max.in.flight` must be set <= 5"),
            ("max.poll.interval.ms: 1000", "`session.timeout.ms`"),
            ("session.timeout.ms: 400000", "`max.poll.interval.ms`"),
            ("socket.timeout.ms: 20000", "`transaction.timeout.ms`"),
            ("test.mock.num.brokers: 3", "for tests"),
            ("topic.test.mock.num.brokers: 3", "for tests"),
            ("topic.auto.offset.reset: latest", "docket never jumps"),
            ("topic.acks: 0", "not all replicas"),
            ("topic.request.required.acks: 0", "not all replicas"),
            ("topic.partitioner: random", "one partition"),
            ("message.max.bytes: 1000", "goes to rejects"),
            ("topic.blacklist: \".*\"", "reads all topics"),
        ] {
            let error = file(property).unwrap_err().to_string();
            assert!(error.contains("p.yaml:2:") && error.contains(why), "{property}: {error}");
        }
        // What is not the pipeline file's alone is left to where it runs.
        let text = "security.protocol: sasl_ssl, sasl.mechanism: PLAIN, ssl.ca.location: /nowhere/ca.pem, message.timeout.ms: 10000, retries: 9, max.in.flight: 5, max.poll.interval.ms: 60000, topic.compression.type: gzip, debug: broker";
        file(text).map_err(|e| e.to_string()).unwrap();
    }

    #[test]
    fn broken_yaml_and_repeated_keys_have_places() {
        assert!(parsed("name: [\n").unwrap_err().to_string().contains("not YAML"));
        assert!(parsed("").unwrap_err().to_string().contains("empty"));
        let twice = parsed("name: a\nname: b\nkafka: {brokers: x}\nsources: [{topic: t}]\n")
            .unwrap_err()
            .to_string();
        assert!(twice.starts_with("p.yaml:2:1: \"name\" is given twice"), "{twice}");
    }
}
