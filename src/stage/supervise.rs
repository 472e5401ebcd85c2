//! Runs a part on a thread of its own, again and again until it is stopped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

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
        let Err(error) = part(stop) else { continue };
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
