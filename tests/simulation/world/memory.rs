//! What parts hold in memory: what docket says of it is held against what is there, and against what the budget gives them.

use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::IntGauge;

use super::*;

/// Bytes that are there.
#[derive(Clone, Default)]
pub struct Alive(Arc<AtomicI64>);

impl Alive {
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    pub fn take(&self, bytes: usize) {
        self.0.fetch_sub(bytes as i64, Ordering::Relaxed);
    }

    fn bytes(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of one part of one process.
pub struct Account {
    pub part: String,
    /// What docket says it holds,
    pub held: IntGauge,
    /// what of that the simulation can see,
    pub alive: Alive,
    /// and how much it may be.
    pub most: usize,
}

impl World {
    /// A part begins, perhaps again.
    pub fn account(&mut self, process: &str, account: Account) {
        self.accounts.insert((process.to_owned(), account.part.clone()), account);
    }

    /// While a part is not at work. What is too old for one sink, another holds for it.
    pub fn check_memory(&mut self, process: &str, part: &str) {
        let also = if part == "once" { "late" } else { part };
        let mut wrong = Vec::new();
        for part in BTreeSet::from([part, also]) {
            let account = self.accounts.get(&(process.to_owned(), part.to_owned()));
            let Some(Account { held, alive, most, .. }) = account else { continue };
            let (held, alive) = (held.get(), alive.bytes());
            if alive > held {
                wrong.push(format!("{part} holds {alive} bytes, and says {held}"));
            }
            if held > *most as i64 {
                wrong.push(format!("{part} holds {held} bytes, and may {most}"));
            }
        }
        // Once is enough.
        if self.violations.is_empty() {
            wrong.into_iter().for_each(|what| self.violation(what));
        }
    }
}
