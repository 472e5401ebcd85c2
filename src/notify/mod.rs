//! Tells people of findings: Alertmanager, webhooks, Slack. Each notifier is a task with a queue of its own, so that one
//! that hangs delays no other and not the detector.

pub mod config;
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::IntCounterVec;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::caught;
use crate::clock;
use crate::config::units::Span;
use crate::decision::time;
use crate::http::client::{Client, HttpError};
use crate::http::failure::Failure;
use crate::spike::Finding;
use config::{Notify, Say};
use message::{alerts, document, lines};

/// A finding that begins or, with `ended`, ends.
#[derive(Debug, Clone)]
pub struct Notice {
    pub finding: Finding,
    /// It was told before this process led.
    pub again: bool,
}

enum Order {
    Tell(Box<Notice>),
    /// Another process leads.
    Forget,
    #[cfg(test)]
    Panic,
}

/// So many notices wait for a notifier; further ones are given up.
const QUEUE: usize = 1000;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Alertmanager takes an alert as over that is not said again for so long.
const EXPIRES: Duration = Duration::from_secs(300);

/// Before one that panicked is started again.
const PAUSE: Duration = Duration::from_millis(500);

const AGAIN: Duration = Duration::from_secs(60);

pub struct Notifiers {
    queues: Vec<(String, mpsc::Sender<Order>)>,
    told: IntCounterVec,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    runtime: Handle,
}

impl Notifiers {
    pub fn start(
        notify: &BTreeMap<String, Notify>,
        pipeline: &str,
        told: &IntCounterVec,
        runtime: &Handle,
    ) -> Result<Notifiers, HttpError> {
        let stop = CancellationToken::new();
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for (name, one) in notify {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let notifier = Notifier::new(name, pipeline, one, told)?;
            tasks.push(runtime.spawn(notifier.again(receiver, stop.clone())));
            queues.push((name.clone(), sender));
            // An alert asks whether one was lost, and sees nothing of a series that begins at 1.
            for outcome in ["sent", "retried", "given_up"] {
                told.with_label_values(&[name.as_str(), outcome]);
            }
        }
        Ok(Notifiers { queues, told: told.clone(), stop, tasks, runtime: runtime.clone() })
    }

    /// The first that could not be started, and why.
    pub fn check(notify: &BTreeMap<String, Notify>) -> Result<(), (String, HttpError)> {
        let one = |(name, one): (&String, &Notify)| {
            one.client().map(drop).map_err(|error| (name.clone(), error))
        };
        notify.iter().try_for_each(one)
    }

    pub fn tell(&self, notice: &Notice) {
        for (name, queue) in &self.queues {
            if queue.try_send(Order::Tell(Box::new(notice.clone()))).is_err() {
                self.told.with_label_values(&[name, "given_up"]).inc();
                tracing::error!(
                    notifier = name,
                    id = notice.finding.id,
                    "too much waits for this notifier; a finding is not told"
                );
            }
        }
    }

    pub fn forget(&self) {
        for (_, queue) in &self.queues {
            let _ = queue.try_send(Order::Forget);
        }
    }

    /// Says what waits, if it takes no longer than a few seconds.
    pub fn stop(self) {
        drop(self.queues);
        self.stop.cancel();
        self.runtime.block_on(async {
            for task in self.tasks {
                let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
            }
        });
    }
}

impl Notify {
    fn client(&self) -> Result<Client, HttpError> {
        let none = BTreeMap::new();
        match self {
            Notify::Alertmanager(a) => Client::new(&a.tls, a.auth.as_ref(), &a.headers, TIMEOUT),
            Notify::Webhook(w) => Client::new(&w.tls, w.auth.as_ref(), &w.headers, TIMEOUT),
            Notify::Slack(s) => Client::new(&s.tls, None, &none, TIMEOUT),
        }
    }
}

struct Notifier {
    name: String,
    pipeline: String,
    kind: Notify,
    client: Client,
    told: IntCounterVec,
    say: Say,
    /// What goes on, by id, and when it was said last.
    active: BTreeMap<String, (Finding, Instant)>,
    /// What is to be said.
    pending: Vec<Pending>,
    /// When findings of a cause were said last.
    said: BTreeMap<String, Instant>,
    /// Nothing is said before that, after a failure.
    blocked: Option<Instant>,
    failures: u32,
}

/// What is to be said, and when.
struct Pending {
    finding: Finding,
    due: Instant,
}

impl Notifier {
    fn new(
        name: &str,
        pipeline: &str,
        kind: &Notify,
        told: &IntCounterVec,
    ) -> Result<Notifier, HttpError> {
        let client = kind.client()?;
        // Alertmanager groups, repeats and routes.
        let none = Span(Duration::ZERO);
        let all = Say { group_wait: none, group_interval: none, repeat: Span(AGAIN), ends: true };
        let say = match kind {
            Notify::Alertmanager(_) => all,
            Notify::Webhook(w) => w.say.clone(),
            Notify::Slack(s) => s.say.clone(),
        };
        Ok(Notifier {
            name: name.to_owned(),
            pipeline: pipeline.to_owned(),
            kind: kind.clone(),
            client,
            told: told.clone(),
            say,
            active: BTreeMap::new(),
            pending: Vec::new(),
            said: BTreeMap::new(),
            blocked: None,
            failures: 0,
        })
    }

    /// Runs until there is nobody whose findings are told. What was being said when it panicked is given up: it would panic again.
    async fn again(mut self, mut queue: mpsc::Receiver<Order>, stop: CancellationToken) {
        while let Err(error) = caught::within(self.run(&mut queue, &stop)).await {
            self.told.with_label_values(&[self.name.as_str(), "given_up"]).inc();
            tracing::error!(
                notifier = self.name,
                error,
                "a notifier failed and is started again; what it was about to say is not told"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn run(&mut self, queue: &mut mpsc::Receiver<Order>, stop: &CancellationToken) {
        loop {
            let repeat = self.active.values().map(|(_, said)| *said + self.say.repeat.0);
            let due = self.pending.iter().map(|p| p.due).chain(repeat).min();
            let due = due.max(self.blocked.filter(|_| due.is_some()));
            let wait = due.map_or(Duration::from_secs(3600), |due| {
                due.saturating_duration_since(Instant::now())
            });
            tokio::select! {
                order = queue.recv() => match order {
                    Some(Order::Tell(notice)) => self.take(*notice),
                    Some(Order::Forget) => {
                        self.active.clear();
                        self.pending.clear();
                        self.said.clear();
                        self.blocked = None;
                    }
                    #[cfg(test)]
                    Some(Order::Panic) => panic!("a bug"),
                    None => return self.farewell().await,
                },
                () = tokio::time::sleep(wait) => self.send().await,
                () = stop.cancelled(), if queue.is_closed() && queue.is_empty() => {
                    return self.farewell().await;
                }
            }
        }
    }

    fn take(&mut self, notice: Notice) {
        let finding = notice.finding;
        if finding.ended.is_some() {
            self.active.remove(&finding.id);
            // What was not said yet has no end either, for who wants no ends.
            if !self.say.ends {
                return;
            }
        } else {
            self.active.insert(finding.id.clone(), (finding.clone(), Instant::now()));
            let silent = notice.again && !matches!(self.kind, Notify::Alertmanager(_));
            if silent {
                self.said.extend(finding.cause().map(|cause| (cause, Instant::now())));
                return;
            }
        }
        let due = self.due(&finding);
        self.pending.push(Pending { finding, due });
        if self.pending.len() > QUEUE {
            self.pending.remove(0);
            self.told.with_label_values(&[&self.name, "given_up"]).inc();
        }
    }

    /// When it is to be said: with what is said next; where others of its cause go on, and were said lately, some minutes after that.
    fn due(&self, finding: &Finding) -> Instant {
        let soon = Instant::now() + self.say.group_wait.0;
        let next = self.pending.iter().map(|p| p.due).filter(|due| *due <= soon).min();
        let soon = next.unwrap_or(soon);
        let Some(cause) = finding.cause() else { return soon };
        let is_other =
            |other: &Finding| other.id != finding.id && other.cause().as_ref() == Some(&cause);
        let goes_on = self.active.values().any(|(other, _)| is_other(other));
        let said = self.said.get(&cause).filter(|_| goes_on);
        said.map_or(soon, |said| soon.max(*said + self.say.group_interval.0))
    }

    /// What is due, and all else of the same causes.
    fn take_due(&mut self, now: Instant) -> Vec<Finding> {
        let cause = |finding: &Finding, of: &BTreeSet<String>| {
            finding.cause().is_some_and(|cause| of.contains(&cause))
        };
        let repeat = self.say.repeat.0;
        let again = self.active.values().filter(|(_, said)| now >= *said + repeat);
        let again: BTreeSet<String> = again.filter_map(|(finding, _)| finding.cause()).collect();
        for (finding, said) in self.active.values_mut() {
            if now >= *said + repeat || cause(finding, &again) {
                *said = now;
                if !self.pending.iter().any(|p| p.finding.id == finding.id) {
                    self.pending.push(Pending { finding: finding.clone(), due: now });
                }
            }
        }
        let due = self.pending.iter().filter(|p| p.due <= now);
        let causes: BTreeSet<String> = due.filter_map(|p| p.finding.cause()).collect();
        let pending = std::mem::take(&mut self.pending).into_iter();
        let (due, rest): (Vec<Pending>, Vec<Pending>) =
            pending.partition(|p| p.due <= now || cause(&p.finding, &causes));
        self.pending = rest;
        self.said.retain(|_, said| now < *said + self.say.group_interval.0);
        self.said.extend(causes.into_iter().map(|cause| (cause, now)));
        due.into_iter().map(|p| p.finding).collect()
    }

    /// Says what waits.
    async fn farewell(&mut self) {
        let now = Instant::now();
        self.pending.iter_mut().for_each(|p| p.due = now);
        if !self.pending.is_empty() {
            self.send().await;
        }
    }

    async fn send(&mut self) {
        self.blocked = None;
        let findings = self.take_due(Instant::now());
        if findings.is_empty() {
            return;
        }
        let outcome = match self.post(&findings).await {
            Ok(()) => {
                self.failures = 0;
                "sent"
            }
            Err(Failure::Refused(refusal)) => {
                tracing::error!(
                    notifier = self.name,
                    status = refusal.status,
                    reason = refusal.reason,
                    "a message about findings is refused"
                );
                "given_up"
            }
            Err(Failure::Retry(retry)) => {
                tracing::warn!(
                    notifier = self.name,
                    cause = retry.cause.as_str(),
                    detail = retry.detail,
                    "findings could not be told; again soon"
                );
                self.failures = (self.failures + 1).min(6);
                let after = retry.after.unwrap_or(Duration::from_secs(1 << self.failures));
                let due = Instant::now() + after;
                self.blocked = Some(due);
                // What came meanwhile stands behind.
                let again = findings.into_iter().map(|finding| Pending { finding, due });
                let newer = std::mem::take(&mut self.pending);
                self.pending = again.chain(newer).collect();
                "retried"
            }
        };
        self.told.with_label_values(&[&self.name, outcome]).inc();
    }

    async fn post(&self, findings: &[Finding]) -> Result<(), Failure> {
        match &self.kind {
            Notify::Alertmanager(a) => {
                let ends = clock::now() + time::nanos(EXPIRES);
                let alerts = alerts(&self.pipeline, &a.labels, findings, ends);
                let body = Bytes::from(alerts.to_string());
                // One of a cluster is enough; the others hear of it. Which one is not known to live, so all are told.
                let mut result = Ok(());
                let mut told = false;
                for url in &a.urls {
                    match self
                        .client
                        .post(
                            &format!("{}/api/v2/alerts", url.trim_end_matches('/')),
                            "application/json",
                            None,
                            body.clone(),
                        )
                        .await
                    {
                        // Alertmanager has no page there.
                        Ok(answer) if answer.content.trim_ascii_start().starts_with(b"<") => {
                            result = Err(answer.unexpected("what Alertmanager does"));
                        }
                        Ok(_) => told = true,
                        Err(error) => result = Err(error),
                    }
                }
                if told { Ok(()) } else { result }
            }
            Notify::Webhook(w) => {
                let body = document(&self.pipeline, findings, |f| self.active.contains_key(&f.id))
                    .to_string();
                self.client
                    .post(w.url.expose(), "application/json", None, body.into())
                    .await
                    .map(drop)
            }
            Notify::Slack(s) => {
                let text = lines(&s.text, findings);
                self.client
                    .post(
                        s.url.expose(),
                        "application/json",
                        None,
                        json!({ "text": text }).to_string().into(),
                    )
                    .await
                    .map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_notifier_that_panics_is_counted_and_tells_the_next_finding() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let webhook = json!({ "type": "webhook", "url": url, "say": { "group_wait": "0s" } });
        let notify: BTreeMap<String, Notify> =
            serde_json::from_value(json!({ "hook": webhook })).unwrap();
        let opts = prometheus::Opts::new("told", "told");
        let told = IntCounterVec::new(opts, &["notifier", "outcome"]).unwrap();
        let notifiers = Notifiers::start(&notify, "p", &told, &Handle::current()).unwrap();
        notifiers.queues[0].1.send(Order::Panic).await.unwrap();
        let finding = Finding { ended: None, ..message::tests::finding() };
        let notice = Notice { finding, again: false };
        notifiers.tell(&notice);
        let (mut line, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        assert!(line.read(&mut request).await.unwrap() > 0);
        line.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(told.with_label_values(&["hook", "given_up"]).get(), 1);
    }

    /// One that begins, or ends, by `cause` at a service.
    fn by(cause: &str, service: usize, ends: bool) -> Notice {
        let mut finding = message::tests::finding();
        finding.id = format!("{cause} {service}");
        finding.service = format!("s{service}");
        finding.ended = finding.ended.filter(|_| ends);
        finding.causes[0].value = cause.into();
        Notice { finding, again: false }
    }

    #[tokio::test]
    async fn one_attacker_on_thirty_services_is_two_messages_and_one_that_it_is_over() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let opts = prometheus::Opts::new("told", "told");
        let told = IntCounterVec::new(opts, &["notifier", "outcome"]).unwrap();
        let hook: Notify =
            serde_json::from_value(json!({ "type": "webhook", "url": "http://127.0.0.1:9/" }))
                .unwrap();
        let mut notifier = Notifier::new("hook", "p", &hook, &told).unwrap();
        let begins = |notifier: &mut Notifier, services: std::ops::Range<usize>| {
            services.for_each(|service| notifier.take(by("mallory", service, false)));
        };
        let (wait, interval) = (notifier.say.group_wait.0, notifier.say.group_interval.0);
        begins(&mut notifier, 0..3);
        assert_eq!(notifier.take_due(Instant::now()).len(), 0);
        let first = Instant::now() + wait;
        assert_eq!(notifier.take_due(first).len(), 3);
        // What comes meanwhile waits for the others; somebody else's doesn't.
        begins(&mut notifier, 3..28);
        notifier.take(by("trent", 0, false));
        let next = notifier.take_due(Instant::now() + wait);
        assert_eq!((next.len(), &*next[0].id), (1, "trent 0"));
        (0..5).for_each(|service| notifier.take(by("mallory", service, true)));
        assert_eq!(notifier.take_due(Instant::now() + wait).len(), 0);
        assert_eq!(notifier.take_due(first + interval).len(), 25 + 5);
        // That all is over is said at once.
        (5..27).for_each(|service| notifier.take(by("mallory", service, true)));
        assert_eq!(notifier.take_due(Instant::now() + wait).len(), 0);
        notifier.take(by("mallory", 27, true));
        assert_eq!(notifier.take_due(Instant::now() + wait).len(), 23);
        assert_eq!(notifier.active.len(), 1);
        // What goes on is said again, all of a cause at once.
        let repeat = Instant::now() + notifier.say.repeat.0;
        assert_eq!(notifier.take_due(repeat).len(), 1);
    }
}
