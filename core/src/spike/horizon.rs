//! How late it is by decisions that were kept without the time at which they came: by what many of them say. One that
//! says to be of next year, or a few that are half an hour ahead, are not the time.

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
