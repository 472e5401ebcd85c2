//! A sink that takes its time, loses answers, refuses some records and is away for a while.

use std::sync::Mutex;
use std::time::Duration;

use docket::decision::record::Record;
use docket::http::failure::{Cause, Failure, Retry};
use docket::sink::{Outcome, Sink};
use tokio::time::Instant;

use super::world::{Alive, Sabotage, Shared};

/// How it answers.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    /// For the request as a whole, like Loki: a refused one may have been stored in part.
    Whole,
    /// For each record, like Elasticsearch.
    Items,
}

pub struct SimSink {
    name: String,
    manner: Manner,
    world: Shared,
    /// Requests as they were made first, for a sabotage.
    shapes: Mutex<Vec<Records>>,
    /// Encoded requests that are there.
    alive: Alive,
    swells: usize,
}

/// Decision id and bytes.
type Records = Vec<(String, Vec<u8>)>;

/// An encoded request.
pub struct Body {
    records: Records,
    size: usize,
    alive: Alive,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.alive.take(self.size);
    }
}

/// The sink answers with an outage for so long, or refuses everything.
pub fn away(world: &Shared, sink: &str, how_long: Duration, refuses: bool) {
    let until = Instant::now() + how_long;
    let mut w = world.lock();
    if refuses {
        w.refusing.insert(sink.to_owned(), until);
    } else {
        w.away.insert(sink.to_owned(), until);
    }
}

/// Decisions with this in their id make the sink fail, and are not refused.
pub const FAILS: &str = "fails";

fn retry(cause: Cause) -> Failure {
    Failure::retry(cause, "simulated")
}

impl SimSink {
    pub fn new(name: &str, manner: Manner, world: &Shared, alive: Alive) -> SimSink {
        let swells = world.lock().swells;
        let (name, world) = (name.to_owned(), world.clone());
        SimSink { name, manner, world, shapes: Mutex::default(), alive, swells }
    }

    fn throttles(&self) -> bool {
        let mut w = self.world.lock();
        !w.takes_all && w.chance(0.3)
    }

    fn body(&self, records: Records) -> Body {
        let size = records.iter().map(|(_, raw)| raw.len()).sum::<usize>() * self.swells;
        self.alive.add(size);
        Body { records, size, alive: self.alive.clone() }
    }

    fn is_poison(&self, id: &str) -> bool {
        id.ends_with(&self.name)
    }

    fn store(&self, records: &[&(String, Vec<u8>)], acknowledge: bool) {
        let mut w = self.world.lock();
        for (id, raw) in records {
            let at = docket::decision::record::time(raw).unwrap();
            w.times.entry(self.name.clone()).or_default().push(at);
            let by_id_alone = w.sabotage == Sabotage::ByIdAlone;
            let stored = w.stored.entry(self.name.clone()).or_default();
            let copies = stored.entry(id.clone()).or_default();
            if !by_id_alone || copies.first().is_none_or(|first| first == raw) {
                copies.push(raw.clone());
            }
            if acknowledge {
                w.acknowledged.entry(self.name.clone()).or_default().insert(id.clone());
            }
        }
    }
}

impl Sink for SimSink {
    type Body = Body;

    fn encode(&self, batch: &[Record<'_>]) -> Body {
        let body: Records =
            batch.iter().map(|r| (r.decision_id.to_string(), r.raw.as_bytes().to_vec())).collect();
        if self.manner == Manner::Whole && self.world.lock().sabotage == Sabotage::SameShape {
            let mut shapes = self.shapes.lock().unwrap();
            if let Some(first) = shapes.iter().find(|shape| shape.contains(&body[0])) {
                return self.body(first.clone());
            }
            shapes.push(body.clone());
        }
        self.body(body)
    }

    fn size(body: &Body) -> usize {
        body.size
    }

    async fn send(&self, body: &Body) -> Outcome {
        let body = &body.records;
        let (latency, dice, away, refusing, panics) = {
            let mut w = self.world.lock();
            let p = w.faults.send_panics;
            let now = Instant::now();
            let away = w.away.get(&self.name).is_some_and(|until| now < *until);
            let refusing = w.refusing.get(&self.name).is_some_and(|until| now < *until);
            let latency = if w.chance(0.1) { 2_000 } else { 60 };
            let latency = Duration::from_millis(1 + w.below(latency));
            (latency, w.below(100), away, refusing, w.chance(p))
        };
        tokio::time::sleep(latency).await;
        assert!(!panics, "simulated: docket has a bug");
        if away {
            return match dice {
                0..30 => Outcome::Failed(retry(Cause::Credentials)),
                30..60 => Outcome::Failed(retry(Cause::Server)),
                60..80 => Outcome::Failed(Failure::Retry(Retry {
                    cause: Cause::Throttled,
                    detail: "simulated".into(),
                    after: Some(Duration::from_secs(1)),
                })),
                80..85 => {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    Outcome::Failed(retry(Cause::Timeout))
                }
                // A success in a form that this sink never has: some proxy's page.
                85..90 => match self.world.lock().sabotage {
                    Sabotage::TakesAnyAnswer => Outcome::Delivered,
                    _ => Outcome::Failed(retry(Cause::Misconfigured)),
                },
                // Taken, and the answer lost.
                _ => {
                    self.store(
                        &body.iter().filter(|(id, _)| !self.is_poison(id)).collect::<Vec<_>>(),
                        false,
                    );
                    Outcome::Failed(retry(Cause::Connection))
                }
            };
        }
        let refused = |id: &str| match id.contains(FAILS) && !refusing {
            true => retry(Cause::Server),
            false => Failure::refused(400, "poison"),
        };
        if refusing {
            return match self.manner {
                Manner::Whole => Outcome::Failed(refused("")),
                Manner::Items => Outcome::Each(vec![Err(refused("")); body.len()]),
            };
        }
        let poisoned = body.iter().find(|(id, _)| self.is_poison(id));
        match (self.manner, poisoned) {
            (Manner::Whole, Some((id, _))) => {
                // Some may have been stored.
                if dice < 50 {
                    self.store(
                        &body
                            .iter()
                            .filter(|(id, _)| !self.is_poison(id))
                            .take(3)
                            .collect::<Vec<_>>(),
                        false,
                    );
                }
                Outcome::Failed(refused(id))
            }
            (Manner::Whole, None) => {
                self.store(&body.iter().collect::<Vec<_>>(), true);
                Outcome::Delivered
            }
            (Manner::Items, _) => {
                let each: Vec<Result<(), Failure>> = body
                    .iter()
                    .map(|record| {
                        if self.is_poison(&record.0) {
                            return Err(refused(&record.0));
                        }
                        if dice < 20 && self.throttles() {
                            return Err(retry(Cause::Throttled));
                        }
                        self.store(&[record], true);
                        Ok(())
                    })
                    .collect();
                if each.iter().all(Result::is_ok) {
                    Outcome::Delivered
                } else {
                    Outcome::Each(each)
                }
            }
        }
    }
}
