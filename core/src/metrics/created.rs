//! When each series came to be: for who asks what a counter was before it was first seen. A series that is new was not
//! there when all of them were looked at before, so it began then, at 0.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use prometheus::proto::{Metric, MetricFamily, MetricType};

use crate::decision::time::Nanos;

#[derive(Debug)]
pub struct Created {
    /// When all were looked at last; before the first time, when the process began.
    looked: Nanos,
    /// By a hash of name and labels: when it began, and in which look it was there last.
    of: HashMap<u64, (Nanos, u64)>,
    looks: u64,
}

impl Created {
    pub fn new(began: Nanos) -> Created {
        Created { looked: began, of: HashMap::new(), looks: 0 }
    }

    /// Takes note of what there is now.
    pub fn look(&mut self, families: &[MetricFamily], now: Nanos) {
        self.looks += 1;
        for family in families.iter().filter(|f| counts(f)) {
            for metric in family.get_metric() {
                self.of.entry(hash(family, metric)).or_insert((self.looked, 0)).1 = self.looks;
            }
        }
        self.of.retain(|_, (_, looked)| *looked == self.looks);
        self.looked = now;
    }

    /// None of what counts nothing.
    pub fn of(&self, family: &MetricFamily, metric: &Metric) -> Option<Nanos> {
        if !counts(family) {
            return None;
        }
        self.of.get(&hash(family, metric)).map(|(began, _)| *began)
    }
}

fn counts(family: &MetricFamily) -> bool {
    matches!(family.get_field_type(), MetricType::COUNTER | MetricType::HISTOGRAM)
}

fn hash(family: &MetricFamily, metric: &Metric) -> u64 {
    let mut hasher = DefaultHasher::new();
    family.name().hash(&mut hasher);
    for label in metric.get_label() {
        (label.name(), label.value()).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn what_is_new_began_when_it_was_not_there_yet() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "All."), &["b"]).unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        let mut created = Created::new(5);
        let mut began = |now: Nanos| -> Vec<Option<Nanos>> {
            let families = registry.gather();
            created.look(&families, now);
            let of = |f: &MetricFamily| -> Vec<Option<Nanos>> {
                f.get_metric().iter().map(|m| created.of(f, m)).collect()
            };
            families.iter().flat_map(of).collect()
        };
        counter.with_label_values(&["x"]).inc();
        assert_eq!(began(10), [Some(5)]);
        counter.with_label_values(&["y"]).inc();
        assert_eq!(began(20), [Some(5), Some(10)]);
        counter.remove_label_values(&["x"]).unwrap();
        assert_eq!(began(30), [Some(10)]);
        counter.with_label_values(&["x"]).inc();
        assert_eq!(began(40), [Some(30), Some(10)], "it began anew");
    }
}
