//! The running parts: intake (decision logs to the docket topic), correlate (decisions meet their requests on the way)
//! and deliver (the docket topic to one sink). Each is a loop over `log` with a pure function in it, on a thread of its own; a part that
//! fails is started again, and everything it needs to go on is in Kafka.

pub mod changes;
pub mod correlate;
pub mod deliver;
pub mod events;
mod gaps;
pub mod handover;
pub mod intake;
pub mod redrive;
pub mod roles;
pub mod run;
pub mod spikes;
mod supervise;
mod watchdog;
