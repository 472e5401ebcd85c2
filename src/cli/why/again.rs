//! Decisions that are asked for and stand there more than once: one that came again is shown once, and said; another one under its ID is
//! shown, and said, too.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use crate::cli::tail::printable;
use crate::words::counted;

/// What was seen under each ID.
#[derive(Default)]
pub(super) struct Again {
    hasher: RandomState,
    seen: BTreeMap<String, Under>,
}

#[derive(Default)]
struct Under {
    contents: BTreeSet<u64>,
    repeats: u64,
}

impl Again {
    /// Whether nothing was seen yet that has this ID and this content.
    pub fn is_new(&mut self, id: &str, content: &str) -> bool {
        let under = self.seen.entry(id.to_owned()).or_default();
        let new = under.contents.insert(self.hasher.hash_one(content));
        under.repeats += u64::from(!new);
        new
    }

    /// A line for each kind.
    pub fn notes(&self) -> Vec<String> {
        let several = |is: fn(&Under) -> bool| -> Vec<(String, &Under)> {
            let all = self.seen.iter().filter(|(_, under)| is(under));
            all.map(|(id, under)| (printable(id), under)).collect()
        };
        let reused = several(|under| under.contents.len() > 1);
        let reused = reused.first().map(|(id, under)| match reused.len() {
            1 => {
                let n = under.contents.len();
                format!("the ID {id} was used for {n} different decisions (decision_id_reused)")
            }
            n => format!(
                "{n} IDs were used for different decisions (decision_id_reused): {id} is the first"
            ),
        });
        let repeats = several(|under| under.repeats > 0);
        let repeats = repeats.first().map(|(id, under)| match (repeats.len(), under) {
            (1, Under { contents, repeats: 1 }) if contents.len() == 1 => {
                format!("{id} stands there twice (a repeat), and is shown once")
            }
            (1, under) => format!("{} of {id} left out", counted(under.repeats, "repeat")),
            (n, _) => {
                format!("{n} decisions stand there more than once (repeats), and are shown once")
            }
        });
        reused.into_iter().chain(repeats).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_again_and_another_under_the_same_id_are_told_apart() {
        let notes = |all: &[(&str, &str)]| {
            let mut again = Again::default();
            let new: Vec<bool> = all.iter().map(|(id, what)| again.is_new(id, what)).collect();
            (new, again.notes().join("; "))
        };
        let (new, said) = notes(&[("a", "1"), ("b", "1")]);
        assert_eq!((new, said.as_str()), (vec![true, true], ""));
        let (new, said) = notes(&[("a", "1"), ("a", "1")]);
        assert_eq!(new, [true, false]);
        assert_eq!(said, "a stands there twice (a repeat), and is shown once");
        let (new, said) = notes(&[("a", "1"), ("a", "2"), ("a", "1"), ("a", "2")]);
        assert_eq!(new, [true, true, false, false]);
        assert_eq!(
            said,
            "the ID a was used for 2 different decisions (decision_id_reused); 2 repeats of a left out"
        );
        let (_, said) = notes(&[("a", "1"), ("a", "1"), ("b", "1"), ("b", "1")]);
        assert_eq!(said, "2 decisions stand there more than once (repeats), and are shown once");
    }
}
