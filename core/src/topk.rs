//! The heaviest of many, in bounded memory: so many values are remembered with their weights, others are forgotten. A
//! remembered weight is never too small (Space-Saving, Metwally, Agrawal and El Abbadi, 2005).

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub struct SpaceSaving<K> {
    most: usize,
    weights: HashMap<K, f64>,
    total: f64,
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
            *known += weight;
            return;
        }
        let mut inherited = 0.0;
        if self.weights.len() >= self.most
            && let Some((least, weight)) = self
                .weights
                .iter()
                .min_by(|a, b| a.1.total_cmp(b.1).then_with(|| a.0.cmp(b.0)))
                .map(|(v, w)| (v.clone(), *w))
        {
            self.weights.remove(least.borrow());
            inherited = weight;
        }
        self.weights.insert(value.to_owned(), inherited + weight);
    }

    pub fn fade(&mut self, factor: f64) {
        self.total *= factor;
        self.weights.values_mut().for_each(|w| *w *= factor);
    }

    pub fn get<Q>(&self, value: &Q) -> f64
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.weights.get(value).copied().unwrap_or_default()
    }

    /// Of all that was added, forgotten values too.
    pub fn total(&self) -> f64 {
        self.total
    }

    pub fn remove(&mut self, value: &K) {
        self.weights.remove(value);
    }

    /// The heaviest first.
    pub fn top(&self) -> Vec<(K, f64)> {
        let mut all: Vec<(K, f64)> = self.weights.iter().map(|(v, w)| (v.clone(), *w)).collect();
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
    }
}
