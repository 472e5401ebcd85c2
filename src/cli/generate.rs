//! `docket generate`: load.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::CommandResult;
use crate::decision::time;
use crate::generate::scenario::{Day, Scenario};
use crate::generate::{Generator, Mix, Shape, UPLOAD};
use crate::log::ask::Asker;
use crate::log::client;

/// Generate decisions, as OPA would log them, to standard output or to a pipeline's source topic.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket generate --count 1000 > decisions.ndjson
  docket generate --to pipelines/opa.yaml --rate 500 --for 10m --deny 0.2
  docket generate --to pipelines/opa.yaml --count 100000 --format mixed
  docket generate --to pipelines/opa.yaml --scenario attack     a drill
  docket generate --scenario bad-bundle > day.ndjson     a day: some 1 GB

With --scenario, the decisions are those of a made-up platform of six services on which one thing happens. With --to it is a drill: the \
hour before is written at once, and what happens begins a minute from now, in real time.")]
pub struct Args {
    /// Pipeline file whose first source topic to write to. Default: standard output.
    #[arg(long, value_name = "PIPELINE")]
    to: Option<PathBuf>,
    /// Number of decisions to generate. Default: unlimited.
    #[arg(long)]
    count: Option<u64>,
    /// How long to run. Default: unlimited.
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    period: Option<Duration>,
    /// Decisions per second. Default: as fast as possible.
    #[arg(long, value_parser = super::a_second)]
    rate: Option<f64>,
    /// Format of the records. Standard output takes line formats only.
    #[arg(long, value_enum, default_value = "json")]
    format: Shape,
    /// Fraction of decisions that are denials, from 0 to 1.
    #[arg(long, default_value_t = 0.08, value_parser = super::fraction)]
    deny: f64,
    /// Fraction of decisions that are undefined, from 0 to 1.
    #[arg(long, default_value_t = 0.01, value_parser = super::fraction)]
    undefined: f64,
    /// Fraction of decisions that are evaluation errors, from 0 to 1.
    #[arg(long, default_value_t = 0.002, value_parser = super::fraction)]
    error: f64,
    /// Fraction of decisions with a trace context, from 0 to 1.
    #[arg(long, default_value_t = 0.95, value_parser = super::fraction)]
    traced: f64,
    /// Bytes of padding to add to each input.
    #[arg(long, default_value_t = 0)]
    padding: usize,
    /// Seed of the generator: the same decisions for the same seed. Default: 7; with --to another each time, so that no decision ID comes twice.
    #[arg(long)]
    seed: Option<u64>,
    /// Generate a day on which something happens; docs/spikes.md describes the scenarios.
    #[arg(long, value_enum, conflicts_with_all = ["count", "rate", "format", "deny", "undefined", "error", "traced", "padding"])]
    scenario: Option<Scenario>,
}

/// Kafka is to answer within this.
const PATIENCE: Duration = Duration::from_secs(5);

enum Target {
    Stdout(BufWriter<std::io::StdoutLock<'static>>),
    Kafka { producer: BaseProducer, topic: String },
}

impl Target {
    fn open(to: Option<&PathBuf>) -> Result<Target, Box<dyn std::error::Error>> {
        let Some(path) = to else {
            return Ok(Target::Stdout(BufWriter::with_capacity(1 << 20, std::io::stdout().lock())));
        };
        let pipeline = super::load(path)?;
        let topic = pipeline.file.sources[0].topic.clone();
        // Who can't be reached is told with address and cause.
        Asker::new(&pipeline.file.kafka, "generate", None)?.metadata(None, PATIENCE)?;
        let mut config = client::config(&pipeline.file.kafka, "generate");
        config
            .set("linger.ms", "20")
            .set("compression.type", "lz4")
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "500000");
        let producer = client::with_properties(config, &pipeline.file.kafka).create()?;
        Ok(Target::Kafka { producer, topic })
    }

    fn write(&mut self, record: &[u8]) -> CommandResult {
        match self {
            Target::Stdout(out) => {
                out.write_all(record)?;
                out.write_all(b"\n")?;
                Ok(())
            }
            Target::Kafka { producer, topic } => {
                let mut message = BaseRecord::<(), [u8]>::to(topic).payload(record);
                loop {
                    match producer.send(message) {
                        Ok(()) => break,
                        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                            producer.poll(Duration::from_millis(50));
                            message = back;
                        }
                        Err((error, _)) => return Err(error.into()),
                    }
                }
                producer.poll(Duration::ZERO);
                Ok(())
            }
        }
    }

    /// Of what is written somewhere else nothing waits for more.
    fn flush(&mut self) -> CommandResult {
        match self {
            Target::Stdout(out) => Ok(out.flush()?),
            Target::Kafka { .. } => Ok(()),
        }
    }

    fn finish(&mut self) -> CommandResult {
        match self {
            Target::Stdout(_) => self.flush(),
            Target::Kafka { producer, .. } => Ok(producer.flush(Duration::from_secs(60))?),
        }
    }
}

impl Args {
    fn seed(&self) -> u64 {
        let anew = self.to.is_some() && self.scenario.is_none();
        self.seed.unwrap_or_else(|| if anew { rand::random() } else { 7 })
    }
}

pub fn run(args: &Args) -> CommandResult {
    if args.to.is_none() && matches!(args.format, Shape::Upload | Shape::Mixed) {
        return Err(
            "gzipped uploads can't be written as lines; use --to PIPELINE or another --format"
                .into(),
        );
    }
    let mut target = Target::open(args.to.as_ref())?;
    let stop = stop();
    if let Some(scenario) = args.scenario {
        return live(args, scenario, &mut target, &stop);
    }
    let mix = Mix {
        seed: args.seed(),
        deny: args.deny,
        undefined: args.undefined,
        error: args.error,
        traced: args.traced,
        padding: args.padding,
    };
    let mut generator = Generator::new(mix);
    let bar = bar(args.count);
    let started = Instant::now();
    let mut written = 0;
    while args.count.is_none_or(|count| written < count)
        && args.period.is_none_or(|period| started.elapsed() < period)
        && !stop.load(Ordering::Relaxed)
    {
        if let Some(rate) = args.rate {
            let due = Duration::from_secs_f64(written as f64 / rate);
            if let Some(wait) = due.checked_sub(started.elapsed()) {
                // Who reads along gets what there is.
                target.flush()?;
                std::thread::sleep(wait.min(Duration::from_millis(100)));
                continue;
            }
        }
        // A whole upload may be more than is left.
        let left = args.count.map_or(UPLOAD, |count| (count - written).min(UPLOAD));
        let (record, decisions) = match args.format {
            Shape::Upload => (generator.upload(crate::clock::now(), left), left),
            Shape::Mixed if left < UPLOAD => generator.record(Shape::Json, crate::clock::now()),
            shape => generator.record(shape, crate::clock::now()),
        };
        target.write(&record)?;
        written += decisions;
        if written % 64 < decisions {
            bar.set_position(written);
        }
    }
    target.finish()?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let decisions = crate::words::counted(written, "decision");
    let rate = super::shown::rate(written as f64 / seconds.max(1e-9));
    eprintln!("{decisions} in {seconds:.1} s, {rate}");
    Ok(())
}

/// Set by SIGINT or SIGTERM, after which it is said how many were written; the next one ends the process.
fn stop() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let watch = move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(super::asked_to_stop())?;
        asked.store(true, Ordering::Relaxed);
        runtime.block_on(super::asked_to_stop())?;
        std::process::exit(130)
    };
    let _ = std::thread::Builder::new().name("docket-stop".into()).spawn(watch);
    stop
}

const SECOND: i64 = 1_000_000_000;

/// Writes a day that ended now, or lives through a part of one in real time.
fn live(args: &Args, scenario: Scenario, target: &mut Target, stop: &AtomicBool) -> CommandResult {
    let now = crate::clock::now() / SECOND * SECOND;
    let (mut day, mut at, end) = if args.to.is_some() {
        let soon = now + 60 * SECOND;
        let mut day = Day::new(
            scenario,
            args.seed(),
            soon - Day::new(scenario, args.seed(), 0, 1.0).event_at(),
            1.0,
        );
        day.skip_to(now - 3600 * SECOND);
        let last = day.events().iter().map(|e| e.to).max().unwrap_or(soon).max(soon) + 300 * SECOND;
        let end = args.period.map_or(last, |period| now.saturating_add(time::nanos(period)));
        for event in day.events() {
            let cause = event
                .cause
                .map(|(dimension, value)| format!(", by {} {value}", dimension.as_str()))
                .unwrap_or_default();
            eprintln!(
                "{} from {} to {}{cause}",
                event.service,
                time::format(event.from),
                time::format(event.to)
            );
        }
        (day, now - 3600 * SECOND, end)
    } else {
        let seconds = Day::new(scenario, args.seed(), 0, 1.0).seconds;
        (Day::new(scenario, args.seed(), now - seconds * SECOND, 1.0), now - seconds * SECOND, now)
    };
    let (mut second, mut written) = (Vec::new(), 0u64);
    while at < end && !day.is_over() && !stop.load(Ordering::Relaxed) {
        if let Some(wait) =
            u64::try_from(at + SECOND - crate::clock::now()).ok().filter(|_| args.to.is_some())
        {
            std::thread::sleep(Duration::from_nanos(wait));
        }
        day.second(&mut second);
        at += SECOND;
        for made in &second {
            target.write(day.json(made).to_string().as_bytes())?;
            written += 1;
        }
    }
    target.finish()?;
    eprintln!("{}", crate::words::counted(written, "decision"));
    Ok(())
}

fn bar(count: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match count {
        Some(count) => ProgressBar::new(count)
            .with_style(super::shown::style("{bar:40} {pos}/{len} decisions, {rate}, {eta} left")),
        None => ProgressBar::new_spinner()
            .with_style(super::shown::style("{spinner} {pos} decisions, {rate}")),
    }
}
