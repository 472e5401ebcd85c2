//! Is the record complete and true? Compares what the docket topic holds with what each sink holds, by decision and by a hash of
//! what was sent; and looks at the record itself. Sinks are asked by their own `query`; `run` brings both together, portion by
//! portion (`spill`), so that a day of decisions needs no more memory than an hour; `behind` says what is not in the docket yet; `probe`
//! follows one question through everything.
//!
//! The docket is compared with its `source`, too: what intake should have made of what it has read, and what became of it where the docket
//! does not have it (`traced`, `lost`).

pub mod behind;
pub mod docket;
pub mod lost;
mod only;
pub mod overview;
pub mod place;
pub mod probe;
pub mod rejected;
pub mod report;
pub mod run;
pub mod scope;
pub mod source;
pub mod spill;
pub mod traced;

use std::collections::HashMap;

use serde::{Serialize, Serializer};

use crate::sink::query::{Hash, UNTOLD};

/// What a sink should hold of one decision.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub id: &'a str,
    /// Tells decisions of one id apart: the hash of the original.
    pub original: u64,
    pub hash: Hash,
    /// It is in rejects for this sink.
    pub rejected: bool,
    /// It is older than the sink takes, and went to another.
    pub elsewhere: bool,
    /// The sink has not finished it: it may be on its way.
    pub unsent: bool,
}

/// What a sink holds under an id.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    pub id: &'a str,
    /// Nothing where it is only known that it is there.
    pub hash: Option<Hash>,
    /// It was decided when everything that was is in the docket.
    pub of_the_time: bool,
}

/// Ids: how many there are, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    pub count: usize,
    pub listed: Vec<String>,
}

/// So many are listed.
const LISTED: usize = 10_000;

impl Ids {
    pub fn push(&mut self, id: &str) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(id.to_owned());
        }
    }

    fn unlisted(&self) -> usize {
        self.count - self.listed.len()
    }
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.listed.serialize(serializer)
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    pub expected: usize,
    pub present: usize,
    pub rejected: usize,
    pub elsewhere: usize,
    /// Not there yet: the sink has not finished everything up to it.
    pub unsent: usize,
    pub missing: Ids,
    pub altered: Ids,
    pub repeated: Ids,
    /// In the sink, and not in the docket.
    pub only_there: Ids,
    /// How many ids the lists above leave out, since they are too many.
    pub unlisted: usize,
}

impl Compared {
    /// What stands there more than once is no gap: nothing is lost by it.
    pub fn gaps(&self) -> usize {
        self.missing.count + self.altered.count
    }

    pub fn ended(&mut self) {
        let lists = [&self.missing, &self.altered, &self.repeated, &self.only_there];
        self.unlisted = lists.into_iter().map(Ids::unlisted).sum();
    }

    /// Compares what should be there with what is; both are all that there is of their ids. `elsewhere` is told which decisions
    /// went to another sink, `only` of which ids the sink holds some that nobody wanted.
    pub fn add(
        &mut self,
        wanted: &mut [Wanted<'_>],
        present: &mut [Held<'_>],
        elsewhere: &mut dyn FnMut(&str, u64),
        only: &mut dyn FnMut(&str),
    ) {
        wanted.sort_by(|a, b| (a.id, a.original).cmp(&(b.id, b.original)));
        present.sort_by(|a, b| a.id.cmp(b.id));
        let (mut wanted, mut present) = (&*wanted, &*present);
        loop {
            let id = match (wanted.first(), present.first()) {
                (None, None) => return,
                (Some(want), None) => want.id,
                (None, Some(there)) => there.id,
                (Some(want), Some(there)) => want.id.min(there.id),
            };
            let (these, rest) = wanted.split_at(wanted.partition_point(|w| w.id == id));
            wanted = rest;
            let (held, rest) = present.split_at(present.partition_point(|p| p.id == id));
            present = rest;
            if these.is_empty() {
                if held.iter().any(|held| held.of_the_time) {
                    only(id);
                }
            } else {
                self.one(id, these, held, elsewhere);
            }
        }
    }

    /// All of one id.
    fn one(
        &mut self,
        id: &str,
        wanted: &[Wanted<'_>],
        present: &[Held<'_>],
        elsewhere: &mut dyn FnMut(&str, u64),
    ) {
        let mut copies: HashMap<Hash, usize> = HashMap::new();
        for hash in present.iter().filter_map(|p| p.hash) {
            *copies.entry(hash).or_default() += 1;
        }
        let (mut several, mut altered) = (false, false);
        let untold = copies.remove(&UNTOLD).is_some();
        let mut without: Vec<&Wanted<'_>> = Vec::new();
        // A producer that sent one decision twice has one original, and the sink holds either of its records. What a sink holds of two originals
        // may be the same, if they differ in how they are written: then it is there twice.
        for same in wanted.chunk_by(|a, b| a.original == b.original) {
            self.expected += 1;
            let taken = same.iter().any(|want| match copies.get_mut(&want.hash) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                _ => false,
            });
            if taken || untold && same.iter().any(|want| want.hash == UNTOLD) {
                self.present += 1;
            } else {
                without.extend(same.first());
            }
        }
        for want in wanted {
            several |= copies.remove(&want.hash).is_some_and(|left| left > 0);
        }
        let mut others: usize = copies.values().sum();
        for want in without {
            if others > 0 {
                others -= 1;
                self.present += 1;
                altered = true;
            } else if want.rejected {
                self.rejected += 1;
            } else if want.unsent {
                self.unsent += 1;
            } else if want.elsewhere {
                self.elsewhere += 1;
                elsewhere(id, want.original);
            } else {
                self.missing.push(id);
            }
        }
        if others > 0 {
            (several, altered) = (true, true);
        }
        if altered {
            self.altered.push(id);
        }
        if several {
            self.repeated.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(id: &str, hash: Hash) -> Wanted<'_> {
        Wanted { id, original: hash as u64, hash, rejected: false, elsewhere: false, unsent: false }
    }

    fn compare(mut wanted: Vec<Wanted<'_>>, found: &[(&str, &[Hash])]) -> (Compared, Vec<String>) {
        let present = |id, hash: &Hash| Held { id, hash: Some(*hash), of_the_time: id != "early" };
        let mut found: Vec<Held<'_>> = found
            .iter()
            .flat_map(|(id, hashes)| hashes.iter().map(move |hash| present(*id, hash)))
            .collect();
        let (mut compared, mut elsewhere) = (Compared::default(), Vec::new());
        let mut only = Ids::default();
        let mut went = |id: &str, _| elsewhere.push(id.to_owned());
        compared.add(&mut wanted, &mut found, &mut went, &mut |id| only.push(id));
        compared.only_there = only;
        (compared, elsewhere)
    }

    #[test]
    fn a_comparison_finds_what_is_missing_altered_and_repeated() {
        let (compared, elsewhere) = compare(
            vec![
                want("a", 1),
                want("a", 1),
                want("b", 2),
                want("c", 3),
                want("d", 4),
                want("e", 5),
                Wanted { rejected: true, ..want("f", 6) },
                Wanted { elsewhere: true, ..want("g", 7) },
                Wanted { unsent: true, elsewhere: true, ..want("h", 8) },
            ],
            &[
                ("a", &[1]),
                ("b", &[9]),
                ("c", &[3, 3]),
                ("d", &[4, 9]),
                ("early", &[1]),
                ("foreign", &[1]),
            ],
        );
        assert_eq!(
            (compared.expected, compared.present, compared.rejected, compared.elsewhere),
            (8, 4, 1, 1)
        );
        assert_eq!(compared.unsent, 1);
        assert_eq!(compared.missing.listed, ["e"]);
        assert_eq!(compared.altered.listed, ["b", "d"]);
        assert_eq!(compared.repeated.listed, ["c", "d"]);
        assert_eq!(compared.only_there.listed, ["foreign"]);
        assert_eq!(elsewhere, ["g"]);
        assert_eq!(compared.gaps(), 3, "what is only there is no gap, nor what is there twice");
    }

    #[test]
    fn another_decision_under_a_used_id_is_a_second_one() {
        let two = || vec![want("a", 1), want("a", 2)];
        let of = |found: &[Hash]| {
            let (c, _) = compare(two(), &[("a", found)]);
            (c.expected, c.present, c.missing.count, c.altered.count, c.repeated.count)
        };
        assert_eq!(of(&[1, 2]), (2, 2, 0, 0, 0));
        assert_eq!(of(&[1]), (2, 1, 1, 0, 0));
        assert_eq!(of(&[2]), (2, 1, 1, 0, 0));
        assert_eq!(of(&[]), (2, 0, 2, 0, 0));
        assert_eq!(of(&[1, 9]), (2, 2, 0, 1, 0));
        assert_eq!(of(&[1, 2, 2]), (2, 2, 0, 0, 1));
        let refused = vec![want("a", 1), Wanted { rejected: true, ..want("a", 2) }];
        let (c, _) = compare(refused, &[("a", &[1])]);
        assert_eq!((c.present, c.rejected, c.gaps()), (1, 1, 0));
    }

    #[test]
    fn originals_of_which_a_sink_holds_the_same_are_there_as_often() {
        let two = || [1, 2].map(|original| Wanted { original, ..want("a", 7) }).to_vec();
        let of = |found: &[Hash]| {
            let (c, _) = compare(two(), &[("a", found)]);
            (c.expected, c.present, c.missing.count, c.altered.count, c.repeated.count)
        };
        assert_eq!(of(&[7, 7]), (2, 2, 0, 0, 0));
        assert_eq!(of(&[7]), (2, 1, 1, 0, 0));
        assert_eq!(of(&[7, 7, 7]), (2, 2, 0, 0, 1));
        assert_eq!(of(&[7, 9]), (2, 2, 0, 1, 0));
    }

    #[test]
    fn who_tells_no_content_apart_has_all_of_an_id_or_nothing() {
        let two = || [1, 2].map(|original| Wanted { original, ..want("a", UNTOLD) }).to_vec();
        let (c, _) = compare(two(), &[("a", &[UNTOLD])]);
        assert_eq!((c.expected, c.present, c.gaps(), c.repeated.count), (2, 2, 0, 0));
        let (c, _) = compare(two(), &[]);
        assert_eq!((c.present, c.missing.count), (0, 2));
    }

    #[test]
    fn one_decision_whose_records_differ_is_one() {
        // The pipeline file changed between the two.
        let again = Wanted { hash: 8, ..want("a", 1) };
        for held in [1, 8] {
            let (c, _) = compare(vec![want("a", 1), again], &[("a", &[held])]);
            assert_eq!((c.expected, c.present, c.gaps()), (1, 1, 0));
        }
        let (c, _) = compare(vec![want("a", 1), again], &[("a", &[1, 8])]);
        assert_eq!((c.expected, c.present, c.repeated.count, c.altered.count), (1, 1, 1, 0));
    }

    #[test]
    fn lists_end_and_counts_do_not() {
        let ids: Vec<String> = (0..LISTED + 5).map(|i| format!("{i:06}")).collect();
        let (mut compared, _) = compare(ids.iter().map(|id| want(id, 1)).collect(), &[]);
        compared.ended();
        assert_eq!((compared.gaps(), compared.missing.listed.len()), (LISTED + 5, LISTED));
        assert_eq!(compared.unlisted, 5);
    }
}
