//! `docket init`: a pipeline file to begin with, from flags or from answers.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::CommandResult;
use crate::config::secrets::{Outside, Real};
use crate::pipeline;

/// Write a pipeline file to begin with: from flags or, at a terminal and without any, by asking.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket init my.yaml                                           asks
  docket init my.yaml --source decisions --loki http://localhost:3100 --metrics
  docket init - --elasticsearch https://search:9200 --otlp http://tempo:4317

The file is one that `docket check` accepts. Nothing is overwritten unless --force is given.")]
pub struct Args {
    /// File to write; - is standard output.
    #[arg(value_name = "PIPELINE", default_value = "docket.yaml")]
    file: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    /// Overwrite the file if it is there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
struct Wanted {
    /// Name of the pipeline. Default: that of the file.
    #[arg(long)]
    name: Option<String>,
    /// Kafka's bootstrap servers: comma-separated list of host:port. Default: $KAFKA_BOOTSTRAP, or localhost:9092.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// Topics to read decision logs from, separated by commas. Default: opa-decisions.
    #[arg(long, value_name = "TOPIC", value_delimiter = ',')]
    source: Vec<String>,
    /// Let OPA upload to docket itself, at this address (docs/door.md).
    #[arg(long, value_name = "HOST:PORT")]
    door: Option<String>,
    /// A trace backend or collector: http://host:4317 (gRPC) or http://host:4318 (HTTP).
    #[arg(long, value_name = "URL", value_parser = super::url)]
    otlp: Option<String>,
    /// Where `docket verify` asks for traces: Jaeger or Tempo, such as http://localhost:16686.
    #[arg(long, value_name = "URL", requires = "otlp", value_parser = super::url)]
    traces: Option<String>,
    /// Grafana Loki, such as http://localhost:3100.
    #[arg(long, value_name = "URL", value_parser = super::url)]
    loki: Option<String>,
    /// VictoriaLogs, such as http://localhost:9428.
    #[arg(long, value_name = "URL", value_parser = super::url)]
    victorialogs: Option<String>,
    /// Elasticsearch or OpenSearch, such as http://localhost:9200.
    #[arg(long, value_name = "URL", value_parser = super::url)]
    elasticsearch: Option<String>,
    /// Log group of Amazon CloudWatch Logs.
    #[arg(long, value_name = "GROUP")]
    cloudwatch: Option<String>,
    /// File to write decisions to, one a line.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Prometheus metrics of decisions, on the admin port.
    #[arg(long)]
    metrics: bool,
    /// The same, and where `docket verify` asks for what was counted: the Prometheus that scrapes docket, such as http://localhost:9090.
    #[arg(long, value_name = "URL", value_parser = super::url)]
    prometheus: Option<String>,
    /// Leave secrets and personal data in decisions: no protect section.
    #[arg(long)]
    unprotected: bool,
    /// Do not look for denial spikes: no spikes section.
    #[arg(long)]
    no_spikes: bool,
}

impl Wanted {
    fn has_a_sink(&self) -> bool {
        self.metrics
            || self.prometheus.is_some()
            || self.out.is_some()
            || [&self.otlp, &self.loki, &self.victorialogs, &self.elasticsearch, &self.cloudwatch]
                .into_iter()
                .any(Option::is_some)
    }
}

const BROKERS: &str = "localhost:9092";

/// Those that the shipped pipeline files read, too.
fn brokers() -> Option<String> {
    Real.env("KAFKA_BOOTSTRAP").filter(|brokers| !brokers.is_empty())
}

pub fn run(args: &Args) -> CommandResult {
    let printed = args.file.as_os_str() == "-";
    if !printed && args.file.exists() && !args.force {
        return Err(
            format!("{} is there already; --force overwrites it", args.file.display()).into()
        );
    }
    let mut wanted = args.wanted.clone();
    if wanted == Wanted::default() && std::io::stdin().is_terminal() {
        let brokers = brokers().unwrap_or_else(|| BROKERS.to_owned());
        wanted = asked(&brokers, &mut std::io::stdin().lock(), &mut std::io::stderr())?;
    }
    wanted.brokers = wanted.brokers.or_else(brokers);
    if !wanted.has_a_sink() {
        return Err("name at least one sink: --otlp, --loki, --victorialogs, --elasticsearch, --cloudwatch, --out, --metrics, --prometheus".into());
    }
    let stem = args.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let text = written(&wanted, if printed { "docket" } else { stem });
    // What it is told may be wrong: an address, a name. `docket check` would say so.
    pipeline::parse(&args.file, &text, &Real)?;
    if printed {
        anstream::print!("{text}");
        return Ok(());
    }
    std::fs::write(&args.file, &text)
        .map_err(|e| format!("{} can't be written: {e}", args.file.display()))?;
    let file = args.file.display();
    anstream::println!(
        "{file} is written. Next:\n  docket check {file}\n  docket setup {file}\n  docket doctor {file}\n  docket run {file}"
    );
    Ok(())
}

/// Asks for one thing after the other; an empty answer is the default, or no.
fn asked(default: &str, input: &mut impl BufRead, out: &mut impl Write) -> std::io::Result<Wanted> {
    let mut ask = |question: &str| -> std::io::Result<Option<String>> {
        write!(out, "{question} ")?;
        out.flush()?;
        let mut line = String::new();
        input.read_line(&mut line)?;
        let answer = line.trim();
        Ok((!answer.is_empty()).then(|| answer.to_owned()))
    };
    let yes =
        |answer: Option<String>| answer.is_none_or(|a| !a.to_ascii_lowercase().starts_with('n'));
    let brokers = ask(&format!("Kafka's bootstrap servers? [{default}]"))?;
    let source = ask("Topics with OPA's decision logs, separated by commas? [opa-decisions]")?;
    let source = source.map_or_else(Vec::new, |s| s.split(',').map(|t| t.trim().into()).collect());
    let door =
        ask("Shall OPA upload to docket itself? At which address, such as 0.0.0.0:8443? [no]")?;
    let otlp = ask("Traces, to which OTLP endpoint, such as http://localhost:4317? [none]")?;
    let traces = match &otlp {
        Some(_) => ask(
            "Where they are found: Jaeger's or Tempo's URL, such as http://localhost:16686? [none: docket verify leaves them out]",
        )?,
        None => None,
    };
    Ok(Wanted {
        name: None,
        brokers,
        source,
        door,
        otlp,
        traces,
        loki: ask("Loki's URL, such as http://localhost:3100? [none]")?,
        victorialogs: ask("VictoriaLogs' URL, such as http://localhost:9428? [none]")?,
        elasticsearch: ask(
            "Elasticsearch's or OpenSearch's URL, such as http://localhost:9200? [none]",
        )?,
        cloudwatch: ask("CloudWatch's log group? [none]")?,
        out: None,
        metrics: yes(ask("Prometheus metrics on docket's admin port? [yes]")?),
        prometheus: ask(
            "The URL of that Prometheus, such as http://localhost:9090? [none: docket verify leaves its counts out]",
        )?,
        unprotected: !yes(ask("Take secrets and personal data out of decisions? [yes]")?),
        no_spikes: !yes(ask("Look for denial spikes? [yes]")?),
    })
}

/// Text of YAML in double quotes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn written(wanted: &Wanted, stem: &str) -> String {
    let usable: String =
        stem.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
    let usable = usable.trim_start_matches(['-', '_']);
    let default = if usable.is_empty() { "docket" } else { usable };
    let name = wanted.name.as_deref().unwrap_or(default);
    let brokers = wanted.brokers.as_deref().unwrap_or(BROKERS);
    let mut text = format!(
        "# Every setting: docs/pipeline.md, or `docket schema`.\nname: {}\n\nkafka:\n  brokers: {}\n  # Any librdkafka property:\n  # properties:\n  #   security.protocol: SASL_SSL\n  #   sasl.mechanism: SCRAM-SHA-512\n  #   sasl.username: docket\n  #   sasl.password: ${{file:/run/secrets/kafka-password}}\n\nsources:\n",
        quoted(name),
        quoted(brokers)
    );
    let default = vec!["opa-decisions".to_owned()];
    let sources = if wanted.source.is_empty() { &default } else { &wanted.source };
    for topic in sources {
        text.push_str(&format!("  - topic: {}\n", quoted(topic)));
    }
    if let Some(door) = &wanted.door {
        text.push_str(&format!("\n# OPA uploads here: services.docket.url, decision_logs.service (docs/door.md).\ndoor:\n  listen: {}\n", quoted(door)));
    }
    if !wanted.unprotected {
        text.push_str("\n# Secrets and personal data are erased, wherever they stand (docs/protect.md).\nprotect: {}\n");
    }
    text.push_str("\nsinks:\n");
    let mut sink = |name: &str, kind: &str, settings: &[(&str, Option<&str>)]| {
        text.push_str(&format!("  {name}:\n    type: {kind}\n"));
        for (setting, value) in settings {
            if let Some(value) = value {
                text.push_str(&format!("    {setting}: {}\n", quoted(value)));
            }
        }
    };
    if let Some(url) = wanted.otlp.as_deref() {
        let http = url.trim_end_matches('/').ends_with(":4318").then_some("http");
        sink(
            "traces",
            "otlp",
            &[("endpoint", Some(url)), ("protocol", http), ("query", wanted.traces.as_deref())],
        );
    }
    if let Some(url) = wanted.loki.as_deref() {
        sink("loki", "loki", &[("url", Some(url))]);
    }
    if let Some(url) = wanted.victorialogs.as_deref() {
        sink("victorialogs", "loki", &[("url", Some(url)), ("server", Some("victorialogs"))]);
    }
    if let Some(url) = wanted.elasticsearch.as_deref() {
        sink("search", "elasticsearch", &[("url", Some(url))]);
    }
    if let Some(group) = wanted.cloudwatch.as_deref() {
        sink("cloudwatch", "cloudwatch", &[("group", Some(group))]);
    }
    if let Some(path) = wanted.out.as_deref().map(Path::to_string_lossy) {
        sink("lines", "file", &[("path", Some(&path))]);
    }
    if wanted.metrics || wanted.prometheus.is_some() {
        sink("metrics", "metrics", &[("query", wanted.prometheus.as_deref())]);
    }
    if !wanted.no_spikes {
        text.push_str("\n# Denial spikes and silent failures (docs/spikes.md).\nspikes: {}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> pipeline::Pipeline {
        pipeline::parse(Path::new("my.yaml"), text, &Real).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    #[test]
    fn what_is_asked_for_stands_in_a_file_that_check_accepts() {
        let wanted = Wanted {
            name: None,
            brokers: Some("k1:9092,k2:9092".into()),
            source: vec!["a".into(), "b".into()],
            door: Some("0.0.0.0:8443".into()),
            otlp: Some("http://tempo:4318".into()),
            traces: Some("http://tempo:3200".into()),
            loki: Some("http://loki:3100".into()),
            victorialogs: Some("http://vl:9428".into()),
            elasticsearch: Some("http://es:9200".into()),
            cloudwatch: Some("/policy/decisions".into()),
            out: Some("decisions: \"odd\".ndjson".into()),
            metrics: false,
            prometheus: Some("http://prometheus:9090".into()),
            unprotected: false,
            no_spikes: false,
        };
        let pipeline = parsed(&written(&wanted, "my file.v2"));
        let file = &pipeline.file;
        assert_eq!((pipeline.name(), file.kafka.brokers.as_str()), ("myfilev2", "k1:9092,k2:9092"));
        assert_eq!(file.sources.iter().map(|s| s.topic.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let kinds: Vec<_> =
            file.sinks.values().map(crate::sink::config::SinkConfig::type_name).collect();
        assert_eq!(
            kinds,
            ["cloudwatch", "file", "loki", "metrics", "elasticsearch", "otlp", "loki"]
        );
        assert!(file.protect.is_some() && file.spikes.is_some() && file.door.is_some());
        // `docket verify` can ask each.
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (name, sink) in file.sinks.iter().filter(|(_, sink)| sink.type_name() != "cloudwatch") {
            let asked =
                crate::sink::any::query("x", sink).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(asked.is_ok(), "{name}: {:?}", asked.err());
        }
    }

    #[test]
    fn little_is_enough_and_the_defaults_hold() {
        let wanted =
            Wanted { metrics: true, unprotected: true, no_spikes: true, ..Wanted::default() };
        let pipeline = parsed(&written(&wanted, "-"));
        assert_eq!(pipeline.name(), "docket");
        assert_eq!(pipeline.file.sources[0].topic, "opa-decisions");
        assert!(pipeline.file.protect.is_none() && pipeline.file.spikes.is_none());
        assert!(!Wanted::default().has_a_sink());
    }

    #[test]
    fn answers_are_taken_and_an_empty_one_is_the_default() {
        let answers = "kafka:9092\n\n\n\nhttp://loki:3100\n\n\n\n\n\nno\n\n";
        let mut shown = Vec::new();
        let wanted = asked("k:9", &mut answers.as_bytes(), &mut shown).unwrap();
        let expected = Wanted {
            brokers: Some("kafka:9092".into()),
            loki: Some("http://loki:3100".into()),
            metrics: true,
            unprotected: true,
            ..Wanted::default()
        };
        assert_eq!(wanted, expected);
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("servers? [k:9]") && shown.contains("Loki's URL"), "{shown}");
    }
}
