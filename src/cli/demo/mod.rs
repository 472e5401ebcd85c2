//! `docket demo`: the whole road inside one process, without any server: a Kafka of its own, generated
//! decisions with a denial spike in the middle (or the user's own decision logs), intake, the docket
//! topic, sinks; and in the terminal what a user came for.

mod files;
pub mod findings;
mod screen;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anstyle::Style;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio_util::sync::CancellationToken;

use self::findings::Live;
use self::screen::{Screen, Summary, sparkline};
use super::tail::style;
use super::{CommandResult, offline};
use crate::config::secrets::{Outside, Real};
use crate::decision::formats::Ignored;
use crate::decision::record::Record;
use crate::decision::time::{Nanos, nanos};
use crate::decision::verdict::Verdict;
use crate::generate::{Generator, Mix, Shape};
use crate::log::client;
use crate::log::config::Kafka;
use crate::log::mock::Mock;
use crate::pipeline::topics::Limits;
use crate::pipeline::{self, Pipeline};
use crate::spike::Observation;
use crate::spike::reorder::Kept;
use crate::stage::run::{Parts, Process};
use crate::telemetry::config::Admin;
use crate::telemetry::{self, admin};

/// See docket work without any server, on generated decisions with a denial spike or on your own decision logs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket demo --for 30s
  docket demo decisions.ndjson more.json.gz   your own, in any format
  kubectl logs deploy/opa | docket demo -     what OPA wrote

Of a pipeline file given with --pipeline, only the rules are used, not its Kafka and its sinks.")]
pub struct Args {
    /// Files of decision logs to use instead of generated ones; - is standard input, whose decisions are printed as they come. The demo ends when all are through.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How long to run at most. Default: until the files are through; with generated decisions until interrupted.
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    period: Option<Duration>,
    /// Generated decisions per second.
    #[arg(long, default_value_t = 200.0, value_parser = super::a_second)]
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
/// What the detector learns from before the show begins.
const LEARNED: Nanos = 660_000_000_000;
/// What may be under way at once: the in-process Kafka keeps only a few MB a partition.
const UNDER_WAY: u64 = 1000;

pub async fn run(mut args: Args) -> CommandResult {
    super::end_with_the_reader();
    if args.files.is_empty() && given_a_file() {
        args.files.push("-".into());
    }
    if !args.files.is_empty() {
        return files::run(&args).await;
    }
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
    let process = Process { drain: Duration::from_secs(10), ..Process::alone() };
    let address = admin::serve(
        &Admin { listen: args.listen.clone(), ..Admin::default() },
        process.registry.clone(),
        process.exemplars.clone(),
        process.health.clone(),
        None,
        process.stop.clone(),
    )
    .await
    .map_err(|e| format!("{} can't be listened on: {e}", args.listen))?;
    anstream::println!(
        "docket demo: a Kafka inside this process, no server.\nMetrics: http://{address}/metrics"
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
            let result = producer.generated(seed, rate, period);
            producer.fed.done.store(true, Ordering::SeqCst);
            result
        })
    };
    show(&screen, &running, &fed).await?;
    process.stop.cancel();
    feeder.await??;
    let (meters, decisions) = (running.meters.clone(), running.decisions.clone());
    tokio::task::spawn_blocking(move || running.join()).await?;
    summary(&screen, &meters, decisions.by_verdict(), &fed);
    Ok(())
}

/// Whether standard input is a file: who gives one means it, also without -.
fn given_a_file() -> bool {
    use std::os::fd::AsFd;
    let input = std::io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    input.and_then(|file| file.metadata()).is_ok_and(|about| about.is_file())
}

/// The demo's pipeline file, or the rules of the user's with the demo's Kafka and sinks.
fn pipeline(args: &Args, bootstrap: &str) -> Result<Pipeline, Box<dyn std::error::Error>> {
    let text = format!(
        "name: demo\nkafka: {{brokers: \"{bootstrap}\", properties: {{group.protocol: consumer}}}}\nsources: [{{topic: {SOURCE}}}]\ndocket: {{create: false}}\nsinks:\n  metrics: {{type: metrics, delivery: {{batch_age: 100ms}}}}\n"
    );
    let outside: &dyn Outside = &Real;
    let mut demo = pipeline::parse(Path::new("demo"), &text, outside)?;
    if let Some(path) = &args.pipeline {
        let theirs = super::load(path)?;
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

/// When decisions are made. The next follows the one before at the rate asked for, also where the machine was too slow for it: what
/// could not be made was not held back by any OPA.
struct Schedule {
    began: Nanos,
    next: Nanos,
    /// So much was lost on a machine that was too slow.
    lost: Nanos,
}

impl Schedule {
    fn new(began: Nanos) -> Schedule {
        Schedule { began, next: began, lost: 0 }
    }

    fn next(&mut self, rate: f64) -> Nanos {
        let at = self.next;
        self.next = self.next.saturating_add((1e9 / rate) as Nanos);
        at
    }

    /// How long to wait until it is time for the next. What is late by more than a moment is not made up for.
    fn pause(&mut self, elapsed: Nanos) -> Duration {
        let ahead = self.next - self.began + self.lost - elapsed;
        self.lost -= (ahead + 100_000_000).min(0);
        Duration::from_nanos(ahead.max(0).unsigned_abs())
    }
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
        // The parts need a moment to join their groups; the show begins when they have. Meanwhile, and longer where the machine is slow, the
        // detector learns what is usual.
        let screen = self.screen.clone();
        let learning = std::thread::spawn(move || screen.look_on(learned(seed, rate)));
        self.warm_up(&mut generator)?;
        let started = Instant::now();
        let mut schedule = Schedule::new(crate::clock::now());
        let mut written = 0u64;
        while !self.stop.is_cancelled() && period.is_none_or(|p| started.elapsed() < p) {
            // A spike in the middle; one every minute when the demo runs on.
            let (at, of) =
                (started.elapsed().as_secs_f64(), period.map_or(60.0, |p| p.as_secs_f64()));
            generator.spike = (0.45..0.65).contains(&((at / of).fract()));
            let rate = if generator.spike { rate * 1.6 } else { rate };
            let (record, _) = generator.record(Shape::Mixed, schedule.next(rate));
            self.send(&record)?;
            written += 1;
            if written.is_multiple_of(8) {
                std::thread::sleep(schedule.pause(nanos(started.elapsed())));
            }
        }
        self.flush()?;
        let _ = learning.join();
        Ok(())
    }

    fn warm_up(&mut self, generator: &mut Generator) -> Result<(), String> {
        // One that the in-process Kafka did not take in time, on a machine that stood still, is not waited for.
        while self.screen.lock().total == 0 && !self.stop.is_cancelled() {
            let (record, _) = generator.record(Shape::Json, crate::clock::now());
            self.send(&record)?;
            self.flush()?;
            let sent = Instant::now();
            while self.screen.lock().total == 0 && sent.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.fed.records.store(self.read(), Ordering::SeqCst);
        Ok(())
    }

    fn read(&self) -> u64 {
        self.meters.records.with_label_values(&[SOURCE]).get()
    }

    /// Produces one record, when there is room under way.
    fn send(&mut self, record: &[u8]) -> Result<(), String> {
        let written = || -> u64 {
            Verdict::ALL
                .iter()
                .map(|v| self.meters.decisions.with_label_values(&[v.as_str()]).get())
                .sum()
        };
        let weight = 1 + record.len() as u64 / 4096;
        while !self.stop.is_cancelled() {
            let waiting =
                self.fed.records.load(Ordering::Relaxed).saturating_sub(self.read()) * weight;
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

/// Shows progress until the demo is over.
async fn show(screen: &Screen, running: &Parts, fed: &Fed) -> CommandResult {
    let live = files::live();
    let started = Instant::now();
    let mut came = (0, started);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut told = started;
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
        if let Some(live) = &mut screen.lock().live {
            live.advance();
        }
        let line = status(screen, running);
        if live {
            anstream::print!("\r\x1b[2K{line}");
            std::io::stdout().flush()?;
        } else if screen.lock().total > 0 && told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            anstream::println!("{line}");
        }
        let total = screen.lock().total;
        let through = everything_is_through(screen, running, fed);
        if total > came.0 || through {
            came = (total, Instant::now());
        }
        // On a machine that slept for minutes, what was under way may be lost.
        let lost = came.0 > 0 && came.1.elapsed() >= Duration::from_secs(30);
        if lost || through && fed.done.load(Ordering::SeqCst) {
            if live {
                anstream::println!();
            }
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
    let found = seen.live.as_ref().is_some_and(|live| live.active() > 0);
    let alarm = if found { style(Verdict::Deny) } else { Style::new() };
    let word = if found { "denial spike" } else { "denials/s" };
    format!("{}  {alarm}{word}{alarm:#} {}", verdicts.join(" "), sparkline(&recent))
}

/// A detector that knows decisions like those that are shown.
fn learned(seed: u64, rate: f64) -> Option<Live> {
    let now = crate::clock::now();
    let mut generator = Generator::new(Mix { seed: seed.wrapping_add(1), ..Mix::default() });
    let mut reader = offline::Reader::new(offline::pipeline(None).ok()?);
    let mut usual = Vec::new();
    for _ in 0..4000 {
        let (record, _) = generator.record(Shape::Json, now);
        reader.read(&record, &mut |bytes| {
            usual.extend(
                Record::parse(bytes).ok().and_then(|record| Observation::with(&record, Kept::of)),
            );
        });
    }
    // One record in five is an upload of ten. Beyond some rate only the learning would take longer.
    Some(Live::new(&usual, (rate * 2.8).clamp(1.0, 1000.0), LEARNED, now))
}

/// What is there to say at the end.
fn summary(screen: &Screen, meters: &telemetry::Meters, verdicts: Vec<(Verdict, u64)>, fed: &Fed) {
    let ignored = Ignored::ALL
        .iter()
        .map(|kind| meters.ignored.with_label_values(&[SOURCE, kind.as_str()]).get())
        .sum::<u64>();
    let rejects = crate::decision::reject::Reason::ALL
        .iter()
        .map(|reason| {
            (*reason, meters.rejects.with_label_values(&["intake", reason.as_str()]).get(), None)
        })
        .filter(|(_, count, _)| *count > 0)
        .collect();
    let (over_time, findings) = {
        let mut seen = screen.lock();
        let live = seen.live.as_mut();
        let findings = live.map_or_else(Vec::new, |live| {
            live.end();
            live.sentences()
        });
        (seen.seconds.iter().map(|(_, denied)| *denied).collect(), findings)
    };
    let summary = Summary {
        from: crate::words::counted(fed.records.load(Ordering::Relaxed), "Kafka record"),
        verdicts,
        ignored,
        rejected_alone: 0,
        dropped: 0,
        repeats: 0,
        written: 0,
        rejects,
        over_time,
        findings,
    };
    summary.print(screen);
}
