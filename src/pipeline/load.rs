//! From a pipeline file to what the running parts need, or to all that is wrong with it at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use super::check;
use super::model::{File, Sink, TraceSource, VerdictPolicy, VerdictRule};
use super::secrets::{Outside, Real};
use super::yaml::{self, Node, Place, Problem, Tree};
use crate::decision::formats::Limits;
use crate::decision::json::Pointer;
use crate::decision::label;
use crate::decision::record::{self, Service};
use crate::decision::request;
use crate::decision::{trace, verdict};
use crate::protect::record::Rules;
use crate::protect::redact::Redaction;
use crate::rego::{self, Policies};

/// A pipeline file that is right, with its rules compiled.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub path: PathBuf,
    pub file: File,
    pub rules: Rules,
    pub limits: Limits,
}

impl Pipeline {
    pub fn name(&self) -> &str {
        &self.file.name
    }

    pub fn docket_topic(&self) -> String {
        self.file.docket.topic.clone().unwrap_or_else(|| format!("docket.{}", self.file.name))
    }

    pub fn rejects_topic(&self) -> String {
        self.file
            .docket
            .rejects
            .clone()
            .unwrap_or_else(|| format!("{}.rejects", self.docket_topic()))
    }

    /// The topic that the door writes to, if there is one.
    pub fn door_topic(&self) -> Option<&str> {
        let door = self.file.door.as_ref()?;
        door.topic.as_deref().or_else(|| Some(&self.file.sources.first()?.topic))
    }

    /// The consumer group of one part: `intake`, or a sink's name.
    pub fn group(&self, part: &str) -> String {
        match (part, &self.file.intake.group) {
            ("intake", Some(group)) => group.clone(),
            _ => format!("docket.{}.{part}", self.file.name),
        }
    }
}

/// All that is wrong with a file.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    /// The file's text, to quote the lines from.
    text: String,
    problems: Vec<Problem>,
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
    let text = std::fs::read_to_string(path).map_err(|e| LoadError {
        path: path.to_owned(),
        text: String::new(),
        problems: vec![Problem::new(Place { line: 0, column: 0 }, format!("can't be read: {e}"))],
    })?;
    parse(path, &text, &Real)
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
    Ok(Pipeline { path: path.to_owned(), file, rules, limits })
}

/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html>
const RETENTIONS: [u32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
];

/// Names of parts that are no sinks.
const RESERVED: [&str; 6] = ["intake", "rejects", "watchdog", "kafka", "spikes", "door"];

/// What the schema can't say.
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
        .and_then(|policy| verdict_policy(policy, folder, &mut problem));
    let mut verdict_rules = Vec::new();
    for (i, rule) in file.verdict.iter().enumerate() {
        if let Some(rule) =
            verdict_rule(rule, |key, message| problem(&["verdict", &i.to_string(), key], message))
        {
            verdict_rules.push(rule);
        }
    }
    let mut trace_rules = trace::Rules::default();
    if let Some(order) = &file.trace.order {
        trace_rules.order = order.iter().map(|source| trace_source(*source)).collect();
    }
    if let Some(pointers) = &file.trace.input_headers {
        trace_rules.input_headers.clear();
        for (i, text) in pointers.iter().enumerate() {
            match Pointer::parse(text) {
                Some(pointer) => trace_rules.input_headers.push(pointer),
                None => problem(&["trace", "input_headers", &i.to_string()], not_a_pointer(text)),
            }
        }
    }
    let mut topics = std::collections::HashSet::new();
    for (i, source) in file.sources.iter().enumerate() {
        if !topics.insert(&source.topic) {
            problem(
                &["sources", &i.to_string(), "topic"],
                format!("the topic {:?} is a source already", source.topic),
            );
        }
    }
    let docket = file.docket.topic.clone().unwrap_or_else(|| format!("docket.{}", file.name));
    let rejects = file.docket.rejects.clone().unwrap_or_else(|| format!("{docket}.rejects"));
    for (key, topic) in [("topic", &docket), ("rejects", &rejects)] {
        if topics.contains(topic) {
            problem(
                &["docket", key],
                format!("{topic:?} is a source; docket would read what it writes"),
            );
        }
    }
    if let Some(door) = &file.door {
        door.check(&mut problem);
        if door.topic.as_ref().is_some_and(|topic| [&docket, &rejects].contains(&topic)) {
            problem(&["door", "topic"], "the door writes to a source, which intake reads".into());
        }
    }
    if docket == rejects {
        problem(&["docket", "rejects"], "rejects need a topic of their own".into());
    }
    for (name, value) in &file.kafka.properties {
        if let Err(message) = crate::log::client::check_property(name, &value.value()) {
            problem(&["kafka", "properties", name], message);
        }
    }
    for (name, sink) in &file.sinks {
        let name_fits = !name.is_empty()
            && !RESERVED.contains(&name.as_str())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !name_fits {
            problem(
                &["sinks", name],
                format!(
                    "{name:?} can't name a sink; use letters, digits, _ and -, and none of {}",
                    RESERVED.join(", ")
                ),
            );
        }
        if let Sink::Loki(loki) = sink {
            for (label, source) in &loki.labels {
                if let Err(message) = label::label(label, source) {
                    problem(&["sinks", name, "labels", label], message);
                }
            }
        }
        if let Sink::Cloudwatch(config) = sink {
            if let Err(message) = label::template(&config.stream) {
                problem(&["sinks", name, "stream"], message);
            }
            if let Some(days) = config.retention_days.filter(|days| !RETENTIONS.contains(days)) {
                problem(
                    &["sinks", name, "retention_days"],
                    format!("CloudWatch has no retention of {days} days; it has {RETENTIONS:?}"),
                );
            }
        }
        let delivery = sink.delivery();
        if delivery.too_old != "rejects" {
            match file.sinks.get(&delivery.too_old) {
                None => problem(
                    &["sinks", name, "delivery", "too_old"],
                    format!(
                        "there is no sink {:?}; it is rejects or a sink's name",
                        delivery.too_old
                    ),
                ),
                Some(_) if delivery.too_old == *name => problem(
                    &["sinks", name, "delivery", "too_old"],
                    "a sink can't stand in for itself".into(),
                ),
                Some(other) if other.max_age().is_some() => {
                    problem(
                        &["sinks", name, "delivery", "too_old"],
                        format!(
                            "{:?} has a max_age of its own; name a sink that takes any age",
                            delivery.too_old
                        ),
                    );
                }
                Some(_) => {}
            }
        }
        if let Err((i, message)) = Redaction::parse(&delivery.redact) {
            problem(&["sinks", name, "delivery", "redact", &i.to_string()], message);
        }
        for (key, bytes) in [("batch_bytes", delivery.batch_bytes), ("prefetch", delivery.prefetch)]
        {
            if bytes.0 == 0 {
                problem(&["sinks", name, "delivery", key], "it must be more than nothing".into());
            }
        }
        for (key, span) in [
            ("timeout", delivery.timeout),
            ("retry_initial", delivery.retry_initial),
            ("retry_max", delivery.retry_max),
        ] {
            if span.0.is_zero() {
                problem(&["sinks", name, "delivery", key], "it must be more than nothing".into());
            }
        }
    }
    let request = {
        let mut pointers = |key: &str, given: &Option<Vec<String>>| {
            let given = given.as_ref()?;
            let mut all = Vec::new();
            for (i, text) in given.iter().enumerate() {
                match Pointer::parse(text) {
                    None => problem(&["request", key, &i.to_string()], not_a_pointer(text)),
                    Some(pointer)
                        if !pointer
                            .names()
                            .first()
                            .is_some_and(|name| request::PARTS.contains(&name.as_str())) =>
                    {
                        problem(
                            &["request", key, &i.to_string()],
                            format!("it must begin with one of /{}", request::PARTS.join(", /")),
                        );
                    }
                    Some(pointer) => all.push(pointer),
                }
            }
            Some(all)
        };
        let given = &file.request;
        request::Rules::new([
            pointers("subject", &given.subject),
            pointers("action", &given.action),
            pointers("resource", &given.resource),
        ])
    };
    let record = record::Rules {
        request,
        verdict: verdict::Rules { policy, rules: verdict_rules },
        trace: trace_rules,
        service: Service {
            name_label: file.service.name_label.clone(),
            instance_label: file.service.instance_label.clone(),
        },
    };
    let rules = Rules { record, protection };
    (rules, Limits { decision: file.limits.decision_bytes.0, record: file.limits.record_bytes.0 })
}

fn verdict_policy(
    policy: &mut VerdictPolicy,
    folder: &Path,
    problem: &mut dyn FnMut(&[&str], String),
) -> Option<Arc<rego::Rule>> {
    let mut wrong =
        |path: &[&str], message: String| problem(&[&["verdict_policy"], path].concat(), message);
    let (policies, data) =
        super::protect::read_all(folder, &policy.policies, &policy.data, &mut wrong)?;
    let name = rego::rule_name(&policy.rule);
    let rule = Policies::new(&policies, &data)
        .and_then(|mut all| all.rule(&name))
        .and_then(|rule| rule.ok_or_else(|| format!("the policies have no {name}")));
    policy.loaded = policies.into_iter().chain(data).collect();
    rule.map(Arc::new).map_err(|e| wrong(&[], e)).ok()
}

fn verdict_rule(
    rule: &VerdictRule,
    mut problem: impl FnMut(&str, String),
) -> Option<verdict::Rule> {
    let path = glob(&rule.path).map_err(|e| problem("path", e)).ok();
    let mut pointer = |key: &str, text: &str| {
        let pointer = Pointer::parse(text);
        if pointer.is_none() {
            problem(key, not_a_pointer(text));
        }
        pointer
    };
    let answer = pointer("pointer", &rule.pointer);
    let reasons = match &rule.reasons {
        None => None,
        Some(text) => Some(pointer("reasons", text)?),
    };
    if let Some(both) = rule.allow.iter().find(|value| rule.deny.contains(value)) {
        problem("deny", format!("{both} means allow and deny"));
    }
    Some(verdict::Rule {
        path: path?,
        pointer: answer?,
        allow: rule.allow.clone(),
        deny: rule.deny.clone(),
        reasons,
    })
}

/// Policies by their path: `*` within a part, `**` across parts.
pub(super) fn glob(text: &str) -> Result<GlobMatcher, String> {
    let text = text.trim_start_matches('/');
    let glob = GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map_err(|e| format!("not a glob: {e}"))?;
    Ok(glob.compile_matcher())
}

fn not_a_pointer(text: &str) -> String {
    format!("{text:?} is not a JSON pointer; it is empty or starts with / (RFC 6901)")
}

fn trace_source(source: TraceSource) -> trace::Carrier {
    match source {
        TraceSource::Decision => trace::Carrier::Decision,
        TraceSource::RequestContext => trace::Carrier::RequestContext,
        TraceSource::Input => trace::Carrier::Input,
        TraceSource::Record => trace::Carrier::Record,
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
            "truncate has a length",
            "only replace has a value",
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
        let error = parsed("name: opa\nkafka: {brokers: localhost:9092}\nsources: [{topic: t}]\nsinks:\n  s: {type: elasticsearch, url: \"${env:PASSWORD}\", index: \"${env:PASSWORD}!\"}\n").unwrap_err();
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
        assert!(error.contains("p.yaml:2:130: \"sasl.password\" is a secret, which does not stand in the file; write ${env:NAME} or ${file:PATH}"), "{error}");
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
        let error = file("security.protocol: \"${env:PASSWORD}\"").unwrap_err().to_string();
        assert!(error.contains("does not take this value") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn broken_yaml_and_repeated_keys_have_places() {
        assert!(parsed("name: [\n").unwrap_err().to_string().contains("not YAML"));
        assert!(parsed("").unwrap_err().to_string().contains("empty"));
        let twice = parsed("name: a\nname: b\nkafka: {brokers: x}\nsources: [{topic: t}]\n")
            .unwrap_err()
            .to_string();
        assert!(twice.starts_with("p.yaml:2:1: \"name\" stands here a second time"), "{twice}");
    }
}
