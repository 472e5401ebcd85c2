use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const HOUR: i64 = 1800;

/// A service that lives by the bucket, and what is said of its OPAs.
struct Life {
    service: Service,
    at: i64,
    changes: Vec<Change>,
    rng: StdRng,
}

impl Life {
    fn new(seed: u64) -> Life {
        let service = Service::new("shop", 0);
        Life { service, at: 0, changes: Vec::new(), rng: StdRng::seed_from_u64(seed) }
    }

    fn close(&mut self) {
        let none = || std::iter::empty::<&Series>();
        self.service.close(&Config::default(), none, (false, 0), &mut self.changes);
        self.at += 1;
    }

    /// So many buckets in which each of these decides so many times.
    fn steady(&mut self, buckets: i64, opas: &[(&str, u32)]) {
        for _ in 0..buckets {
            for (opa, times) in opas {
                (0..*times).for_each(|_| self.service.observe(opa, self.at));
            }
            self.close();
        }
    }

    /// So many buckets with so many decisions a second by chance, each through one of these; what nobody answers is lost.
    fn random(
        &mut self,
        buckets: i64,
        load: impl Fn(i64) -> f64,
        opas: impl Fn(i64) -> Vec<&'static str>,
    ) {
        for bucket in 0..buckets {
            let opas = opas(bucket);
            // Ten milliseconds by ten milliseconds.
            for _ in 0..200 {
                if self.rng.random_bool(load(bucket) / 100.0) {
                    let opa = opas[self.rng.random_range(0..opas.len())];
                    if !opa.is_empty() {
                        self.service.observe(opa, self.at);
                    }
                }
            }
            self.close();
        }
    }

    /// When something began, in buckets, and whom it is about.
    fn begun(&self) -> Vec<(i64, Vec<&str>)> {
        let begun = self.changes.iter().filter_map(|change| match change {
            Change::Begins(f) => {
                assert_eq!(f.kind, Kind::InstanceQuiet);
                Some((bucket(f.detected), f.causes.iter().map(|c| c.value.as_str()).collect()))
            }
            Change::Ends(_) => None,
        });
        begun.collect()
    }

    fn ended(&self) -> Vec<(i64, &str)> {
        let ended = self.changes.iter().filter_map(|change| match change {
            Change::Ends(f) => Some((bucket(f.ended.unwrap()), f.detail.as_str())),
            Change::Begins(_) => None,
        });
        ended.collect()
    }
}

#[test]
fn an_opa_that_stops_is_missed() {
    let mut life = Life::new(1);
    life.steady(HOUR, &[("a", 3), ("b", 3)]);
    life.steady(150, &[("a", 3)]);
    let begun = life.begun();
    assert!(matches!(begun[..], [(1801..1860, _)]), "{begun:?}");
}

#[test]
fn the_end_of_a_job_that_one_opa_had_is_nobodys_loss() {
    for minutes in [2, 5, 10, 15] {
        let mut life = Life::new(1);
        let two = |life: &mut Life, buckets, b| life.steady(buckets, &[("a", 3), ("b", b)]);
        two(&mut life, 1, 1);
        two(&mut life, HOUR, 0);
        two(&mut life, 30 * minutes, 20);
        for (buckets, b) in [(300, 0), (1, 1), (HOUR, 0)] {
            two(&mut life, buckets, b);
        }
        assert_eq!(life.begun(), [], "{minutes} min");
    }
}

#[test]
fn the_fewer_decisions_the_later_but_who_took_load_with_it_is_missed() {
    for (load, found) in [(1.0, 7), (1.5, 8), (2.0, 8)] {
        let missed = |seed: &u64| {
            let mut life = Life::new(*seed);
            life.random(HOUR, |_| load, |_| vec!["a", "b", "c"]);
            life.random(HOUR, |_| load, |_| vec!["a", "b", ""]);
            let begun = life.begun();
            assert!(
                begun.len() <= 1 && life.ended().is_empty(),
                "{load}, {seed}: {:?}",
                life.changes
            );
            begun.first().is_some_and(|(at, who)| *at > HOUR && who == &["c"])
        };
        let all = (1..=8).filter(missed).count();
        assert!(all >= found, "{load} a second: {all} of 8");
    }
}

#[test]
fn whose_load_was_taken_over_is_not_missed_however_long_it_is_gone() {
    for load in [1.0, 3.0, 12.0] {
        for seed in 1..=4 {
            let mut life = Life::new(seed);
            life.random(HOUR, |_| load, |_| vec!["a", "b", "c"]);
            // Five minutes later it halves by itself, and by and by it is less.
            let falls = |bucket| {
                if bucket > 150 {
                    load / 2.0 * (-0.4 * bucket as f64 / HOUR as f64).exp()
                } else {
                    load
                }
            };
            life.random(HOUR, falls, |_| vec!["a", "b"]);
            assert_eq!(life.begun(), [], "{load}, {seed}");
        }
    }
}

/// From eight OPAs to three, one each so many buckets, as the load falls in so many to three eighths.
fn scaled_in(seed: u64, load: f64, (each, falls): (i64, i64), lead: i64) -> Vec<Change> {
    const ALL: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut life = Life::new(seed);
    let now = move |bucket: i64| {
        let part = (bucket - HOUR + lead) as f64 / falls as f64;
        load * (1.0 - 0.625 * part.clamp(0.0, 1.0))
    };
    let opas = |bucket: i64| {
        let gone = if bucket < HOUR { 0 } else { 1 + (bucket - HOUR) / each };
        ALL[..8 - gone.min(5) as usize].to_vec()
    };
    life.random(HOUR + 3600 + 450, now, opas);
    life.changes
}

#[test]
fn opas_that_are_scaled_in_as_the_load_falls_are_not_missed() {
    for load in [2.0, 8.0, 20.0] {
        for each in [30, 60, 150] {
            for falls in [900, 1800, 3600] {
                for lead in [-150, 0, 150] {
                    let changes = scaled_in(1, load, (each, falls), lead);
                    assert_eq!(changes, [], "{load} a second, one each {each}, {falls}, {lead}");
                }
            }
        }
    }
    // Nor where others take all of it at once.
    assert_eq!(scaled_in(1, 20.0, (30, i64::MAX / 4), 0), []);
}

#[test]
fn what_went_on_ends_with_what_it_is() {
    let dead = || {
        let mut life = Life::new(1);
        life.steady(HOUR, &[("a", 3), ("b", 3)]);
        life.steady(3 * HOUR, &[("a", 3)]);
        assert_eq!((life.begun().len(), life.ended()), (1, vec![]), "it goes on for hours");
        life
    };
    let mut back = dead();
    back.steady(60, &[("a", 3), ("b", 3)]);
    assert_eq!(back.ended(), [(4 * HOUR + 3, BACK)]);
    let mut replaced = dead();
    replaced.steady(60, &[("a", 3), ("c", 3)]);
    assert!(matches!(replaced.ended()[..], [(7201..7260, REPLACED)]), "{:?}", replaced.ended());
    let mut gone = dead();
    gone.steady(10 * HOUR, &[("a", 3)]);
    let [(at, GIVEN_UP)] = gone.ended()[..] else { panic!("{:?}", gone.ended()) };
    assert!((at - 13 * HOUR).abs() < 60, "{at}");
    assert_eq!(gone.begun().len(), 1, "it is not said again");
    let Some(Change::Ends(finding)) = gone.changes.last() else { panic!() };
    assert!(finding.sentence().ends_with(
        "; instance b; taken for gone after 12 h: neither decisions nor the load came back"
    ));
    let mut paused = dead();
    paused.service.skip(paused.at + 300, &mut paused.changes);
    assert_eq!(paused.ended(), [(4 * HOUR, UNWATCHED)]);
}

#[test]
fn another_one_that_dies_meanwhile_is_missed_too() {
    let mut life = Life::new(1);
    life.steady(HOUR, &[("a", 3), ("b", 3), ("c", 3)]);
    life.steady(HOUR, &[("a", 3), ("b", 3)]);
    life.steady(HOUR, &[("a", 3)]);
    let begun = life.begun();
    let [(1800..1900, first), (3600..3700, second)] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!((first, second), (&vec!["c"], &vec!["b"]));
}
