//! How far a sink is behind in a partition.

/// Offsets that are not finished: those of records, and of the markers with which transactions end. Where all is finished that was `read`
/// (up to an offset, if that is known), what stands before that offset are markers, and one more may be at the end.
pub fn lag(end: i64, done: i64, read: Option<Option<i64>>) -> i64 {
    match read {
        None => (end - done).max(0),
        Some(through) => match end - done.max(through.unwrap_or(done)) {
            ..=1 => 0,
            left => left,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::lag;

    #[test]
    fn markers_of_transactions_are_no_lag_once_all_before_them_is_finished() {
        // Ten records, each in a transaction of its own.
        assert_eq!(lag(20, 0, None), 20, "it is not known which are records");
        assert_eq!(lag(20, 19, Some(Some(20))), 0);
        assert_eq!(lag(20, 19, Some(None)), 0);
        assert_eq!(lag(26, 19, Some(Some(26))), 0, "what was aborted");
        assert_eq!(lag(26, 19, Some(Some(20))), 6);
        assert_eq!(lag(18, 19, None), 0, "the end is from before");
    }
}
