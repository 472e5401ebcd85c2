//! `docket init`: a pipeline file to begin with, from flags or from answers.

mod odd;
mod questions;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::shown::note;
use super::{CommandResult, Exit};
use crate::config::secrets::{Outside, Real};
use crate::pipeline;
use crate::words::shell;

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
    #[arg(long, value_name = "URL", value_parser = url::<4317>)]
    otlp: Option<String>,
    /// Where `docket verify` asks for traces: Jaeger or Tempo, such as http://localhost:16686.
    #[arg(long, value_name = "URL", requires = "otlp", value_parser = url::<16686>)]
    traces: Option<String>,
    /// Grafana Loki, such as http://localhost:3100.
    #[arg(long, value_name = "URL", value_parser = url::<3100>)]
    loki: Option<String>,
    /// VictoriaLogs, such as http://localhost:9428.
    #[arg(long, value_name = "URL", value_parser = url::<9428>)]
    victorialogs: Option<String>,
    /// Elasticsearch or OpenSearch, such as http://localhost:9200.
    #[arg(long, value_name = "URL", value_parser = url::<9200>)]
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
    #[arg(long, value_name = "URL", value_parser = url::<9090>)]
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

    /// What looks like the address of another server.
    fn odd(&self) -> Vec<String> {
        let options = [
            ("--otlp", &self.otlp, 4317),
            ("--traces", &self.traces, 16686),
            ("--loki", &self.loki, 3100),
            ("--victorialogs", &self.victorialogs, 9428),
            ("--elasticsearch", &self.elasticsearch, 9200),
            ("--prometheus", &self.prometheus, 9090),
        ];
        let told = |(option, url, port): (&str, &Option<String>, u16)| {
            let url = url.as_deref()?;
            Some(format!("{option} {url}: {}", odd::odd(url, port)?))
        };
        options.into_iter().filter_map(told).collect()
    }

    /// What is wrong with the file that is not there yet, by the options that it comes from.
    fn told(&self, error: &pipeline::LoadError) -> String {
        let out = self.out.as_deref().map(|path| path.to_string_lossy().into_owned());
        let mut options: Vec<(&str, &str)> = [
            ("--name", &self.name),
            ("--brokers", &self.brokers),
            ("--door", &self.door),
            ("--otlp", &self.otlp),
            ("--traces", &self.traces),
            ("--loki", &self.loki),
            ("--victorialogs", &self.victorialogs),
            ("--elasticsearch", &self.elasticsearch),
            ("--cloudwatch", &self.cloudwatch),
            ("--out", &out),
            ("--prometheus", &self.prometheus),
        ]
        .into_iter()
        .filter_map(|(option, value)| Some((option, value.as_deref()?)))
        .collect();
        options.extend(self.source.iter().map(|topic| ("--source", topic.as_str())));
        let lines = error.places().map(|(_, _, why)| {
            let named = options.iter().find(|(_, value)| why.contains(&format!("{value:?}")));
            let named = named.or_else(|| options.iter().find(|(_, value)| why.contains(value)));
            named.map_or_else(|| why.to_owned(), |(option, _)| format!("{option}: {why}"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

const BROKERS: &str = "localhost:9092";

/// Those that the shipped pipeline files read, too.
fn brokers() -> Option<String> {
    Real.env("KAFKA_BOOTSTRAP").filter(|brokers| !brokers.is_empty())
}

/// What people say where there is none.
fn says_no(answer: &str) -> bool {
    ["n", "no", "none", "-", "skip", "false"].iter().any(|no| answer.eq_ignore_ascii_case(no))
}

/// The URL of a server; the usual port of its kind, if it is given by its name alone.
fn url<const PORT: u16>(text: &str) -> Result<String, String> {
    let text = text.trim();
    if says_no(text) {
        return Err("that is no address; where there is none, leave the option out".into());
    }
    address(text, PORT)
}

/// A name alone may be a word that is no address at all; with a port, a dot or a scheme it is one.
fn address(text: &str, port: u16) -> Result<String, String> {
    let names_a_place = text.contains([':', '.']) || text.eq_ignore_ascii_case("localhost");
    if !names_a_place {
        return Err(format!("that is no URL; write it like http://localhost:{port}"));
    }
    let url = super::url(text).map_err(|why| why.replace(":9464", &format!(":{port}")))?;
    let named = reqwest::Url::parse(&url).is_ok_and(|u| u.port().is_none() && u.path() == "/");
    let alone = named && !text.contains("://") && !text.contains('/') && !url.ends_with(":80");
    Ok(if alone { format!("{url}:{port}") } else { url })
}

/// What is wrong with what is wanted so far, as `docket check` would say.
fn problem(wanted: &Wanted) -> Result<(), String> {
    // Where it goes may not be known yet.
    let so_far = Wanted { metrics: true, ..wanted.clone() };
    let checked = pipeline::parse(Path::new("pipeline"), &written(&so_far, "docket"), &Real);
    checked.map(|_| ()).map_err(|error| {
        error.places().map(|(_, _, why)| why.to_owned()).collect::<Vec<_>>().join("; ")
    })
}

pub fn run(args: &Args) -> CommandResult {
    let printed = args.file.as_os_str() == "-";
    let stem = args.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let stem = if printed { "docket" } else { stem };
    if !printed {
        writable(args)?;
    }
    let mut wanted = args.wanted.clone();
    let asked = wanted == Wanted::default() && std::io::stdin().is_terminal();
    if asked {
        let some = Wanted { metrics: true, ..Wanted::default() };
        pipeline::parse(&args.file, &written(&some, stem), &Real)?;
        let brokers = brokers().unwrap_or_else(|| BROKERS.to_owned());
        wanted = questions::asked(&brokers, &mut std::io::stdin().lock(), &mut std::io::stderr())?;
    }
    wanted.brokers = wanted.brokers.or_else(brokers);
    if !wanted.has_a_sink() {
        return Err(Exit::wrong(with_flags(&args.file, wanted == Wanted::default())).into());
    }
    let text = written(&wanted, stem);
    // What it is told may be wrong: an address, a name. `docket check` would say so.
    let pipeline = pipeline::parse(&args.file, &text, &Real)
        .map_err(|error| Exit::wrong(wanted.told(&error)))?;
    super::check::notes(&pipeline).iter().for_each(|told| note(told));
    if !asked {
        wanted.odd().iter().for_each(|told| note(told));
    }
    if printed {
        anstream::print!("{text}");
        return Ok(());
    }
    if let Err(e) = std::fs::write(&args.file, &text) {
        // What was answered is not lost.
        anstream::print!("{text}");
        return Err(format!(
            "{} can't be written: {e}; what would stand in it is on standard output",
            args.file.display()
        )
        .into());
    }
    let (named, file) = (args.file.display(), shell(&args.file.display()));
    anstream::println!(
        "{named} is written. Next:\n  docket check {file}\n  docket setup {file}\n  docket doctor {file}\n  docket run {file}"
    );
    Ok(())
}

/// Says what is in the way of the file before anything is asked.
fn writable(args: &Args) -> Result<(), String> {
    let file = args.file.display();
    if args.file.is_dir() {
        return Err(format!("{file} is a directory; name a file, such as {file}/my.yaml"));
    }
    if args.file.exists() && !args.force {
        return Err(format!("{file} is there already; --force overwrites it"));
    }
    match args.file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(format!("there is no directory {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// How it is done without a terminal.
fn with_flags(file: &Path, nothing_said: bool) -> String {
    let why = if nothing_said {
        "docket init asks at a terminal, and standard input is none. Flags say what there is:"
    } else {
        "where do the decisions go?"
    };
    format!(
        "{why}\n  docket init {} --source opa-decisions --loki http://localhost:3100 --metrics\n\
        At least one sink is needed: --otlp, --loki, --victorialogs, --elasticsearch,\n\
        --cloudwatch, --out, --metrics or --prometheus. `docket init --help` has all flags.",
        shell(&file.display())
    )
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
                crate::sink::any::query("x", sink, false).unwrap_or_else(|e| panic!("{name}: {e}"));
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
    fn each_option_is_asked_for_its_own_server() {
        let elsewhere = || Some("http://kafka:9092".to_owned());
        let wanted = Wanted {
            otlp: elsewhere(),
            traces: elsewhere(),
            loki: elsewhere(),
            victorialogs: elsewhere(),
            elasticsearch: elsewhere(),
            prometheus: elsewhere(),
            ..Wanted::default()
        };
        let said = wanted.odd();
        assert_eq!(said.len(), 6, "{said:?}");
        assert_eq!(
            said[2],
            "--loki http://kafka:9092: 9092 is the usual port of Kafka; that of Loki is 3100"
        );
    }

    #[test]
    fn a_word_for_no_is_no_address() {
        for no in ["no", "None", " - ", "skip", "n"] {
            assert!(url::<1>(no).is_err_and(|why| why.contains("leave the option out")), "{no}");
        }
        // A name alone means the usual port; who writes more means that.
        for (text, taken) in [
            ("loki:3101", "http://loki:3101"),
            ("localhost", "http://localhost:3100"),
            ("loki:80", "http://loki:80"),
            ("http://loki", "http://loki"),
            ("logs.example.org/loki", "http://logs.example.org/loki"),
        ] {
            assert_eq!(url::<3100>(text).as_deref(), Ok(taken));
        }
    }

    #[test]
    fn what_is_in_the_way_of_the_file_is_said_first_and_without_a_terminal_how_flags_do_it() {
        let args = |file: &str| Args { file: file.into(), wanted: Wanted::default(), force: false };
        let root = env!("CARGO_MANIFEST_DIR");
        for (file, why) in [
            (root.to_owned(), "is a directory"),
            (format!("{root}/Cargo.toml"), "--force overwrites it"),
            (format!("{root}/nowhere/my.yaml"), "there is no directory"),
        ] {
            assert!(writable(&args(&file)).is_err_and(|said| said.contains(why)), "{file}");
        }
        assert_eq!(writable(&args("not-there.yaml")), Ok(()));
        let said = with_flags(Path::new("my.yaml"), true);
        assert!(said.contains("  docket init my.yaml --source opa-decisions --loki "), "{said}");
        assert!(said.lines().all(|line| line.len() <= 86), "{said}");
    }
}
