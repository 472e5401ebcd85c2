//! What verify shows while it works.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::cli::{Waiting, progress, slow, waiting};
use crate::pipeline::Pipeline;
use crate::verify::scope::Watch;

/// Draws a bar for each step; where nobody sees it, says once what takes long.
pub(super) struct Bars(Mutex<Drawn>);

struct Drawn {
    bar: Option<ProgressBar>,
    slow: Option<Waiting>,
    said: BTreeSet<String>,
}

impl Bars {
    pub(super) fn new(pipeline: &Pipeline) -> Bars {
        let slow = Some(waiting(&format!("Kafka at {}", pipeline.file.kafka.brokers)));
        Bars(Mutex::new(Drawn { bar: None, slow, said: BTreeSet::new() }))
    }

    fn with(&self, draw: impl FnOnce(&mut Drawn)) {
        draw(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Watch for Bars {
    fn begin(&self, what: &str, total: u64) {
        self.with(|drawn| {
            drawn.slow = None;
            if std::io::stderr().is_terminal() {
                let bar = match total {
                    0 => ProgressBar::new_spinner(),
                    total => progress(total, ""),
                };
                bar.set_message(what.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                drawn.bar = Some(bar);
            } else if drawn.said.insert(what.to_owned()) {
                drawn.slow = Some(slow(format!("{what} ..")));
            }
        });
    }

    fn step(&self, n: u64) {
        self.with(|drawn| drawn.bar.iter().for_each(|bar| bar.inc(n)));
    }

    fn end(&self) {
        self.with(|drawn| {
            drawn.slow = None;
            drawn.bar.take().iter().for_each(ProgressBar::finish_and_clear);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_said_once_where_no_bar_is_seen() {
        if std::io::stderr().is_terminal() {
            return;
        }
        let drawn = Drawn { bar: None, slow: None, said: BTreeSet::new() };
        let bars = Bars(Mutex::new(drawn));
        let says = || bars.0.lock().unwrap().slow.is_some();
        for (what, said) in [("asking loki", true), ("waiting", true), ("asking loki", false)] {
            bars.begin(what, 0);
            assert_eq!(says(), said, "{what}");
            bars.end();
            assert!(!says());
        }
    }
}
