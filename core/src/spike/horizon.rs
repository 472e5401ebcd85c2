//! How late it is by decisions that were kept without the time at which they came: by what many of them say. One that
//! says to be of next year, or a few that are half an hour ahead, are not the time.

use std::collections::{HashMap, HashSet};

use super::SECOND;
use crate::decision::time::Nanos;

/// Who is ahead is so far ahead at least, and by so many times the longest pause that there was before.
const AHEAD: Nanos = 300 * SECOND;
const PAUSES: Nanos = 2;
/// Few are at most one of so many, and so many.
const FEW: usize = 50;

/// The latest time that more than a few bear; `times` are in order. Of no times there is none.
pub fn horizon(times: &[Nanos]) -> Option<Nanos> {
    let few = (times.len() / FEW).min(FEW).max(usize::from(times.len() > 2));
    let split = times.len() - few;
    let pause = |from: usize| times[from].saturating_sub(times[from - 1]);
    // A few may be far behind, too: what lies between them and the others is no pause.
    let mut longest = (few + 1..split).map(pause).max().unwrap_or(0);
    let mut end = split;
    while end < times.len() {
        let leap = pause(end.max(1));
        if end > 0 && leap > AHEAD && leap / PAUSES > longest {
            break;
        }
        longest = longest.max(leap);
        end += 1;
    }
    times.get(end.checked_sub(1)?).copied()
}

/// Whose clock is ahead begins later than the others by as much as it ends later, give or take so much, or a tenth;
const ABOUT: Nanos = 60 * SECOND;
/// and that is no more than this part of the time that there is: who took over from others begins when they end.
const PART: Nanos = 4;

/// The horizon, without those whose clock is ahead all the time: they alone seem to decide in the end. `who` made the decision of that
/// number.
pub fn common(times: &[Nanos], who: impl FnMut(usize) -> Option<String>) -> Option<Nanos> {
    let end = horizon(times)?;
    Some(before_ahead(times, end, who).unwrap_or(end))
}

/// When the others end, if those who decide after that are ahead.
fn before_ahead(
    times: &[Nanos],
    end: Nanos,
    mut who: impl FnMut(usize) -> Option<String>,
) -> Option<Nanos> {
    let start = *times.first()?;
    let soon = times.partition_point(|at| *at < start.saturating_add(AHEAD));
    let first: HashSet<String> = (0..soon).filter_map(&mut who).collect();
    // Who is there in the end and was not in the beginning, and when last.
    let mut late: HashMap<String, Nanos> = HashMap::new();
    let most = end.saturating_sub(start) / PART;
    let mut last = times.partition_point(|at| *at <= end);
    let others = loop {
        last = last.checked_sub(1).filter(|last| end.saturating_sub(times[*last]) <= most)?;
        match who(last) {
            Some(one) if first.contains(&one) => break times[last],
            Some(one) => {
                late.entry(one).or_insert(times[last]);
            }
            None => {}
        }
    };
    if end - others < AHEAD {
        return None;
    }
    for (n, at) in times.iter().take_while(|at| **at < others).enumerate() {
        if late.is_empty() {
            break;
        }
        if let Some(last) = who(n).and_then(|one| late.remove(&one)) {
            let (begins, ends) = (at.saturating_sub(start), last - others);
            if begins.saturating_sub(ends).saturating_abs() > ABOUT.max(ends / 10) {
                return None;
            }
        }
    }
    late.is_empty().then_some(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_that_are_ahead_are_not_the_time() {
        const END: Nanos = 7200;
        let with = |more: &[Nanos]| {
            let times = (0..=END).chain(more.iter().map(|m| END + m));
            let mut times: Vec<Nanos> = times.map(|second| second * SECOND).collect();
            times.sort_unstable();
            horizon(&times).unwrap() / SECOND - END
        };
        assert_eq!(with(&[]), 0);
        // Half an hour, a day and a year ahead; a few at once; what is not far ahead.
        assert_eq!(with(&[1860]), 0);
        assert_eq!(with(&[1860, 86_400, 365 * 86_400]), 0);
        assert_eq!(with(&[1800, 1801, 1801, 1802, 40_000_000]), 0);
        assert_eq!(with(&[120, 130]), 130);
        // Who comes back after a pause is not few.
        let back: Vec<Nanos> = (1800..1900).collect();
        assert_eq!(with(&back), 1899);
    }

    /// Of OPAs that decide every second for so long, from and to: when it is.
    fn of(opas: &[(&str, std::ops::Range<Nanos>)]) -> Nanos {
        let each = opas.iter().flat_map(|(name, span)| span.clone().map(move |at| (at, *name)));
        let mut all: Vec<(Nanos, &str)> = each.collect();
        all.sort_unstable();
        let times: Vec<Nanos> = all.iter().map(|(at, _)| at * SECOND).collect();
        common(&times, |i| Some(all[i].1.to_owned())).unwrap() / SECOND + 1
    }

    #[test]
    fn who_is_ahead_all_the_time_is_not_the_time() {
        const END: Nanos = 7200;
        let all = |c| [("a", 0..END), ("b", 3..END - 2), ("c", c)];
        assert_eq!(of(&all(0..END)), END);
        assert_eq!(of(&all(1200..END + 1200)), END);
        // Who goes on when the others are silent, and who came later.
        assert_eq!(of(&all(0..END + 1200)), END + 1200);
        assert_eq!(of(&all(600..END + 1200)), END + 1200);
        assert_eq!(of(&all(1200..END)), END);
        // Who took over from the others.
        let replaced = |at| [("a", 0..at), ("b", 3..at), ("c", at - 40..END), ("d", at..END)];
        for at in [600, 1800, 3600, 5400, 6600] {
            assert_eq!(of(&replaced(at)), END);
        }
        // One alone, and nobody by name.
        assert_eq!(of(&all(0..END)[..1]), END);
        assert_eq!(common(&[7, 9 * AHEAD, 10 * AHEAD], |_| None), Some(10 * AHEAD));
        assert_eq!(common(&[Nanos::MIN, 0, 1, Nanos::MAX], |_| None), Some(1));
    }

    #[test]
    fn where_decisions_are_rare_each_of_them_is_the_time() {
        let rare = |pauses: &[Nanos]| {
            let mut at = 0;
            let times = pauses.iter().map(|pause| {
                at += pause * SECOND;
                at
            });
            let times: Vec<Nanos> = times.collect();
            (horizon(&times), times.last().copied())
        };
        let (end, last) = rare(&[0, 1200, 900, 1500, 1100, 2900]);
        assert_eq!(end, last);
        let (end, last) = rare(&[0, 1200, 900, 1500, 1100, 31_000_000]);
        assert_eq!(end.unwrap() + 31_000_000 * SECOND, last.unwrap());
        for (few, end) in [(&[][..], None), (&[7], Some(7)), (&[7, 9 * AHEAD], Some(9 * AHEAD))] {
            assert_eq!(horizon(few), end);
        }
        assert_eq!(horizon(&[Nanos::MIN, 0, 1, Nanos::MAX]), Some(1));
    }
}
