//! The wall clock. Pure code takes the time as an argument; whoever needs to ask asks here.

use crate::decision::time::Nanos;

pub fn now() -> Nanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
