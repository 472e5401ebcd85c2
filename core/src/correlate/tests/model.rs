//! Whatever the order, the batches, the delays and the crashes: each decision goes on once, and what is told of it in
//! the end is the truth.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What arrives in a partition, in the order of its offsets.
pub(super) type Log<T> = Vec<(Nanos, T)>;

#[derive(Default, Clone)]
pub(super) struct World {
    pub decisions: Vec<Log<Asked>>,
    pub facts: Vec<Log<Vec<u8>>>,
}

impl World {
    /// In the order of arrival.
    pub(super) fn sorted(mut self) -> World {
        self.decisions.iter_mut().for_each(|log| log.sort_by_key(|(at, _)| *at));
        self.facts.iter_mut().for_each(|log| log.sort_by_key(|(at, _)| *at));
        self
    }

    fn last(&self) -> Nanos {
        let decisions = self.decisions.iter().flatten().map(|(at, _)| *at);
        decisions.chain(self.facts.iter().flatten().map(|(at, _)| *at)).max().unwrap_or(AT)
    }
}

/// What readers of committed transactions see.
#[derive(Default, Clone)]
pub(super) struct Seen {
    /// How often each decision went on.
    pub given_out: BTreeMap<String, u32>,
    /// What was told of its match last.
    pub told: HashMap<String, (Class, Vec<u8>)>,
    pub findings: Vec<Finding>,
    pub undecidable: u64,
    pub crashes: u32,
}

impl Seen {
    fn take(&mut self, out: Out<'_, ()>) {
        let fact = |m: &Matched<'_>| (m.class, pack(&m.fact.fact().unwrap()));
        match out {
            Out::Decision { asked, matched, .. } => {
                *self.given_out.entry(asked.id.to_string()).or_default() += 1;
                if let Some(matched) = matched {
                    self.told.insert(asked.id.to_string(), fact(&matched));
                }
            }
            Out::Amendment { asked, matched, .. } => {
                self.told.insert(asked.id.to_string(), fact(&matched));
            }
            Out::Finding(finding) => self.findings.push(finding),
        }
    }
}

type Committed = BTreeMap<(Side, u32), (i64, String)>;

struct Runner<'w> {
    world: &'w World,
    settings: Settings,
    watch: Watch,
    join: Join<()>,
    at: BTreeMap<(Side, u32), i64>,
    committed: Committed,
    seen: Seen,
    pending: Seen,
}

impl<'w> Runner<'w> {
    fn new(world: &'w World, settings: &Settings, watch: &Watch) -> Runner<'w> {
        let mut runner = Runner {
            world,
            settings: settings.clone(),
            watch: watch.clone(),
            join: Join::new(settings.clone(), watch.clone()),
            at: BTreeMap::new(),
            committed: BTreeMap::new(),
            seen: Seen::default(),
            pending: Seen::default(),
        };
        runner.start(AT);
        runner
    }

    fn partitions(&self) -> Vec<(Side, u32)> {
        let of = |side, n: usize| (0..n as u32).map(move |p| (side, p));
        let decisions = of(Side::Decisions, self.world.decisions.len());
        decisions.chain(of(Side::Facts, self.world.facts.len())).collect()
    }

    /// From what is committed.
    fn start(&mut self, now: Nanos) {
        self.join = Join::new(self.settings.clone(), self.watch.clone());
        self.pending = self.seen.clone();
        for (side, partition) in self.partitions() {
            let position = self
                .committed
                .get(&(side, partition))
                .map_or_else(Position::default, |(offset, metadata)| {
                    Position::parse(*offset, metadata).unwrap()
                });
            self.at.insert((side, partition), position.offset);
            self.join.assign(side, partition, position, now);
        }
    }

    fn commit(&mut self) {
        for (side, partition) in self.partitions() {
            let position = self.join.position(side, partition);
            let metadata = position.metadata();
            // The topic's id stands beside it.
            assert!(metadata.len() < 4096 - 64);
            self.committed.insert((side, partition), (position.offset, metadata));
        }
        self.seen = self.pending.clone();
    }

    fn read(&mut self, which: (Side, u32), most: usize, now: Nanos) {
        for _ in 0..most {
            let at = self.at[&which];
            let (side, partition) = which;
            let place = Place { partition, offset: at };
            let (world, pending) = (self.world, &mut self.pending);
            let mut out = |out: Out<'_, ()>| pending.take(out);
            match side {
                Side::Decisions => {
                    let next = world.decisions[partition as usize].get(at as usize);
                    let Some((written, asked)) = next.filter(|n| n.0 <= now) else { return };
                    let came = Came { now, written: *written };
                    self.join.decision(place, asked.clone(), (), came, &mut out);
                }
                Side::Facts => {
                    let next = world.facts[partition as usize].get(at as usize);
                    let Some((written, bytes)) = next.filter(|n| n.0 <= now) else { return };
                    self.join.fact(place, bytes, Came { now, written: *written }, &mut out);
                }
            }
            self.at.insert(which, at + 1);
        }
    }

    fn tick(&mut self, now: Nanos) {
        let pending = &mut self.pending;
        self.join.tick(now, &mut |out| pending.take(out));
    }
}

/// Reads a world by a seed: any partition, any number of records, commits and crashes in between.
pub(super) fn run(
    world: &World,
    settings: &Settings,
    watch: &Watch,
    seed: u64,
    crash: f64,
) -> Seen {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut runner = Runner::new(world, settings, watch);
    let partitions = runner.partitions();
    let most = [1, 5, 100][rng.random_range(0..3)];
    let mut crashes = 0;
    let mut now = AT;
    while now < world.last() + 2 * SECOND {
        now += rng.random_range(0..100) * MS;
        for _ in 0..3 {
            runner.read(partitions[rng.random_range(0..partitions.len())], most, now);
        }
        if rng.random_bool(0.3) {
            runner.tick(now);
        }
        if rng.random_bool(0.2) {
            runner.commit();
        }
        if rng.random_bool(crash) {
            crashes += 1;
            runner.start(now);
        }
    }
    // All is read in the end, and all windows close.
    for _ in 0..400 {
        now += SECOND;
        for which in &partitions {
            runner.read(*which, usize::MAX, now);
        }
        runner.tick(now);
    }
    assert_eq!(runner.join.size(), (0, 0));
    runner.commit();
    let mut seen = runner.seen.clone();
    seen.crashes = crashes;
    seen.undecidable = runner.join.counts().undecidable.values().sum();
    seen
}

/// A world of requests of every kind, and what is true of each decision: by which class it is met, and by what.
fn world(seed: u64, requests: u64) -> (World, HashMap<String, (Class, Vec<u8>)>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (decisions, facts) = (rng.random_range(1..4), rng.random_range(1..4));
    let mut world =
        World { decisions: vec![Vec::new(); decisions], facts: vec![Vec::new(); facts] };
    let mut truth = HashMap::new();
    let longest = [100, 4_000, 60_000][rng.random_range(0..3)];
    for n in 0..requests {
        let at = AT + n as Nanos * 40 * MS;
        let (start, end) = (at - 10 * MS, at + 10 * MS);
        let id = format!("d{n}");
        let mut decision = asked(&id, at);
        let own = |fact: Fact<'static>| Fact { service: format!("s{n}").into(), ..fact };
        let mut found = Vec::new();
        let mut best = None;
        let kinds = rng.random_range(0..128u32);
        if kinds & 1 != 0 {
            let fact = own(Fact { decision_id: id.clone().into(), ..access("/by-id", start, end) });
            best = best.or(Some((Class::DecisionId, pack(&fact))));
            found.push(fact);
        }
        decision.trace = Some(trace(n));
        decision.parent = Some(span(n * 100 + 3));
        if kinds & 2 != 0 {
            // The span that asked, and above it the request.
            let (inner, outer) = ((n, n * 100 + 3, Some(n * 100 + 2)), (n, n * 100 + 2, None));
            let inner =
                Fact { marks: Marks::default(), ..server("/inner", inner, at - MS, at + MS) };
            let outer = own(server("/outer", outer, start, end));
            best = best.or(Some((Class::TraceAndParent, pack(&outer))));
            found.extend([own(inner), outer]);
        }
        if kinds & 4 != 0 {
            decision.request_id = format!("r{n}").into();
            let fact = |path, start, end| {
                own(Fact { request_id: format!("r{n}").into(), ..access(path, start, end) })
            };
            let near = fact("/near", start, end);
            best = best.or(Some((Class::RequestId, pack(&near))));
            found.extend([near, fact("/wider", start - MS, end)]);
        }
        if kinds & 8 != 0 {
            let likely =
                |path, s, width| own(server(path, (n, n * 100 + s, None), at - width, at + width));
            let narrow = likely("/narrow", 10, 2 * MS);
            best = best.or(Some((Class::Likely, pack(&narrow))));
            found.extend([narrow, likely("/wide", 11, 5 * MS)]);
        }
        let mut late = || rng.random_range(0..longest) * MS;
        let partition = n as usize % decisions;
        world.decisions[partition].push((at + late(), decision));
        for fact in found {
            let arrives = fact.end + late();
            let partition = (n as usize / 3) % facts;
            world.facts[partition].push((arrives, pack(&fact)));
        }
        if let Some(best) = best {
            truth.insert(id, best);
        }
    }
    (world.sorted(), truth)
}

fn holds(seed: u64, settings: &Settings, crash: f64) -> Result<(), TestCaseError> {
    let (world, truth) = world(seed, 150);
    let seen = run(&world, settings, &Watch::default(), seed, crash);
    prop_assert_eq!(seen.given_out.len(), 150);
    prop_assert!(seen.given_out.values().all(|n| *n == 1), "{:?}", seen.given_out);
    prop_assert_eq!(seen.told.len(), truth.len());
    for (id, (class, fact)) in &truth {
        let (told_class, told) = &seen.told[id];
        prop_assert_eq!(told_class, class, "{}", id);
        let (told, fact) = (Packed::of(told).fact().unwrap(), Packed::of(fact).fact().unwrap());
        prop_assert_eq!(told, fact, "{}", id);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_decision_goes_on_once_with_what_is_true_of_it(seed in any::<u64>()) {
        holds(seed, &Settings::default(), 0.0)?;
    }

    #[test]
    fn crashes_change_nothing(seed in any::<u64>()) {
        holds(seed, &Settings::default(), 0.05)?;
    }

    /// As if a commit's metadata held three runs.
    #[test]
    fn a_small_room_for_what_is_open_changes_nothing(seed in any::<u64>()) {
        holds(seed, &Settings { runs: 3, ..Settings::default() }, 0.05)?;
    }
}
