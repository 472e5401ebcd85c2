//! What parts hold in memory, accounted while they hold it.

use prometheus::IntGauge;

/// Bytes that are held, and are in a part's gauge until this is dropped.
#[derive(Debug)]
pub struct Held {
    gauge: IntGauge,
    bytes: i64,
}

impl Held {
    pub fn new(gauge: IntGauge) -> Held {
        Held { gauge, bytes: 0 }
    }

    pub fn set(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.gauge.add(bytes - self.bytes);
        self.bytes = bytes;
    }

    /// What the part holds in all.
    pub fn all(&self) -> usize {
        usize::try_from(self.gauge.get()).unwrap_or_default()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_adds_up_and_is_given_back() {
        let gauge = IntGauge::new("held", "held").unwrap_or_else(|e| panic!("{e}"));
        let (mut one, mut another) = (Held::new(gauge.clone()), Held::new(gauge.clone()));
        one.set(5);
        another.set(7);
        one.set(3);
        assert_eq!((gauge.get(), one.all()), (10, 10));
        drop(one);
        assert_eq!(gauge.get(), 7);
        drop(another);
        assert_eq!(gauge.get(), 0);
    }
}
