//! Calls of librdkafka that may not come back, and members of a group that are closed in their time. librdkafka waits without end for a coordinator that a client without brokers never
//! finds, and so would whoever makes it anew.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// A member that is well has left its group by then.
const WAIT: Duration = Duration::from_secs(5);

/// What a member's context does once nobody waits for it any more.
pub trait Abandon: ConsumerContext + 'static {
    fn abandon(&self) {}
}

/// A member of a group. Who drops it waits for it to leave the group, but not for ever.
pub struct Closing<C: Abandon>(Option<Arc<BaseConsumer<C>>>);

impl<C: Abandon> Closing<C> {
    pub fn new(member: Arc<BaseConsumer<C>>) -> Closing<C> {
        Closing(Some(member))
    }

    pub fn member(&self) -> &Arc<BaseConsumer<C>> {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<C: Abandon> Deref for Closing<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        self.member()
    }
}

impl<C: Abandon> Drop for Closing<C> {
    fn drop(&mut self) {
        let Some(member) = self.0.take() else { return };
        let context = member.context().clone();
        if !ended(member, WAIT) {
            context.abandon();
            tracing::warn!(
                "a member of a group can't leave it, since its Kafka is away; it is left behind, and tries on"
            );
        }
    }
}

/// Drops something; whether that was over in time. If not, it goes on.
fn ended<T: Send + 'static>(what: T, wait: Duration) -> bool {
    within(wait, "docket-closes", move || drop(what)).is_some()
}

/// Calls something that may not come back; what it gave, if it did in time. If not, it goes on. Without a thread it is not called at all.
pub fn within<T: Send + 'static>(
    wait: Duration,
    name: &str,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, over) = sync_channel(1);
    let call = move || {
        let _ = done.send(call());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(call).ok()?;
    over.recv_timeout(wait).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    #[test]
    fn nobody_waits_for_ever_for_what_never_ends() {
        struct Ends(Receiver<()>);
        impl Drop for Ends {
            fn drop(&mut self) {
                let _ = self.0.recv();
            }
        }
        let (end, never) = channel();
        assert!(!ended(Ends(never), Duration::from_millis(20)));
        drop(end);
        let (end, at_once) = channel();
        drop(end);
        assert!(ended(Ends(at_once), Duration::from_secs(60)));
    }
}
