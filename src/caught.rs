//! Panics as failures: what panics is told and goes on, and takes nothing else along.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Calls something; a panic is what it said. What the call had goes with it, and what it shares is behind locks whose poison is ignored.
pub fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| said(panic.as_ref()))
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The same, where a panic is an answer: nothing is printed of it.
pub fn answered<T>(call: impl FnOnce() -> T) -> Option<T> {
    QUIET.set(true);
    let answer = caught(call);
    QUIET.set(false);
    answer.ok()
}

/// Whether a panic on this thread is an answer. For who prints panics.
pub fn is_quiet() -> bool {
    QUIET.get()
}

/// The same of a future.
pub async fn within<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    let poll = std::future::poll_fn(|context| match caught(|| future.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    });
    poll.await
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_what_it_said() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| panic!("a bug")), Err::<(), _>("it panicked: a bug".into()));
        assert_eq!(answered(|| assert!(is_quiet(), "a panic")), Some(()));
        assert_eq!((answered(|| panic!("no")), is_quiet()), (None::<()>, false));
        let late = async |text: Option<&str>| {
            tokio::task::yield_now().await;
            text.map(str::to_owned).expect("a text")
        };
        assert_eq!(within(late(Some("a"))).await, Ok("a".into()));
        assert_eq!(within(late(None)).await, Err("it panicked: a text".into()));
    }
}
