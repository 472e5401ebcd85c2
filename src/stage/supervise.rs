//! Runs a part on a thread of its own, again and again until it is stopped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::caught::caught;
use crate::telemetry::{Health, Meters};

/// The first pause before a part that failed is started again; it doubles each time,
const PAUSE: Duration = Duration::from_millis(500);
/// up to this,
const LONGEST: Duration = Duration::from_secs(15);
/// and is the first one again after a run of so long.
const WELL: Duration = Duration::from_secs(60);

/// A part that runs.
pub struct Part {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Part {
    pub fn stop(&self) {
        self.stop.cancel();
    }

    #[cfg(test)]
    pub fn id(&self) -> std::thread::ThreadId {
        self.thread.thread().id()
    }

    pub fn join(self) {
        // A part that panicked has said so; the others are still waited for.
        let _ = self.thread.join();
    }
}

/// What tells of a part: its health and its restarts.
pub struct Reports {
    /// The pipeline's name, a slash and the part's.
    pub full_name: String,
    pub name: String,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
}

pub fn spawn(
    reports: Reports,
    stop: CancellationToken,
    part: impl Fn(&CancellationToken) -> Result<(), String> + Send + 'static,
) -> std::io::Result<Part> {
    let token = stop.clone();
    let thread = format!("docket-{}", reports.name);
    let thread = std::thread::Builder::new()
        .name(thread)
        .spawn(move || again_and_again(&reports, &stop, part))?;
    Ok(Part { stop: token, thread })
}

fn again_and_again(
    reports: &Reports,
    stop: &CancellationToken,
    part: impl Fn(&CancellationToken) -> Result<(), String>,
) {
    let mut pause = PAUSE;
    while !stop.is_cancelled() {
        let started = Instant::now();
        // A panic is a failure like any other.
        let Err(error) = caught(|| part(stop)).flatten() else { continue };
        reports.health.set(&reports.full_name, Err(error.clone()));
        reports.meters.restarts.with_label_values(&[&reports.name]).inc();
        tracing::error!(part = reports.full_name, error, "a part failed and is started again");
        pause = if started.elapsed() > WELL { PAUSE } else { (pause * 2).min(LONGEST) };
        let until = Instant::now() + pause;
        while !stop.is_cancelled() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Transactions that fail one after the other are begun again more and more slowly. `more`: how often after the first few, by
/// which records that Kafka refuses are found.
pub async fn pause(more: Option<u32>, stop: &CancellationToken) {
    let Some(doubled) = more else { return };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(Duration::from_millis(100 << doubled.min(6))) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_part_that_panics_is_told_and_started_again() {
        let registry = prometheus::Registry::new();
        let meters = Arc::new(Meters::new("p", &registry).unwrap());
        let health = Arc::new(Health::default());
        let reports = Reports {
            full_name: "p/loki".into(),
            name: "loki".into(),
            meters: meters.clone(),
            health: health.clone(),
        };
        let (runs, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let counted = runs.clone();
        let told = health.clone();
        let part = spawn(reports, stop.clone(), move |stop| {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                panic!("a bug");
            }
            // What it was before it ran again.
            assert_eq!(told.not_ready(), [("p/loki".to_owned(), "it panicked: a bug".to_owned())]);
            told.set("p/loki", Ok(()));
            stop.cancel();
            Ok(())
        })
        .unwrap();
        part.join();
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(meters.restarts.with_label_values(&["loki"]).get(), 1);
        assert!(health.not_ready().is_empty());
    }
}
