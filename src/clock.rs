//! The wall clock. Pure code takes the time as an argument; whoever needs to ask asks here.

use crate::decision::time::{Nanos, nanos};

pub fn now() -> Nanos {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    nanos(since)
}
