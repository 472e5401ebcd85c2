//! What intake failed at stands alone in a transaction, so that nothing before or behind it fails with it.

use std::collections::BTreeSet;

use super::Run;
use super::transaction::Open;
use super::trouble::{Spot, Trouble};
use crate::log::{Message, Reader, Transactions};

pub(super) struct Alone {
    failed_at: BTreeSet<Spot>,
    /// The transaction takes no more.
    pub ends: bool,
}

impl Alone {
    pub fn new(trouble: &Trouble) -> Alone {
        Alone { failed_at: trouble.failed_at(), ends: false }
    }
}

impl<R, T> Run<'_, R, T>
where
    R: Reader,
    T: Transactions<Membership = R::Membership>,
{
    /// Whether a record is left to the next transaction. Not while parts of lines wait for others.
    pub(super) fn parted(
        &self,
        message: &Message<'_>,
        open: Option<&mut Open>,
        alone: &mut Alone,
    ) -> bool {
        let Some((topic, partition)) = self.place(message) else { return false };
        let failed = alone.failed_at.contains(&(topic, partition, message.offset));
        let open = open.filter(|open| open.records > 0 && !open.parts.wait());
        let parted = open.filter(|_| failed || alone.ends);
        alone.ends |= failed;
        parted.map(|open| self.leave(message, open)).is_some()
    }
}
