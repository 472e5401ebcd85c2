//! Tells people of findings: Alertmanager, webhooks, Slack. Each notifier is a task with a queue of its own, so that one
//! that hangs delays no other and not the detector.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::decision::time;
use crate::pipeline::spikes::{self, Notify, Say};
use crate::sink::Outcome;
use crate::sink::http::{Client, HttpError};
use crate::spike::{Finding, Kind};
use crate::stage::spikes::Meters;

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
}

/// So many notices wait for a notifier; further ones are given up.
const QUEUE: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(15);
/// Alertmanager takes an alert as over that is not said again for so long.
const EXPIRES: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(60);

pub struct Notifiers {
    queues: Vec<(String, mpsc::Sender<Order>)>,
    meters: Arc<Meters>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    runtime: Handle,
}

impl Notifiers {
    pub fn start(
        section: &spikes::Spikes,
        pipeline: &str,
        meters: &Arc<Meters>,
        runtime: &Handle,
    ) -> Result<Notifiers, HttpError> {
        let stop = CancellationToken::new();
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for (name, notify) in &section.notify {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let notifier = Notifier::new(name, pipeline, notify, meters)?;
            tasks.push(runtime.spawn(notifier.run(receiver, stop.clone())));
            queues.push((name.clone(), sender));
        }
        Ok(Notifiers { queues, meters: meters.clone(), stop, tasks, runtime: runtime.clone() })
    }

    pub fn tell(&self, notice: &Notice) {
        for (name, queue) in &self.queues {
            if queue.try_send(Order::Tell(Box::new(notice.clone()))).is_err() {
                self.meters.told.with_label_values(&[name, "given_up"]).inc();
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

struct Notifier {
    name: String,
    pipeline: String,
    kind: Notify,
    client: Client,
    meters: Arc<Meters>,
    say: Say,
    /// What goes on, by id, and when it was said last.
    active: BTreeMap<String, (Finding, Instant)>,
    /// What is to be said.
    pending: Vec<Finding>,
    /// When it may be said.
    due: Option<Instant>,
    failures: u32,
}

impl Notifier {
    fn new(
        name: &str,
        pipeline: &str,
        kind: &Notify,
        meters: &Arc<Meters>,
    ) -> Result<Notifier, HttpError> {
        let none = BTreeMap::new();
        let (client, say) = match kind {
            // Alertmanager groups, repeats and routes.
            Notify::Alertmanager(a) => (
                Client::new(&a.tls, a.auth.as_ref(), &a.headers, TIMEOUT)?,
                Say {
                    group_wait: spikes::span(0),
                    repeat: spikes::span(AGAIN.as_secs()),
                    ends: true,
                },
            ),
            Notify::Webhook(w) => {
                (Client::new(&w.tls, w.auth.as_ref(), &w.headers, TIMEOUT)?, w.say.clone())
            }
            Notify::Slack(s) => (Client::new(&s.tls, None, &none, TIMEOUT)?, s.say.clone()),
        };
        Ok(Notifier {
            name: name.to_owned(),
            pipeline: pipeline.to_owned(),
            kind: kind.clone(),
            client,
            meters: meters.clone(),
            say,
            active: BTreeMap::new(),
            pending: Vec::new(),
            due: None,
            failures: 0,
        })
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Order>, stop: CancellationToken) {
        loop {
            let repeat = self.active.values().map(|(_, said)| *said + self.say.repeat.0).min();
            let due = self.due.into_iter().chain(repeat.filter(|_| self.due.is_none())).min();
            let wait = due.map_or(Duration::from_secs(3600), |due| {
                due.saturating_duration_since(Instant::now())
            });
            tokio::select! {
                order = queue.recv() => match order {
                    Some(Order::Tell(notice)) => self.take(*notice),
                    Some(Order::Forget) => {
                        self.active.clear();
                        self.pending.clear();
                        self.due = None;
                    }
                    None => {
                        if !self.pending.is_empty() {
                            self.send().await;
                        }
                        return;
                    }
                },
                () = tokio::time::sleep(wait) => self.send().await,
                () = stop.cancelled(), if queue.is_closed() && queue.is_empty() => {
                    if !self.pending.is_empty() {
                        self.send().await;
                    }
                    return;
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
                return;
            }
        }
        self.pending.push(finding);
        if self.pending.len() > QUEUE {
            self.pending.remove(0);
            self.meters.told.with_label_values(&[&self.name, "given_up"]).inc();
        }
        self.due.get_or_insert(Instant::now() + self.say.group_wait.0);
    }

    async fn send(&mut self) {
        let now = Instant::now();
        for (finding, said) in self.active.values_mut() {
            if now >= *said + self.say.repeat.0 {
                *said = now;
                if !self.pending.iter().any(|p| p.id == finding.id) {
                    self.pending.push(finding.clone());
                }
            }
        }
        self.due = None;
        if self.pending.is_empty() {
            return;
        }
        let findings = std::mem::take(&mut self.pending);
        let outcome = match self.post(&findings).await {
            Ok(()) => {
                self.failures = 0;
                "sent"
            }
            Err(Outcome::Refused(refusal)) => {
                tracing::error!(
                    notifier = self.name,
                    status = refusal.status,
                    reason = refusal.reason,
                    "a message about findings is refused"
                );
                "given_up"
            }
            Err(error) => {
                let after = match &error {
                    Outcome::Retry(retry) => {
                        tracing::warn!(
                            notifier = self.name,
                            cause = retry.cause.as_str(),
                            detail = retry.detail,
                            "findings could not be told; again soon"
                        );
                        retry.after
                    }
                    _ => None,
                };
                self.failures = (self.failures + 1).min(6);
                // What came meanwhile stands behind.
                let newer = std::mem::replace(&mut self.pending, findings);
                self.pending.extend(newer);
                self.due =
                    Some(Instant::now() + after.unwrap_or(Duration::from_secs(1 << self.failures)));
                "retried"
            }
        };
        self.meters.told.with_label_values(&[&self.name, outcome]).inc();
    }

    async fn post(&self, findings: &[Finding]) -> Result<(), Outcome> {
        match &self.kind {
            Notify::Alertmanager(a) => {
                let body = Bytes::from(alerts(&self.pipeline, &a.labels, findings).to_string());
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
                let text: Vec<String> = findings.iter().map(|f| line(&s.text, f)).collect();
                self.client
                    .post(
                        s.url.expose(),
                        "application/json",
                        None,
                        json!({ "text": text.join("\n") }).to_string().into(),
                    )
                    .await
                    .map(drop)
            }
        }
    }
}

/// The body of Alertmanager's `POST /api/v2/alerts`. Labels tell alerts apart, so they hold nothing that changes while one
/// goes on.
fn alerts(pipeline: &str, labels: &BTreeMap<String, String>, findings: &[Finding]) -> Value {
    let alert = |finding: &Finding| {
        let mut all = json!({ "alertname": name(finding.kind), "pipeline": pipeline, "kind": finding.kind.as_str(), "severity": severity(finding.kind) });
        let (_, service, policy, instance) = finding.key();
        for (name, value) in [("service", service), ("policy", policy), ("opa", instance)] {
            if !value.is_empty() {
                all[name] = value.into();
            }
        }
        for (name, value) in labels {
            all[name.as_str()] = value.clone().into();
        }
        let ends = finding.ended.unwrap_or_else(|| clock::now() + time::nanos(EXPIRES));
        json!({
            "labels": all,
            "annotations": {
                "summary": finding.sentence(),
                "causes": causes(finding),
                "traces": finding.examples.iter().map(|e| e.trace_id.as_str()).collect::<Vec<_>>().join(" "),
                "decisions": finding.examples.iter().map(|e| e.decision_id.as_str()).collect::<Vec<_>>().join(" "),
                "finding": finding.id,
            },
            "startsAt": time::format(finding.onset),
            "endsAt": time::format(ends),
        })
    };
    findings.iter().map(alert).collect()
}

fn name(kind: Kind) -> String {
    kind.as_str()
        .split('_')
        .fold("Docket".to_owned(), |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

fn severity(kind: Kind) -> &'static str {
    match kind {
        Kind::RevisionShift | Kind::InstanceQuiet | Kind::Unwatched => "warning",
        _ => "critical",
    }
}

fn causes(finding: &Finding) -> String {
    let cause = |c: &crate::spike::Cause| {
        format!(
            "{} {} ({:.0} %, before {:.0} %)",
            c.dimension.as_str(),
            c.value,
            100.0 * c.share,
            100.0 * c.before
        )
    };
    finding.causes.iter().map(cause).collect::<Vec<_>>().join("; ")
}

fn document(pipeline: &str, findings: &[Finding], is_active: impl Fn(&Finding) -> bool) -> Value {
    let one = |finding: &Finding| {
        let mut one = json!(finding);
        one["state"] = state(finding).into();
        one["active"] = is_active(finding).into();
        one["sentence"] = finding.sentence().into();
        one
    };
    json!({ "version": 1, "pipeline": pipeline, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}

fn state(finding: &Finding) -> &'static str {
    if finding.ended.is_some() { "ended" } else { "firing" }
}

/// A line of Slack's text. What users sent can't mention anyone or make a link: &, < and > are escaped, as Slack says.
fn line(template: &str, finding: &Finding) -> String {
    let escaped = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace(char::is_control, " ")
    };
    let example = finding.examples.first();
    let cause = finding
        .causes
        .first()
        .map(|c| format!("{} {}", c.dimension.as_str(), c.value))
        .unwrap_or_default();
    let values = [
        ("sentence", finding.sentence()),
        ("state", state(finding).to_owned()),
        ("kind", finding.kind.as_str().to_owned()),
        ("service", finding.service.clone()),
        ("policy", finding.policy.clone()),
        ("cause", cause),
        ("trace_id", example.map(|e| e.trace_id.clone()).unwrap_or_default()),
        ("decision_id", example.map(|e| e.decision_id.clone()).unwrap_or_default()),
        ("onset", time::format(finding.onset)[..19].to_owned() + "Z"),
    ];
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}').and_then(|(name, after)| {
            values.iter().find(|(n, _)| *n == name).map(|(_, value)| (value, after))
        }) {
            Some((value, after)) => {
                out.push_str(&escaped(value));
                rest = after;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spike::{Cause, Dimension, Example};

    fn finding() -> Finding {
        Finding {
            id: "0011223344556677".into(),
            kind: Kind::DenialSpike,
            service: "orders".into(),
            policy: "http/authz/decision".into(),
            onset: 1_795_524_530_000_000_000,
            detected: 1_795_524_550_000_000_000,
            ended: Some(1_795_524_990_000_000_000),
            observed: 90,
            expected: 4.2,
            decisions: 120,
            score: 180.0,
            causes: vec![Cause {
                dimension: Dimension::Subject,
                value: "<!channel>".into(),
                share: 0.97,
                before: 0.0,
            }],
            examples: vec![Example {
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
                decision_id: "d1".into(),
            }],
        }
    }

    #[test]
    fn what_each_notifier_says() {
        let labels = BTreeMap::from([("team".to_owned(), "platform".to_owned())]);
        insta::assert_snapshot!(
            "alertmanager",
            format!("{:#}", alerts("p", &labels, &[finding()]))
        );
        insta::assert_snapshot!("webhook", format!("{:#}", document("p", &[finding()], |_| false)));
        insta::assert_snapshot!(line("*{state}* {sentence} {what} {cause", &finding()), @"*ended* denial spike on http/authz/decision of orders: 90 denials of 120 decisions (75 %), 4.2 expected; 97 % by subject &lt;!channel&gt; {what} {cause");
    }
}
