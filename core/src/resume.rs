//! Where a reader goes on in a partition of a log, and what of the log is gone that it never finished. Pure: what the
//! group committed and what the log holds come in, nobody is asked.
//!
//! A group never jumps: it goes on where it committed, or says what it can't read any more, and why.

/// Where a group starts in a topic that it has never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

/// What a group committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Everything below it is finished.
    pub next: i64,
    /// The id of the topic that it is an offset of, if that was known.
    pub topic_id: Option<String>,
}

/// What a partition's log holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log<'l> {
    pub topic_id: Option<&'l str>,
    pub first: i64,
    /// Behind the last record that can be read.
    pub end: i64,
}

/// What is known of a group's past in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// It has committed something of the topic.
    pub begun: bool,
    /// What stands for the offsets that partitions don't have, where the group has read before: of a topic of that name that is no more, or
    /// of one whose offsets are gone. It is to be committed before anything is read, so that each partition is told of, whoever reads it.
    pub instead: Option<Committed>,
}

/// The id of a topic whose offsets are gone.
const FORGOTTEN: &str = "forgotten";

impl Past {
    /// By what the group committed of the topic's partitions; `forgotten` if it has no offsets at all, though what it wrote is there; `known` is
    /// the id of the topic that it read before.
    pub fn new<'c>(
        committed: impl Iterator<Item = &'c Committed>,
        topic_id: Option<&str>,
        forgotten: bool,
        known: Option<&str>,
    ) -> Past {
        let (mut begun, mut another) = (false, known);
        for one in committed {
            begun = true;
            another = another.filter(|id| Some(*id) != topic_id).or(one.topic_id.as_deref());
        }
        let another = another.filter(|id| topic_id.is_some_and(|is| is != *id));
        let id = another.or((forgotten && !begun).then_some(FORGOTTEN));
        let instead = id.map(|id| Committed { next: 0, topic_id: Some(id.to_owned()) });
        Past { begun, instead }
    }
}

/// Why a part of a log can't be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Retention took it before it was read.
    Retention,
    /// The topic was deleted, and another one has its name.
    Recreated,
    /// The log ends before what was read of it.
    Truncated,
    /// The group's offsets are gone.
    Expired,
}

impl Cause {
    pub const ALL: [Cause; 4] =
        [Cause::Retention, Cause::Recreated, Cause::Truncated, Cause::Expired];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Retention => "retention",
            Cause::Recreated => "recreated",
            Cause::Truncated => "truncated",
            Cause::Expired => "expired",
        }
    }
}

/// A range of offsets that a group has not finished and can't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub cause: Cause,
    pub from: i64,
    /// Before this one; not known of a topic that is no more.
    pub to: Option<i64>,
}

impl Gap {
    /// How many offsets it is, if that is known. Transaction markers are among them.
    pub fn offsets(&self) -> Option<u64> {
        self.to.map(|to| u64::try_from(to.saturating_sub(self.from)).unwrap_or_default())
    }

    /// What happened to a partition, for people.
    pub fn sentence(&self, topic: &str, partition: i32) -> String {
        let from = self.from;
        let place = format!("partition {partition} of {topic}");
        match (self.cause, self.to) {
            (Cause::Retention, Some(to)) => format!(
                "{place}: offsets {from} to {} were deleted by retention before they were finished",
                to - 1
            ),
            (Cause::Truncated, Some(to)) => format!(
                "{place}: the log ends at {from}, and was read up to {to}: it was truncated, and what is there now is read from its start"
            ),
            (Cause::Expired, Some(to)) if to > from => format!(
                "{place}: the group's offsets are gone (expired or deleted), and offsets {from} to {} are not read",
                to - 1
            ),
            (Cause::Expired, _) => format!(
                "{place}: the group's offsets are gone (expired or deleted), and what it had not finished is not known; it is read again from its start"
            ),
            (Cause::Recreated, _) if from == 0 => format!(
                "{place}: the topic was deleted and created again; what was not finished of the old one is gone"
            ),
            (Cause::Recreated, _) => format!(
                "{place}: the topic was deleted and created again; what the old one held from offset {from} on was not finished"
            ),
            (_, None) => format!("{place}: what stood from offset {from} on is gone"),
        }
    }
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    pub at: i64,
    pub gap: Option<Gap>,
    /// Nothing is committed yet: this is where the group starts, and it is to be committed before anything is read.
    pub begins: bool,
}

/// Where a group goes on in a partition.
pub fn resume(committed: Option<&Committed>, log: Log<'_>, past: &Past, start: Start) -> Resume {
    let on = |at, gap| Resume { at, gap, begins: false };
    let gap = |cause, from, to| Some(Gap { cause, from, to });
    let Some(Committed { next, topic_id }) = committed.or(past.instead.as_ref()) else {
        return match start {
            // A partition that was added later is read from its first record on.
            _ if past.begun && log.first > 0 => {
                on(log.first, gap(Cause::Expired, 0, Some(log.first)))
            }
            Start::Latest if !past.begun => Resume { at: log.end, gap: None, begins: true },
            _ => Resume { at: log.first, gap: None, begins: true },
        };
    };
    let another = topic_id.as_deref().zip(log.topic_id).is_some_and(|(was, is)| was != is);
    if topic_id.as_deref() == Some(FORGOTTEN) {
        on(log.first, gap(Cause::Expired, *next, None))
    } else if another {
        on(log.first, gap(Cause::Recreated, *next, None))
    } else if *next < log.first {
        on(log.first, gap(Cause::Retention, *next, Some(log.first)))
    } else if *next > log.end {
        on(log.first, gap(Cause::Truncated, log.end, Some(*next)))
    } else {
        on(*next, None)
    }
}

/// The same of one of a topic's partitions, and what is to be committed of it before anything is read. What the log holds is not asked
/// of partitions that are others' to read, unless the group begins.
pub fn decide(
    committed: Option<&Committed>,
    log: Option<Log<'_>>,
    past: &Past,
    start: Start,
) -> (Option<Resume>, Option<Committed>) {
    let instead = past.instead.clone().filter(|_| committed.is_none());
    let to = log.map(|log| resume(committed, log, past, start));
    let begins = log
        .zip(to.as_ref())
        .filter(|(_, to)| to.begins)
        .map(|(log, to)| Committed { next: to.at, topic_id: log.topic_id.map(str::to_owned) });
    (to, instead.or(begins))
}

/// Before a topic's id in what stands beside a committed offset.
const MARK: &str = "docket topic=";

/// What stands beside a committed offset: the topic's id, and the part's own text. Kafka takes 4,096 bytes.
pub fn metadata(topic_id: Option<&str>, own: &str) -> String {
    match topic_id {
        None => own.to_owned(),
        Some(id) if own.is_empty() => format!("{MARK}{id}"),
        Some(id) => format!("{MARK}{id} {own}"),
    }
}

/// The topic's id in what stands beside a committed offset, and the rest of it; either may not be there, and others write
/// other things.
pub fn beside(metadata: &str) -> (Option<&str>, &str) {
    let Some(rest) = metadata.strip_prefix(MARK) else { return (None, metadata) };
    let (id, own) = rest.split_once(' ').unwrap_or((rest, ""));
    ((!id.is_empty()).then_some(id), own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BEGUN: Past = Past { begun: true, instead: None };

    fn log(first: i64, end: i64) -> Log<'static> {
        Log { topic_id: Some("A"), first, end }
    }

    fn committed(next: i64, id: &str) -> Committed {
        Committed { next, topic_id: (!id.is_empty()).then(|| id.to_owned()) }
    }

    fn go(at: i64) -> Resume {
        Resume { at, gap: None, begins: false }
    }

    fn lost(at: i64, cause: Cause, from: i64, to: Option<i64>) -> Resume {
        Resume { at, gap: Some(Gap { cause, from, to }), begins: false }
    }

    #[test]
    fn a_group_goes_on_where_it_committed_or_says_what_is_gone() {
        let on = |c: Committed, l| resume(Some(&c), l, &BEGUN, Start::Latest);
        for id in ["A", ""] {
            assert_eq!(on(committed(5, id), log(0, 9)), go(5));
            assert_eq!(on(committed(9, id), log(9, 9)), go(9));
            assert_eq!(on(committed(0, id), log(0, 0)), go(0));
            assert_eq!(on(committed(5, id), log(6, 9)), lost(6, Cause::Retention, 5, Some(6)));
            assert_eq!(on(committed(10, id), log(3, 9)), lost(3, Cause::Truncated, 9, Some(10)));
        }
        // Another topic of that name, whatever offsets it has.
        for l in [log(0, 0), log(0, 9), log(3, 99)] {
            assert_eq!(on(committed(5, "B"), l), lost(l.first, Cause::Recreated, 5, None));
        }
        // A broker that has no ids says nothing of it.
        let nameless = Log { topic_id: None, first: 0, end: 9 };
        assert_eq!(on(committed(5, "B"), nameless), go(5));
    }

    #[test]
    fn a_start_is_committed_and_what_was_added_later_is_read_from_its_first_record() {
        let none = |l, past: &Past, start| resume(None, l, past, start);
        let new = Past { begun: false, instead: None };
        let begins = |at| Resume { at, gap: None, begins: true };
        assert_eq!(none(log(3, 9), &new, Start::Earliest), begins(3));
        assert_eq!(none(log(3, 9), &new, Start::Latest), begins(9));
        for start in [Start::Earliest, Start::Latest] {
            assert_eq!(none(log(0, 9), &BEGUN, start), begins(0));
            let gone = lost(3, Cause::Expired, 0, Some(3));
            assert_eq!(none(log(3, 9), &BEGUN, start), gone);
        }
    }

    #[test]
    fn what_has_no_offset_gets_one_before_anything_is_read() {
        let new = Past { begun: false, instead: None };
        let decided = |c: Option<&Committed>, past| decide(c, Some(log(3, 9)), past, Start::Latest);
        assert_eq!(decided(None, &new).1, Some(committed(9, "A")));
        let instead = Past { begun: true, instead: Some(committed(0, "B")) };
        assert_eq!(decided(None, &instead).1, instead.instead);
        assert_eq!(decided(Some(&committed(5, "A")), &instead), (Some(go(5)), None));
        // Another's to read.
        assert_eq!(decide(None, None, &BEGUN, Start::Latest), (None, None));
        assert_eq!(decide(None, None, &instead, Start::Latest), (None, instead.instead.clone()));
    }

    #[test]
    fn partitions_without_an_offset_are_told_of_with_the_others() {
        let all = [committed(5, "B"), committed(3, "A"), committed(1, "")];
        let past = |all: &[Committed], forgotten, known| {
            Past::new(all.iter(), Some("A"), forgotten, known)
        };
        let instead = |id: &str| Some(Committed { next: 0, topic_id: Some(id.into()) });
        assert_eq!(past(&all, false, None), Past { begun: true, instead: instead("B") });
        assert_eq!(past(&all[1..], true, Some("A")), BEGUN);
        assert_eq!(past(&all[1..], false, Some("C")).instead, instead("C"));
        assert_eq!(past(&all[..1], false, Some("A")).instead, instead("B"));
        assert_eq!(past(&[], false, Some("C")).instead, instead("C"));
        assert_eq!(past(&[], false, None), Past { begun: false, instead: None });
        for start in [Start::Earliest, Start::Latest] {
            for (past, cause) in [
                (past(&all, false, None), Cause::Recreated),
                (past(&[], true, None), Cause::Expired),
            ] {
                assert_eq!(resume(None, log(3, 9), &past, start), lost(3, cause, 0, None));
                // As it stands once it is committed.
                let kept = resume(past.instead.as_ref(), log(3, 9), &BEGUN, start);
                assert_eq!(kept, lost(3, cause, 0, None));
            }
        }
    }

    #[test]
    fn the_topic_id_and_a_text_stand_beside_the_offset() {
        for id in [None, Some("x5Gd-_0")] {
            for own in ["", "AgAAAA", "two words"] {
                assert_eq!(beside(&metadata(id, own)), (id, own));
            }
        }
        // As it was written before there was a text, and before there was an id.
        assert_eq!(metadata(Some("x5Gd-_0"), ""), "docket topic=x5Gd-_0");
        assert_eq!(metadata(None, "AgAAAA"), "AgAAAA");
        for others in ["", "docket topic=", "NTVj", "topic=x"] {
            assert_eq!(beside(others).0, None, "{others:?}");
        }
    }

    proptest! {
        /// Nothing is passed over without a word, and what is read is there.
        #[test]
        fn nothing_is_passed_over_silently(next in 0i64..20, first in 0i64..20, more in 0i64..20, same in any::<bool>()) {
            let l = log(first, first + more);
            let c = committed(next, if same { "A" } else { "B" });
            let Resume { at, gap, begins } = resume(Some(&c), l, &BEGUN, Start::Latest);
            prop_assert!(!begins && (l.first..=l.end).contains(&at));
            match gap {
                None => prop_assert_eq!(at, next),
                Some(gap) => {
                    prop_assert_eq!(at, l.first);
                    prop_assert!(gap.to.is_none_or(|to| to > gap.from));
                    prop_assert!(!same || next < l.first || next > l.end);
                }
            }
        }
    }
}
