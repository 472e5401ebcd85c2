//! Changed pipeline files, and what they refer to, while `docket run` runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::caught;
use crate::config::tracked::{self, Looked};
use crate::pipeline::Pipeline;
use crate::pipeline::load::LoadError;
use crate::stage::run::Parts;
use crate::telemetry::push::Pushing;

/// How often is looked whether files have changed; only then they are read again.
const LOOK: Duration = Duration::from_secs(2);

/// What runs, and the files that say what.
pub struct Watcher {
    pub running: Vec<Parts>,
    pub pushing: Pushing,
    files: Vec<PathBuf>,
    /// What was wrong when each was last refused.
    refused: Vec<Option<String>>,
    looked: Vec<Looked>,
    reloads: IntCounterVec,
    load: fn(&Path) -> Result<Pipeline, LoadError>,
}

/// A watcher at work. What runs is not its own: it is there whatever becomes of the watcher.
pub struct Watching {
    watcher: Arc<Mutex<Watcher>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watching {
    /// Ends the watching, and hands out what runs.
    pub async fn end(self) -> Watcher {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "changed pipeline files were not looked after any more");
        }
        let mut watcher = self.watcher;
        loop {
            match Arc::try_unwrap(watcher) {
                Ok(watcher) => return watcher.into_inner(),
                // The task lets go of it as it ends.
                Err(held) => watcher = held,
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Watcher {
    pub fn new(
        running: Vec<Parts>,
        pushing: Pushing,
        files: Vec<PathBuf>,
        registry: &Registry,
    ) -> Result<Watcher, prometheus::Error> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "docket_reloads_total",
                "Changed pipeline files: applied, or refused with the old one left in force.",
            ),
            &["file", "outcome"],
        )?;
        registry.register(Box::new(reloads.clone()))?;
        for file in &files {
            for outcome in ["applied", "refused"] {
                reloads.with_label_values(&[&file.display().to_string(), outcome]);
            }
        }
        let refused = vec![None; files.len()];
        let looked = files.iter().map(|_| Looked::default()).collect();
        let load = crate::pipeline::load;
        Ok(Watcher { running, pushing, files, refused, looked, reloads, load })
    }

    /// Looks after the files, now and then and on SIGHUP.
    pub fn watch(self, mut hup: Signal) -> Watching {
        let watcher = Arc::new(Mutex::new(self));
        let stop = CancellationToken::new();
        let (watched, stopped) = (watcher.clone(), stop.clone());
        let task = tokio::spawn(async move {
            loop {
                let asked = tokio::select! {
                    () = stopped.cancelled() => return,
                    _ = hup.recv() => true,
                    () = tokio::time::sleep(LOOK) => false,
                };
                watched.lock().await.turn(asked).await;
            }
        });
        Watching { watcher, stop, task }
    }

    /// Looks at each file once. A panic is one more reason to refuse a file, and looked at it is again.
    async fn turn(&mut self, asked: bool) {
        for i in 0..self.files.len() {
            let result = match caught::within(self.look(i, asked)).await {
                Ok(None) => continue,
                Ok(Some(result)) => result,
                Err(panic) => {
                    Err(format!("docket itself failed at it, a bug; it is tried again: {panic}"))
                }
            };
            self.tell(i, asked, result);
        }
    }

    /// Takes up a file if it has changed, or all the same if that was asked for. Says what has changed, or why it is refused.
    async fn look(&mut self, i: usize, asked: bool) -> Option<Result<Vec<String>, String>> {
        let path = &self.files[i];
        // A file that is gone is being replaced.
        if !asked && (!path.exists() || self.looked[i].unchanged()) {
            return None;
        }
        let load = || tracked::looking(|| (self.load)(path));
        let (loaded, seen) = tokio::task::block_in_place(load);
        self.looked[i] = seen;
        let parts = &mut self.running[i];
        if !asked && loaded.as_ref().is_ok_and(|pipeline| pipeline.file == parts.pipeline.file) {
            self.refused[i] = None;
            parts.file_is(None);
            return None;
        }
        // The first pipeline's says where metrics are pushed.
        let pushing = (i == 0).then_some(&mut self.pushing);
        Some(match loaded {
            Ok(pipeline) => reload(parts, pipeline, pushing).await,
            Err(error) => Err(error.to_string()),
        })
    }

    fn tell(&mut self, i: usize, asked: bool, result: Result<Vec<String>, String>) {
        let file = self.files[i].display().to_string();
        let error = result.as_ref().err().cloned();
        if !asked && error.is_some() && error == self.refused[i] {
            return;
        }
        self.running[i].file_is(error.as_deref());
        self.refused[i] = error;
        let outcome = match result {
            Ok(changed) if changed.is_empty() => {
                tracing::info!(file, "the pipeline file was read again; no part changes");
                "applied"
            }
            Ok(changed) => {
                let parts = changed.join(", ");
                tracing::info!(file, parts, "the changed pipeline file is in force");
                "applied"
            }
            Err(error) => {
                tracing::error!(
                    file,
                    "the changed pipeline file is refused, the old one stays in force:\n{error}"
                );
                "refused"
            }
        };
        self.reloads.with_label_values(&[&file, outcome]).inc();
    }
}

/// Takes up a changed file, or says why not, with nothing changed. Returns what has changed.
async fn reload(
    parts: &mut Parts,
    new: Pipeline,
    pushing: Option<&mut Pushing>,
) -> Result<Vec<String>, String> {
    let to = &new.file.telemetry.push;
    let pushing = pushing.filter(|_| *to != parts.pipeline.file.telemetry.push);
    let pushers = pushing.as_ref().map(|pushing| pushing.prepare(to)).transpose()?;
    let mut changed =
        tokio::task::block_in_place(|| parts.reload(new)).map_err(|e| e.to_string())?;
    if let (Some(pushing), Some(pushers)) = (pushing, pushers) {
        pushing.change(pushers).await;
        changed.push("push".into());
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secrets::Real;
    use crate::pipeline::topics::Limits;
    use crate::stage::run::Process;
    use crate::telemetry::push::Source;

    const OLD: &str = "name: p\nkafka: {brokers: '127.0.0.1:1'}\nsources: [{topic: t}]\n";

    fn parsed(text: &str) -> Result<Pipeline, LoadError> {
        crate::pipeline::parse(Path::new("p.yaml"), text, &Real)
    }

    /// A file whose loading is docket's to get wrong.
    fn watcher(load: fn(&Path) -> Result<Pipeline, LoadError>) -> Watcher {
        let process = Process::alone();
        let old = parsed(OLD).map_err(|e| e.to_string()).unwrap();
        let parts = Parts::new(old, &process, Limits::default()).unwrap();
        let source =
            Source { registry: process.registry.clone(), exemplars: Arc::default(), began: 0 };
        let pushing = Pushing::start(&Default::default(), source).unwrap();
        let path = PathBuf::from("/dev/null");
        let made = Watcher::new(vec![parts], pushing, vec![path], &process.registry).unwrap();
        Watcher { load, ..made }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_at_a_file_refuses_it_and_the_file_is_looked_at_again() {
        let mut watcher = watcher(|_| panic!("a bug"));
        let count = watcher.reloads.clone();
        let count = |outcome| count.with_label_values(&["/dev/null", outcome]).get();
        watcher.turn(false).await;
        watcher.turn(false).await;
        assert_eq!((count("applied"), count("refused")), (0, 1), "it is told once");
        let why = watcher.refused[0].clone().unwrap();
        assert!(why.contains("it panicked: a bug"), "{why}");
        watcher.load = |_| parsed(&format!("{OLD}probes: [{{path: a, expect: deny}}]\n"));
        watcher.turn(false).await;
        assert_eq!((count("applied"), count("refused")), (1, 1));
        assert_eq!(watcher.running[0].pipeline.file.probes.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_runs_is_handed_out_though_the_watcher_died() {
        let watcher = Arc::new(Mutex::new(watcher(|_| parsed(OLD))));
        let held = watcher.clone();
        let task = tokio::spawn(async move {
            let _held = held.lock().await;
            panic!("a bug")
        });
        let watching = Watching { watcher, stop: CancellationToken::new(), task };
        assert_eq!(watching.end().await.running.len(), 1);
    }
}
