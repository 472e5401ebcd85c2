//! The heaviest of many, in bounded memory: so many values are remembered with their weights, others are forgotten. A
//! remembered weight is never too small (Space-Saving, Metwally, Agrawal and El Abbadi, 2005).

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug, Clone)]
pub struct SpaceSaving<K> {
    most: usize,
    weights: HashMap<K, Weight>,
    total: f64,
}

#[derive(Debug, Clone, Copy)]
struct Weight {
    /// What was added, and perhaps more: what was inherited of the value that was forgotten for it.
    most: f64,
    inherited: f64,
}

impl<K: Clone + Eq + Hash + Ord> SpaceSaving<K> {
    pub fn new(most: usize) -> SpaceSaving<K> {
        SpaceSaving { most, weights: HashMap::new(), total: 0.0 }
    }

    pub fn add<Q>(&mut self, value: &Q, weight: f64)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        self.total += weight;
        if let Some(known) = self.weights.get_mut(value) {
            known.most += weight;
            return;
        }
        let mut inherited = 0.0;
        if self.weights.len() >= self.most
            && let Some((least, weight)) = self
                .weights
                .iter()
                .min_by(|a, b| a.1.most.total_cmp(&b.1.most).then_with(|| a.0.cmp(b.0)))
                .map(|(v, w)| (v.clone(), w.most))
        {
            self.weights.remove(least.borrow());
            inherited = weight;
        }
        self.weights.insert(value.to_owned(), Weight { most: inherited + weight, inherited });
    }

    pub fn fade(&mut self, factor: f64) {
        self.total *= factor;
        for weight in self.weights.values_mut() {
            weight.most *= factor;
            weight.inherited *= factor;
        }
    }

    pub fn get<Q>(&self, value: &Q) -> f64
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.weights.get(value).map_or(0.0, |w| w.most)
    }

    /// What was added for certain: not too much, where `get` is not too little.
    pub fn sure<Q>(&self, value: &Q) -> f64
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.weights.get(value).map_or(0.0, |w| w.most - w.inherited)
    }

    /// Of all that was added, forgotten values too.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// How many values are remembered.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    pub fn remove(&mut self, value: &K) {
        self.weights.remove(value);
    }

    /// Forgets a value, and what was certainly added for it.
    pub fn take<Q>(&mut self, value: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.total -= self.sure(value);
        self.weights.remove(value);
    }

    /// The value of which most was added for certain.
    pub fn surest(&self) -> Option<(&K, f64)> {
        let sure = self.weights.iter().map(|(value, w)| (value, w.most - w.inherited));
        sure.max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.cmp(a.0)))
    }

    /// What it is made of, to be kept: the total, and each value with its weight and what of that was inherited.
    pub fn parts(&self) -> (f64, Vec<(K, f64, f64)>) {
        let mut all: Vec<(K, f64, f64)> =
            self.weights.iter().map(|(v, w)| (v.clone(), w.most, w.inherited)).collect();
        all.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        (self.total, all)
    }

    pub fn from_parts(most: usize, total: f64, parts: Vec<(K, f64, f64)>) -> SpaceSaving<K> {
        let weights = parts.into_iter().take(most);
        let weights = weights.map(|(v, most, inherited)| (v, Weight { most, inherited })).collect();
        SpaceSaving { most, weights, total }
    }

    /// The heaviest first.
    pub fn top(&self) -> Vec<(K, f64)> {
        let mut all: Vec<(K, f64)> =
            self.weights.iter().map(|(v, w)| (v.clone(), w.most)).collect();
        all.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_stay_and_no_weight_is_too_small() {
        let mut heavy: SpaceSaving<String> = SpaceSaving::new(2);
        for (value, weight) in [("a", 5.0), ("b", 1.0), ("c", 1.0), ("a", 5.0), ("b", 1.0)] {
            heavy.add(value, weight);
        }
        assert_eq!(heavy.top(), [("a".to_owned(), 10.0), ("b".to_owned(), 3.0)]);
        assert_eq!((heavy.get("c"), heavy.total()), (0.0, 13.0));
        assert_eq!((heavy.sure("a"), heavy.sure("b"), heavy.sure("c")), (10.0, 1.0, 0.0));
        let parts = heavy.parts();
        let again = SpaceSaving::from_parts(2, parts.0, parts.1);
        assert_eq!((again.top(), again.total()), (heavy.top(), heavy.total()));
        assert_eq!(again.sure("b"), 1.0);
        assert_eq!(heavy.surest(), Some((&"a".to_owned(), 10.0)));
        heavy.take("a");
        assert_eq!((heavy.get("a"), heavy.total()), (0.0, 3.0));
    }
}
