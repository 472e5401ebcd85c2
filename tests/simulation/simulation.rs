//! Intake and deliver, as they are, over a simulated Kafka and simulated sinks, in virtual time, with
//! faults that follow from a seed: crashes, rebalances, stalls, failing transactions, a slow Kafka, requests
//! that arrive late, changed pipeline files, refusals, partial answers, answers that get lost, slow and
//! reordered acknowledgements.
//!
//!     cargo test --test simulation                        some hundred seeds
//!     DOCKET_SEED=17 cargo test --test simulation         one of them, with all that happened
//!     DOCKET_SEEDS=400..3000 cargo test --test simulation more, as .ci/run does
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod check;
mod drive;
mod files;
mod gone;
mod input;
mod join;
mod process;
mod settings;
mod sink;
mod verified;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::LocalSet;

use drive::Drive;
use input::Input;
use process::Process;
use world::{Faults, Sabotage, Shared};

pub const SOURCE: &str = "source";
pub const DOCKET: &str = "docket";
pub const REJECTS: &str = "rejects";

/// The decision id of a docket record.
pub fn decision_id(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split("\"decision_id\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
        .to_owned()
}

/// A world when everything is over.
pub struct Ended {
    pub world: Shared,
    pub input: Input,
    /// Its logs did not stay as they were written.
    pub fickle: bool,
    /// Its groups began at the end.
    pub latest: bool,
}

/// One run.
async fn simulate(seed: u64, sabotage: Sabotage) -> Ended {
    let mut drive = Drive::new(seed, sabotage);
    drive.begins();
    for _ in 0..drive.rng.random_range(5..40) {
        drive.trouble().await;
    }
    drive.peace().await;
    drive.ends().await
}

/// What is made to panic does so without a word.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let said = panic.payload().downcast_ref::<&str>();
            if !said.is_some_and(|text| text.starts_with("simulated")) {
                others(panic);
            }
        }));
    });
}

/// Returns what went wrong, and everything that happened.
fn run(seed: u64, sabotage: Sabotage) -> (Vec<String>, Vec<String>) {
    quiet();
    let ended = in_virtual_time(simulate(seed, sabotage));
    let w = ended.world.lock();
    (w.violations.clone(), w.events.clone())
}

/// Runs as many seeds, or those that the environment names.
pub fn each_seed(most: u64, run: impl Fn(u64) -> (Vec<String>, Vec<String>) + Sync) {
    if let Some(seed) = std::env::var("DOCKET_SEED").ok().map(|s| s.parse().unwrap()) {
        let (violations, events) = run(seed);
        println!("{}", events.join("\n"));
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        return;
    }
    let seeds = std::env::var("DOCKET_SEEDS").unwrap_or_else(|_| most.to_string());
    let (first, end) = seeds.split_once("..").unwrap_or(("0", &seeds));
    let (first, end): (u64, u64) = (first.parse().unwrap(), end.parse().unwrap());
    assert!(first < end, "no seed is in {seeds}");
    let next = AtomicU64::new(first);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failed.lock().unwrap().len() > 5 {
                        return;
                    }
                    let (violations, _) = run(seed);
                    if let Some(first) = violations.first() {
                        let more = violations.len() - 1;
                        failed
                            .lock()
                            .unwrap()
                            .push(format!("seed {seed}: {first}, and {more} more"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{}\nDOCKET_SEED=<seed> cargo test --test simulation -- --nocapture shows what happened",
        failed.join("\n")
    );
}

#[test]
fn whatever_happens_nothing_is_lost_and_no_offset_passes_what_is_not_finished() {
    each_seed(400, |seed| run(seed, Sabotage::Nothing));
}

#[test]
fn verify_says_of_a_world_what_is_true() {
    each_seed(16, |seed| {
        quiet();
        let ended = in_virtual_time(simulate(seed, Sabotage::Nothing));
        // What was deleted can't stand in a Kafka again.
        let wrong = if ended.fickle { Vec::new() } else { verified::judged(&ended, seed) };
        (wrong, ended.world.lock().events.clone())
    });
}

/// What it says of worlds in which something goes wrong.
#[test]
fn verify_notices_what_is_lost() {
    let all =
        [(Sabotage::LosesARecord, 0), (Sabotage::ByIdAlone, 0), (Sabotage::TakesAnyAnswer, 0)];
    each_is_noticed(40, &all, |seed, sabotage| {
        quiet();
        let ended = in_virtual_time(simulate(seed, sabotage));
        let wrong = if ended.fickle { Vec::new() } else { verified::judged(&ended, seed) };
        (wrong, Vec::new())
    });
}

/// Six days over twelve partitions, some with ten times as much as others, one idle: the most by which a record came to
/// the sink behind a newer one.
async fn replay(seed: u64, sabotage: Sabotage) -> Duration {
    let faults = Faults::default();
    let world = Shared::new(seed, faults, sabotage);
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = 4_000;
    {
        let mut w = world.lock();
        // What a sink has to be sent again comes behind others.
        w.takes_all = true;
        w.create(SOURCE, 12);
        w.create(DOCKET, 12);
        w.create(REJECTS, 1);
        let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
        for i in 0..count {
            let at = now - jiff::SignedDuration::from_secs((count - i) * 6 * 86_400 / count);
            let decision = format!(
                r#"{{"decision_id":"d{i}","path":"a/allow","result":true,"timestamp":"{at}"}}"#
            );
            let partition = if rng.random_bool(0.3) { 0 } else { rng.random_range(0..11) };
            w.produce_to(SOURCE, partition, decision.as_bytes());
        }
    }
    let process = Process::start(&world, &settings::usual(), seed);
    let mut waited = 0;
    while world.lock().times.get("once").map_or(0, Vec::len) < count as usize {
        tokio::time::sleep(Duration::from_secs(1)).await;
        waited += 1;
        assert!(waited < 3_600, "not all of it came");
    }
    process.stop().await;
    let w = world.lock();
    let (mut newest, mut worst) = (0, 0);
    for at in &w.times["once"] {
        worst = worst.max(newest - at);
        newest = newest.max(*at);
    }
    Duration::from_nanos(worst as u64)
}

fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// Intake may be out of order by a minute, and the sink by another.
#[test]
fn six_days_are_replayed_in_order() {
    for seed in 0..3 {
        let worst = in_virtual_time(replay(seed, Sabotage::Nothing));
        assert!(worst <= 2 * docket::order::MAX_SKEW, "seed {seed}: {} s", worst.as_secs());
    }
    let worst = in_virtual_time(replay(0, Sabotage::NoOrder));
    assert!(worst > Duration::from_secs(3600), "{} s", worst.as_secs());
}

#[test]
fn a_seed_replays() {
    for seed in [3, 11] {
        assert_eq!(run(seed, Sabotage::Nothing).1, run(seed, Sabotage::Nothing).1, "seed {seed}");
    }
}

/// A test that can't fail proves nothing: each of these mistakes is found within so many seeds, from the one on that is named beside
/// it, since the first that finds it may be far off. `DOCKET_SABOTAGE` names one, which is looked for from the start.
pub fn each_is_noticed(
    most: u64,
    sabotages: &[(Sabotage, u64)],
    run: impl Fn(u64, Sabotage) -> (Vec<String>, Vec<String>),
) {
    let one = std::env::var("DOCKET_SABOTAGE").ok();
    let is_asked =
        |sabotage: &Sabotage| one.as_ref().is_none_or(|one| format!("{sabotage:?}") == *one);
    let mut unnoticed = Vec::new();
    for (sabotage, from) in sabotages.iter().filter(|(sabotage, _)| is_asked(sabotage)) {
        let (from, most) = if one.is_some() { (0, 3000) } else { (*from, most) };
        let found = (from..from + most).find(|seed| !run(*seed, *sabotage).0.is_empty());
        println!("{sabotage:?} was noticed with seed {found:?}");
        unnoticed.extend(found.is_none().then_some(*sabotage));
    }
    assert_eq!(unnoticed, [], "not noticed");
}

#[test]
fn what_is_done_wrong_is_noticed() {
    let all = [
        (Sabotage::CommitsTooMuch, 0),
        (Sabotage::LosesARecord, 0),
        (Sabotage::NoFencing, 254),
        (Sabotage::ReadsUncommitted, 0),
        (Sabotage::PassesOver, 0),
        (Sabotage::NoTopicId, 0),
        (Sabotage::AddedAtTheEnd, 35),
        (Sabotage::TakenForMade, 268),
        (Sabotage::TakenForSent, 20),
        (Sabotage::TakesAnyAnswer, 0),
        (Sabotage::SameShape, 0),
        (Sabotage::NeverCondemns, 0),
        (Sabotage::NoRoom, 0),
        (Sabotage::ByIdAlone, 0),
        (Sabotage::StaysDead, 0),
        (Sabotage::GoesOnInDoubt, 0),
        (Sabotage::NeverRetires, 77),
        (Sabotage::ForgetsTheStart, 61),
        (Sabotage::StopsFirst, 0),
        (Sabotage::HoldsTooMuch, 0),
        (Sabotage::SharesByName, 41),
    ];
    each_is_noticed(300, &all, run);
}
