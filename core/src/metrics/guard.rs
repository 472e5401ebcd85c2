//! Which label values have a series of their own. There is room for so many; the heaviest keep theirs, and who comes
//! back goes on with what was counted before.

use std::collections::{HashMap, VecDeque};

use crate::topk::SpaceSaving;

/// What was seen of a series lately.
#[derive(Debug)]
struct Seen {
    /// Fades to a half in an hour.
    weight: f64,
    at: i64,
}

#[derive(Debug)]
pub struct Guard<const N: usize> {
    most: usize,
    admitted: HashMap<[String; N], Seen>,
    /// The heaviest of the others.
    waiting: SpaceSaving<[String; N]>,
    ticked: i64,
    now: i64,
    /// Who is idle for so long goes, also while there is room.
    idle: Option<i64>,
    /// What was counted of those that went, and who went when.
    parked: HashMap<[String; N], u64>,
    went: VecDeque<[String; N]>,
}

/// A weight fades to a half in so long.
const HALF: i64 = 3600;
/// The counts of so many are remembered that had to go.
const PARKED: usize = 10_000;
const TICK: i64 = 60;
const WAITING: usize = 256;

impl<const N: usize> Guard<N> {
    pub fn new(most: usize, idle: Option<i64>) -> Guard<N> {
        Guard {
            most,
            admitted: HashMap::new(),
            waiting: SpaceSaving::new(WAITING),
            ticked: i64::MIN,
            now: 0,
            idle,
            parked: HashMap::new(),
            went: VecDeque::new(),
        }
    }

    /// Who had to go had counted so much.
    pub fn park(&mut self, labels: &[String; N], count: u64) {
        if self.went.len() >= PARKED
            && let Some(oldest) = self.went.pop_front()
        {
            self.parked.remove(&oldest);
        }
        self.parked.insert(labels.clone(), count);
        self.went.push_back(labels.clone());
    }

    /// What was counted of one that is back; once.
    pub fn unpark(&mut self, labels: &[String; N]) -> u64 {
        if self.parked.is_empty() { 0 } else { self.parked.remove(labels).unwrap_or(0) }
    }

    /// Whether a series has its own place. Counts the others.
    pub fn admits(&mut self, labels: &[String; N], count: u64) -> bool {
        let weight = count as f64;
        if let Some(seen) = self.admitted.get_mut(labels) {
            seen.weight += weight;
            seen.at = self.now;
            return true;
        }
        if self.admitted.len() < self.most {
            self.waiting.remove(labels);
            self.admitted.insert(labels.clone(), Seen { weight, at: self.now });
            return true;
        }
        self.waiting.add(labels, weight);
        false
    }

    /// Once a minute: who has to go.
    pub fn tick(&mut self, now: i64) -> Vec<[String; N]> {
        self.now = now;
        if self.ticked == i64::MIN {
            self.ticked = now;
        }
        if now - self.ticked < TICK {
            return Vec::new();
        }
        let fade = 0.5f64.powf((now - self.ticked) as f64 / HALF as f64);
        self.ticked = now;
        self.admitted.values_mut().for_each(|seen| seen.weight *= fade);
        self.waiting.fade(fade);
        let mut gone: Vec<[String; N]> = self
            .admitted
            .iter()
            .filter(|(_, seen)| self.idle.is_some_and(|idle| now - seen.at > idle))
            .map(|(labels, _)| labels.clone())
            .collect();
        for labels in &gone {
            self.admitted.remove(labels);
        }
        // The heaviest that wait take the places of the lightest, where they are clearly heavier.
        let mut light: Vec<([String; N], f64)> =
            self.admitted.iter().map(|(l, s)| (l.clone(), s.weight)).collect();
        light.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
        for (labels, weight) in self.waiting.top() {
            if self.admitted.len() >= self.most {
                let Some((lightest, _)) =
                    light.pop().filter(|(_, lightest)| weight > 2.0 * lightest)
                else {
                    break;
                };
                self.admitted.remove(&lightest);
                gone.push(lightest);
            }
            self.waiting.remove(&labels);
            self.admitted.insert(labels, Seen { weight, at: now });
        }
        gone
    }
}
