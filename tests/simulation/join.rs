//! Decisions and requests through intake, the reader of facts and the join, as they are: lag of either side, idle
//! partitions, crashes, rebalances, failing transactions, little memory. Each decision goes on once and gets its own request,
//! and what was planted is found, and nothing else.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use docket::correlate::Side;
use docket::decision::time;
use docket::log::progress::Progress;
use docket::pipeline::Pipeline;
use docket::stage::correlate::evidence::{Clear, Evidence};
use docket::stage::correlate::{Correlate, JoinMeters};
use docket::stage::intake::{FactMeters, Intake, Trouble, Work};
use docket::telemetry::{Health, Meters};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use story::{Input, TORN, input};

use super::world::{Alive, Faults, Member, Sabotage, Shared, World, producer};
use super::{DOCKET, REJECTS, SOURCE, each_seed, gone, in_virtual_time};

mod story;

const ACCESS: &str = "access";
const PENDING: &str = "docket.pending";
const FACTS: &str = "docket.facts";
const AMENDMENTS: &str = "docket.amendments";

thread_local! {
    /// The wall clock at the start, in virtual time.
    static START: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
}

fn clock() -> i64 {
    let (start, began) = START.get().unwrap();
    began + time::nanos(start.elapsed())
}

fn pipeline(memory: &str) -> Pipeline {
    let text = format!(
        "
name: sim
kafka: {{brokers: nowhere}}
sources: [{{topic: source}}]
intake: {{transaction_interval: 100ms, transaction_bytes: 8KiB}}
docket: {{topic: docket, rejects: rejects}}
join:
  facts: [{{topic: access}}]
  wait: 2s
  window: 5s
  skew: 1s
  delay: 20s
  memory: {memory}
  findings: {{requests: [{{path: \"/api/**\"}}], per_minute: 0}}
"
    );
    docket::pipeline::parse(
        std::path::Path::new("simulated.yaml"),
        &text,
        &docket::config::secrets::Real,
    )
    .map_err(|e| e.to_string())
    .unwrap()
}

/// One process: intake, the reader of facts and the join, each started again when it fails.
struct Process {
    tasks: Vec<JoinHandle<()>>,
    /// From here on they end with the process only.
    watching: usize,
    stop: CancellationToken,
}

impl Process {
    fn start(world: &Shared, pipeline: &Arc<Pipeline>) -> Process {
        let stop = CancellationToken::new();
        let registry = prometheus::Registry::new();
        let meters = Arc::new(Meters::new("sim", &registry).unwrap());
        let (health, progress) = (Arc::new(Health::default()), Arc::new(Progress::default()));
        let mut tasks = Vec::new();
        for (work, source) in [(Work::Decisions, SOURCE), (Work::Facts, ACCESS)] {
            let facts = FactMeters::new("sim", &registry).ok().filter(|_| work == Work::Facts);
            let intake = Intake {
                work,
                facts,
                pipeline: pipeline.clone(),
                meters: meters.clone(),
                health: health.clone(),
                progress: progress.clone(),
                docket_limit: None,
                rejects_limit: None,
                trouble: Trouble::default(),
                id: String::new(),
            };
            let (w, s) = (world.clone(), stop.clone());
            tasks.push(spawn_local(async move {
                while !s.is_cancelled() {
                    let group = format!("docket.sim.{}", work.part());
                    let join = |seen| Ok(Member::join(&w, &group, &[source], seen));
                    if let Err(error) =
                        intake.over(join, producer(&w, work.part(), Alive::default()), &s).await
                    {
                        w.lock().note(format!("{} failed: {error}", work.part()));
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }));
        }
        let evidence = Arc::new(Evidence::default());
        let correlate = Correlate {
            section: pipeline.file.join.clone().unwrap(),
            pipeline: pipeline.clone(),
            counts: Arc::new(JoinMeters::new("sim", &registry).unwrap()),
            meters,
            health,
            progress,
            evidence: evidence.clone(),
            id: String::new(),
            clock,
            docket_limit: None,
            rejects_limit: None,
        };
        let (w, s) = (world.clone(), stop.clone());
        tasks.push(spawn_local(async move {
            while !s.is_cancelled() {
                let join = |seen| Ok(Member::join(&w, "docket.sim.join", &[PENDING, FACTS], seen));
                if let Err(error) =
                    correlate.over(join, producer(&w, "join", Alive::default()), &s).await
                {
                    w.lock().note(format!("the join failed: {error}"));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }));
        let watching = tasks.len();
        for (side, group, source, target) in [
            (Side::Decisions, "docket.sim.intake", SOURCE, PENDING),
            (Side::Facts, "docket.sim.facts", ACCESS, FACTS),
        ] {
            let watching = watch(world.clone(), evidence.clone(), side, group, source, target);
            tasks.push(spawn_local(watching));
        }
        Process { tasks, watching, stop }
    }

    fn kill(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.drain(self.watching..).for_each(|task| task.abort());
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// What is known of how far everything upstream is.
async fn watch(
    w: Shared,
    evidence: Arc<Evidence>,
    side: Side,
    group: &'static str,
    source: &'static str,
    target: &'static str,
) {
    let mut asked = None;
    loop {
        let read = asked.take_if(|(_, ends)| w.lock().has_read(group, source, ends));
        if let Some((at, _)) = read {
            evidence.set(side, Clear { at, ends: w.lock().ends(target) });
        }
        asked = asked.or_else(|| Some((clock(), w.lock().ends(source))));
        // Kafka may not say for a while.
        let away = {
            let mut w = w.lock();
            if w.below(12) == 0 { w.below(40_000) } else { 3_000 }
        };
        tokio::time::sleep(Duration::from_millis(away)).await;
    }
}

async fn simulate(seed: u64, sabotage: Sabotage) -> (Vec<String>, Vec<String>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut likely =
        |most: f64| if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..most) };
    let faults =
        Faults { commit_fails: likely(0.1), poll_stalls: likely(0.005), ..Faults::default() };
    let world = Shared::new(seed ^ 0x10e, faults, sabotage);
    let sources = [rng.random_range(1..4), rng.random_range(1..4)];
    let joined = rng.random_range(1..5);
    {
        let mut w = world.lock();
        w.create(SOURCE, sources[0]);
        w.create(ACCESS, sources[1]);
        for topic in [PENDING, FACTS] {
            w.create(topic, joined);
        }
        for topic in [DOCKET, AMENDMENTS, REJECTS] {
            w.create(topic, 2);
        }
        w.note(format!("{faults:?}"));
        START.set(Some((Instant::now(), w.now())));
    }
    // In some worlds, what the join reads does not stay as it was written.
    let fickle = rng.random_bool(0.3);
    let little = rng.random_bool(0.2);
    world.lock().note(format!("little memory: {little}"));
    let pipeline = Arc::new(pipeline(if little { "16KiB" } else { "8MiB" }));
    let mut input = input(&mut rng, clock(), sources);
    let (start, most) = (Instant::now(), rng.random_range(1..4usize));
    let mut running = vec![Process::start(&world, &pipeline)];
    let mut trouble = rng.random_range(3..25);
    while let Some(entry) = input.due.first_entry() {
        let at = Duration::from_nanos(entry.key().unsigned_abs());
        tokio::time::sleep_until(start + at).await;
        for (topic, partition, record) in entry.remove() {
            world.lock().produce_to(topic, partition, record.as_bytes());
        }
        if fickle && rng.random_bool(0.03) {
            upheaval(&world, &mut rng);
        }
        if trouble == 0 || !rng.random_bool(0.15) {
            continue;
        }
        trouble -= 1;
        match rng.random_range(0..4) {
            0 if running.len() < most => {
                world.lock().note("a process starts");
                running.push(Process::start(&world, &pipeline));
            }
            1 | 2 if !running.is_empty() => {
                let process = running.swap_remove(rng.random_range(0..running.len()));
                world.lock().note("a process is killed");
                process.kill();
            }
            3 if running.len() > 1 => {
                let process = running.swap_remove(rng.random_range(0..running.len()));
                world.lock().note("a process is stopped");
                process.stop().await;
            }
            _ => {}
        }
    }
    {
        let mut w = world.lock();
        w.faults = Faults::default();
        w.note("no more faults");
    }
    if running.is_empty() {
        running.push(Process::start(&world, &pipeline));
    }
    tokio::time::sleep(Duration::from_secs(150)).await;
    for process in running {
        process.stop().await;
    }
    check(&world, &input, little, fickle);
    let w = world.lock();
    (w.violations.clone(), w.events.clone())
}

/// Pending or facts are made anew, or retention takes some of them.
fn upheaval(world: &Shared, rng: &mut SmallRng) {
    let mut w = world.lock();
    let topic = [PENDING, FACTS][rng.random_range(0..2)];
    // Who has never read it misses nothing.
    if !w.is_looked_at(topic) {
        return;
    }
    if rng.random_bool(0.4) {
        w.recreate(topic, false);
    } else {
        let places = w.places(topic);
        let place = &places[rng.random_range(0..places.len())];
        let to = rng.random_range(0..=w.length(place));
        w.retain(place, to);
    }
}

/// Decisions that stood in pending and are gone, as the join said.
fn lost(w: &World) -> BTreeSet<String> {
    let told = gone::told(w);
    let of_it = w.deleted.iter().filter(|(place, offset, _)| {
        place.0 == PENDING && told.iter().any(|told| told.covers("join", place, *offset))
    });
    of_it.map(|(_, _, value)| super::decision_id(value)).collect()
}

/// With `fickle`, some of what there was is gone: nothing is to be found for want of it.
fn check(world: &Shared, input: &Input, little: bool, fickle: bool) {
    let mut w = world.lock();
    let lost = lost(&w);
    let fickle = fickle && !w.deleted.is_empty();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |value: &[u8]| serde_json::from_slice::<Value>(value).unwrap();
    let mut wrong = Vec::new();
    let mut requests: BTreeMap<String, Value> = BTreeMap::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut found: BTreeMap<(String, String), u32> = BTreeMap::new();
    for (_, record) in w.committed(DOCKET) {
        let record = read(&record.value);
        if record["docket"]["verdict"] == "finding" {
            let finding = &record["finding"];
            *found.entry((text(&finding["kind"]), text(&finding["request_id"]))).or_default() += 1;
            continue;
        }
        let id = text(&record["decision_id"]);
        *seen.entry(id.clone()).or_default() += 1;
        if !record["docket"]["request"].is_null() {
            requests.insert(id, record["docket"]["request"].clone());
        }
    }
    for (_, amendment) in w.committed(AMENDMENTS) {
        let amendment = read(&amendment.value);
        requests.insert(text(&amendment["decision_id"]), amendment["docket"]["request"].clone());
    }
    let mut rejected: BTreeMap<String, u32> = BTreeMap::new();
    for (_, record) in w.committed(REJECTS) {
        if record.header("docket-reason") == Some("log_gap") {
            continue;
        }
        if !String::from_utf8_lossy(&record.value).contains(TORN) {
            *rejected.entry(super::decision_id(&record.value)).or_default() += 1;
        }
    }
    for (id, decision) in &input.decisions {
        let times = [&mut seen, &mut rejected].map(|all| all.remove(id).unwrap_or(0));
        match times {
            [1, 0] if !decision.unwanted => {}
            [0, 1] if decision.unwanted || decision.large => continue,
            [0, 0] if lost.contains(id) => continue,
            _ => wrong.push(format!("{id} is in the docket and in rejects {times:?} times")),
        }
        let got = requests.get(id).map(|request| text(&request["path"]));
        // What was evicted may have gone without, or with the other request of its ID.
        let other = got.as_deref().is_none_or(|path| path == "/api/hop" && (little || fickle));
        if got != decision.path && !((little || fickle || decision.may_lack) && other) {
            wrong.push(format!("{id} has the request {got:?}, not {:?}", decision.path));
        }
    }
    if !seen.is_empty() || !rejected.is_empty() {
        wrong.push(format!("nobody wrote these: {seen:?} {rejected:?}"));
    }
    for (finding, times) in &found {
        if *times != 1 || !input.findings.contains_key(finding) {
            wrong.push(format!("{finding:?} was found {times} times"));
        }
    }
    for (finding, must) in &input.findings {
        if *must && !found.contains_key(finding) && !little && !fickle {
            wrong.push(format!("{finding:?} was not found"));
        }
    }
    wrong.into_iter().for_each(|what| w.violation(what));
}

fn run(seed: u64, sabotage: Sabotage) -> (Vec<String>, Vec<String>) {
    in_virtual_time(simulate(seed, sabotage))
}

#[test]
fn each_decision_meets_its_request_once_and_what_is_wrong_is_found() {
    each_seed(24, |seed| run(seed, Sabotage::Nothing));
}

/// It can fail.
#[test]
fn a_join_that_does_wrong_is_noticed() {
    let all = [
        (Sabotage::LosesMetadata, 0),
        (Sabotage::LosesARecord, 0),
        (Sabotage::NoFencing, 0),
        (Sabotage::ReadsUncommitted, 0),
        (Sabotage::PassesOver, 0),
    ];
    super::each_is_noticed(120, &all, run);
}
