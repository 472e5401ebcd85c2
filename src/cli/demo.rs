//! `docket demo`: the whole road inside one process, without any server: a Kafka of its own, generated
//! decisions with a denial spike in the middle (or the user's own decision logs), intake, the docket
//! topic, sinks; and in the terminal what a user came for.

use std::collections::{HashMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anstyle::Style;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio_util::sync::CancellationToken;

use super::tail::{printable, style};
use super::{CommandResult, feed};
use crate::config::secrets::{Outside, Real};
use crate::decision::formats::Ignored;
use crate::decision::ids::hex;
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::time;
use crate::decision::verdict::Verdict;
use crate::generate::{Generator, Mix, Shape};
use crate::log::client;
use crate::log::config::Kafka;
use crate::log::mock::Mock;
use crate::pipeline::topics::Limits;
use crate::pipeline::{self, Pipeline};
use crate::sink::{Outcome, Sink};
use crate::stage::roles::Roles;
use crate::stage::run::{Parts, Process};
use crate::telemetry::config::Admin;
use crate::telemetry::{self, Health, admin};

/// See docket work without any server, on generated decisions with a denial spike or on your own decision logs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket demo --for 30s
  docket demo decisions.ndjson more.json.gz      your own decision logs, in any format docket reads
  kubectl logs deploy/opa | docket demo -        what OPA wrote to its console

Of a pipeline file given with --pipeline, only the rules are used, not its Kafka and its sinks.")]
pub struct Args {
    /// Files of decision logs to use instead of generated ones; - is standard input. The demo ends when they are processed.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How long to run. Default: until interrupted.
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    period: Option<Duration>,
    /// Generated decisions per second.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Seed of the generator.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Pipeline file whose rules to use.
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    /// Address to serve /metrics on, host:port; port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

const SOURCE: &str = "opa-decisions";
const PARTITIONS: i32 = 4;
/// What may be under way at once: the in-process Kafka keeps only a few MB a partition.
const UNDER_WAY: u64 = 1000;

pub async fn run(args: Args) -> CommandResult {
    if args.rate.is_nan() || args.rate <= 0.0 {
        return Err("--rate must be greater than 0".into());
    }
    let content = args.files.iter().map(|path| feed::read(path)).collect::<Result<Vec<_>, _>>()?;
    if std::env::var_os("DOCKET_LOG").is_some() {
        std::mem::forget(telemetry::start(false, None)?);
    }
    let mock = Mock::start(&[
        (SOURCE, PARTITIONS),
        ("docket.demo", PARTITIONS),
        ("docket.demo.rejects", 1),
    ])?;
    let pipeline = pipeline(&args, &mock.bootstrap())?;
    let kafka = pipeline.file.kafka.clone();
    let process = Process {
        registry: prometheus::Registry::new(),
        exemplars: Arc::default(),
        health: Arc::new(Health::default()),
        stop: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        drain: Duration::from_secs(10),
        roles: Roles::default(),
    };
    let address = admin::serve(
        &Admin { listen: args.listen.clone(), tls: None },
        process.registry.clone(),
        process.exemplars.clone(),
        process.health.clone(),
        process.stop.clone(),
    )
    .await
    .map_err(|e| format!("{} can't be listened on: {e}", args.listen))?;
    anstream::println!(
        "docket demo: a Kafka inside this process, no server. Metrics: http://{address}/metrics"
    );

    let screen = Screen::default();
    let mut parts = Parts::new(pipeline, &process, Limits::default())?;
    parts.all()?;
    let file = parts.pipeline.clone();
    let on_screen =
        parts.deliver("screen", &file.file.sinks["metrics"], Arc::new(screen.clone()), None);
    parts.sink(on_screen)?;
    let running = parts;

    let fed = Arc::new(Fed::default());
    let feeder = {
        let (fed, stop, meters, screen) =
            (fed.clone(), process.stop.clone(), running.meters.clone(), screen.clone());
        let (period, rate, seed) = (args.period, args.rate, args.seed);
        tokio::task::spawn_blocking(move || -> Result<(), String> {
            let mut producer = Feeder::open(&kafka, fed, stop, meters, screen)?;
            let result = if content.is_empty() {
                producer.generated(seed, rate, period)
            } else {
                producer.files(&content)
            };
            producer.fed.done.store(true, Ordering::SeqCst);
            result
        })
    };
    show(&args, &screen, &running, &fed).await?;
    process.stop.cancel();
    feeder.await??;
    let (meters, decisions) = (running.meters.clone(), running.decisions.clone());
    tokio::task::spawn_blocking(move || running.join()).await?;
    summary(&screen, &meters, &decisions.by_verdict(), &fed);
    Ok(())
}

/// The demo's pipeline file, or the rules of the user's with the demo's Kafka and sinks.
fn pipeline(args: &Args, bootstrap: &str) -> Result<Pipeline, Box<dyn std::error::Error>> {
    let text = format!(
        "name: demo\nkafka: {{brokers: \"{bootstrap}\"}}\nsources: [{{topic: {SOURCE}}}]\ndocket: {{create: false}}\nsinks:\n  metrics: {{type: metrics, delivery: {{batch_age: 100ms}}}}\n"
    );
    let outside: &dyn Outside = &Real;
    let mut demo = pipeline::parse(Path::new("demo"), &text, outside)?;
    if let Some(path) = &args.pipeline {
        let theirs = pipeline::load(path)?;
        demo.rules = theirs.rules;
        demo.limits = theirs.limits;
    }
    Ok(demo)
}

/// What was put into the source topic.
#[derive(Default)]
struct Fed {
    records: AtomicU64,
    done: AtomicBool,
}

struct Feeder {
    producer: BaseProducer,
    fed: Arc<Fed>,
    stop: CancellationToken,
    meters: Arc<telemetry::Meters>,
    screen: Screen,
    next: i32,
}

impl Feeder {
    fn open(
        kafka: &Kafka,
        fed: Arc<Fed>,
        stop: CancellationToken,
        meters: Arc<telemetry::Meters>,
        screen: Screen,
    ) -> Result<Feeder, String> {
        let mut config = client::config(kafka, "demo");
        config.set("linger.ms", "5");
        let producer = client::with_properties(config, kafka)
            .create()
            .map_err(|e: KafkaError| e.to_string())?;
        Ok(Feeder { producer, fed, stop, meters, screen, next: 0 })
    }

    fn generated(&mut self, seed: u64, rate: f64, period: Option<Duration>) -> Result<(), String> {
        let mut generator = Generator::new(Mix { seed, ..Mix::default() });
        // The parts need a moment to join their groups; the show begins when they have.
        self.warm_up(&mut generator)?;
        let started = Instant::now();
        let mut written = 0u64;
        while !self.stop.is_cancelled() && period.is_none_or(|p| started.elapsed() < p) {
            // A spike in the middle; one every minute when the demo runs on.
            let (at, of) =
                (started.elapsed().as_secs_f64(), period.map_or(60.0, |p| p.as_secs_f64()));
            generator.spike = (0.45..0.65).contains(&((at / of).fract()));
            let rate = if generator.spike { rate * 1.6 } else { rate };
            let (record, _) = generator.record(Shape::Mixed, crate::clock::now());
            self.send(&record)?;
            written += 1;
            if written.is_multiple_of(8) {
                std::thread::sleep(Duration::from_secs_f64(8.0 / rate));
            }
        }
        self.flush()
    }

    fn warm_up(&mut self, generator: &mut Generator) -> Result<(), String> {
        let (record, _) = generator.record(Shape::Json, crate::clock::now());
        self.send(&record)?;
        self.flush()?;
        while self.screen.lock().total == 0 && !self.stop.is_cancelled() {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn files(&mut self, content: &[Vec<u8>]) -> Result<(), String> {
        for file in content {
            for record in feed::records(file) {
                if self.stop.is_cancelled() {
                    return Ok(());
                }
                self.send(record)?;
            }
        }
        self.flush()
    }

    /// Produces one record, when there is room under way.
    fn send(&mut self, record: &[u8]) -> Result<(), String> {
        let written = || -> u64 {
            Verdict::ALL
                .iter()
                .map(|v| self.meters.decisions.with_label_values(&[v.as_str()]).get())
                .sum()
        };
        let read = || self.meters.records.with_label_values(&[SOURCE]).get();
        let weight = 1 + record.len() as u64 / 4096;
        while !self.stop.is_cancelled() {
            let waiting = self.fed.records.load(Ordering::Relaxed).saturating_sub(read()) * weight;
            if waiting < UNDER_WAY / 4
                && written().saturating_sub(self.screen.lock().total) < UNDER_WAY
            {
                break;
            }
            self.producer.poll(Duration::from_millis(10));
        }
        let mut message = BaseRecord::<(), [u8]>::to(SOURCE).partition(self.next).payload(record);
        self.next = (self.next + 1) % PARTITIONS;
        loop {
            match self.producer.send(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(10));
                    message = back;
                }
                Err((error, _)) => {
                    return Err(format!("a record can't be put into the demo's Kafka: {error}"));
                }
            }
        }
        self.fed.records.fetch_add(1, Ordering::Relaxed);
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    fn flush(&self) -> Result<(), String> {
        self.producer.flush(Duration::from_secs(30)).map_err(|e| e.to_string())
    }
}

/// The sink that the terminal reads.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    total: u64,
    /// Decisions and denials by second of arrival.
    seconds: VecDeque<(u64, u64)>,
    second: Option<Instant>,
    /// Denials by service and policy.
    denied: HashMap<(String, String), u64>,
    /// A few decisions, drawn as traces: the last denial, the last that was allowed, one whose trace OPA's caller began elsewhere.
    examples: HashMap<&'static str, String>,
}

impl Screen {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one batch adds to the screen.
#[derive(Default)]
struct Shown {
    total: u64,
    denied: HashMap<(String, String), u64>,
    examples: HashMap<&'static str, String>,
}

impl Sink for Screen {
    type Body = Shown;

    fn encode(&self, batch: &[Record<'_>]) -> Shown {
        let mut shown = Shown { total: batch.len() as u64, ..Shown::default() };
        for record in batch {
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
                shown.examples.insert(kind, drawn(record));
            }
        }
        shown
    }

    fn size(_: &Shown) -> usize {
        0
    }

    async fn send(&self, shown: &Shown) -> Outcome {
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
        for (key, count) in &shown.denied {
            *seen.denied.entry(key.clone()).or_default() += count;
        }
        seen.examples.extend(shown.examples.iter().map(|(kind, text)| (*kind, text.clone())));
        Outcome::Delivered
    }
}

/// A decision as the trace that it becomes.
fn drawn(record: &Record<'_>) -> String {
    let dim = Style::new().dimmed();
    let verdict = style(record.verdict);
    let trace = hex(&record.trace_id.to_bytes());
    let above = match record.parent_span_id {
        Some(span) => {
            format!("span {} (from {})", hex(&span.to_bytes()), printable(&record.trace_from))
        }
        None => "no span above: the trace id is derived from the decision id".to_owned(),
    };
    let mut out = format!(
        "trace {trace}\n  {above}\n  └─ policy.decision {}  {verdict}{}{verdict:#}",
        printable(&record.policy),
        record.verdict.as_str()
    );
    if let Some(ns) = record.duration {
        out.push_str(&format!("  {:.2} ms", ns as f64 / 1e6));
    }
    let reasons: Vec<String> = json::elements(record.reasons)
        .take(2)
        .filter_map(json::as_str)
        .map(|r| printable(&r))
        .collect();
    if !reasons.is_empty() {
        out.push_str(&format!("\n       because {}", reasons.join("; ")));
    }
    let revisions: Vec<String> = record
        .revisions()
        .iter()
        .map(|(name, revision)| format!("{name}@{}", revision.chars().take(8).collect::<String>()))
        .collect();
    out.push_str(&format!(
        "\n       {dim}service {}  bundle {}  {}  decision {}{dim:#}",
        printable(&record.service),
        if revisions.is_empty() { "-".into() } else { printable(&revisions.join(",")) },
        time::format(record.timestamp),
        printable(&record.decision_id)
    ));
    out
}

/// Shows progress until the demo is over.
async fn show(args: &Args, screen: &Screen, running: &Parts, fed: &Fed) -> CommandResult {
    let live = std::io::stdout().is_terminal();
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(if live { 250 } else { 1000 }));
    let stop = super::asked_to_stop();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            stopped = &mut stop => {
                if live { anstream::println!(); }
                return Ok(stopped?);
            }
            _ = ticks.tick() => {}
        }
        let line = status(screen, running);
        if live {
            anstream::print!("\r\x1b[2K{line}");
            std::io::stdout().flush()?;
        } else if screen.lock().total > 0 && started.elapsed().as_secs().is_multiple_of(5) {
            anstream::println!("{line}");
        }
        if fed.done.load(Ordering::SeqCst) && everything_is_through(screen, running, fed) {
            if live {
                anstream::println!();
            }
            return Ok(());
        }
        if let Some(period) = args.period.filter(|_| !args.files.is_empty())
            && started.elapsed() > period
        {
            return Ok(());
        }
    }
}

fn everything_is_through(screen: &Screen, running: &Parts, fed: &Fed) -> bool {
    let meters = &running.meters;
    let written: u64 =
        Verdict::ALL.iter().map(|v| meters.decisions.with_label_values(&[v.as_str()]).get()).sum();
    let counted: u64 = running.decisions.by_verdict().iter().map(|(_, n)| n).sum();
    meters.records.with_label_values(&[SOURCE]).get() >= fed.records.load(Ordering::SeqCst)
        && screen.lock().total >= written
        && counted >= written
}

/// One line: counts by verdict, the last half minute of denials, and whether there is a spike.
fn status(screen: &Screen, running: &Parts) -> String {
    let verdicts: Vec<String> = running
        .decisions
        .by_verdict()
        .iter()
        .map(|(verdict, count)| {
            let style = style(*verdict);
            format!("{style}{}{style:#} {count}", verdict.as_str())
        })
        .collect();
    let seen = screen.lock();
    if seen.total == 0 {
        return "joining the consumer groups ..".into();
    }
    // Short enough for a terminal of 80 columns, since a line that wraps can't be written over.
    let recent: Vec<u64> =
        seen.seconds.iter().rev().take(12).rev().map(|(_, denied)| *denied).collect();
    let alarm = if spiking(&seen) { style(Verdict::Deny) } else { Style::new() };
    let word = if spiking(&seen) { "denial spike" } else { "denials/s" };
    format!("{}  {alarm}{word}{alarm:#} {}", verdicts.join(" "), sparkline(&recent))
}

/// Whether the last seconds have clearly more denials than those before.
fn spiking(seen: &Seen) -> bool {
    let denied: Vec<u64> = seen.seconds.iter().map(|(_, d)| *d).collect();
    if denied.len() < 6 {
        return false;
    }
    let (before, last) = denied.split_at(denied.len() - 2);
    let mut before = before.to_vec();
    before.sort_unstable();
    let usual = before[before.len() / 2] as f64;
    last.iter().all(|d| *d as f64 > 10.0 + 2.0 * usual)
}

fn sparkline(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(1).max(1);
    values.iter().map(|v| BARS[(v * 7 / most) as usize]).collect()
}

/// What is there to say at the end.
fn summary(screen: &Screen, meters: &telemetry::Meters, verdicts: &[(Verdict, u64)], fed: &Fed) {
    let bold = Style::new().bold();
    let total: u64 = verdicts.iter().map(|(_, n)| n).sum();
    anstream::println!(
        "\n{bold}{total} decisions{bold:#} from {} Kafka records",
        fed.records.load(Ordering::Relaxed)
    );
    for (verdict, count) in verdicts {
        let style = style(*verdict);
        anstream::println!("  {style}{:9}{style:#} {count:>8}", verdict.as_str());
    }
    let ignored = Ignored::ALL
        .iter()
        .map(|kind| meters.ignored.with_label_values(&[SOURCE, kind.as_str()]).get())
        .sum::<u64>();
    if ignored > 0 {
        anstream::println!("  {:9} {ignored:>8}  lines that can't be decisions", "ignored");
    }
    for reason in crate::decision::reject::Reason::ALL {
        let count = meters.rejects.with_label_values(&["intake", reason.as_str()]).get();
        if count > 0 {
            anstream::println!("  {:9} {count:>8}  {}", "rejected", reason.as_str());
        }
    }
    let seen = screen.lock();
    let mut denied: Vec<_> = seen.denied.iter().collect();
    denied.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    if !denied.is_empty() {
        anstream::println!("\n{bold}denied most{bold:#}");
        for ((service, policy), count) in denied.into_iter().take(5) {
            anstream::println!("  {count:>8}  {} {}", printable(service), printable(policy));
        }
        let each: Vec<u64> = seen.seconds.iter().map(|(_, d)| *d).collect();
        if each.len() > 3 {
            anstream::println!("  denials/s {}", sparkline(&each));
        }
    }
    let mut examples: Vec<_> = seen.examples.iter().collect();
    examples.sort();
    if !examples.is_empty() {
        anstream::println!("\n{bold}decisions as spans{bold:#}");
        for (_, example) in examples {
            anstream::println!("{example}");
        }
    }
}
