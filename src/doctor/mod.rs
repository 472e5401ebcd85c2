//! Looks at everything that a pipeline needs outside of docket, all at once, and says of each thing where it is, what is
//! wrong with it, and the way out. It only reads: no group is joined, nothing is written.
//!
//! `kafka`: the cluster, the login, the topics, the rights. `sinks`: those, and whom `docket verify` asks. `amendments`: whether
//! they take late matches. `servers`: OPA, notifiers, and
//! how any is asked. `push`: where metrics go. `certificates`: those that servers show and those in files. `clocks`: what servers' answers say of the time.
//! `said_once`: what several checks say.

mod amendments;
mod certificates;
mod clocks;
mod kafka;
mod push;
mod said_once;
mod servers;
mod sinks;

use std::future::Future;
use std::time::Duration;

use serde::Serialize;

use crate::decision::time::Nanos;
use crate::pipeline::Pipeline;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, but not as well or as safely as it should.
    Warning,
    /// It does not work.
    Wrong,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub level: Level,
    /// What: `kafka`, `topic docket.opa`, `sink loki`.
    pub what: String,
    /// Where it is, without credentials.
    pub address: String,
    pub says: String,
    /// The way out; empty if nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub way_out: String,
    /// Nothing answers at the address, or something else does.
    #[serde(skip)]
    pub astray: bool,
}

impl Check {
    fn new(what: impl Into<String>, address: impl Into<String>) -> Check {
        Check {
            level: Level::Ok,
            what: what.into(),
            address: address.into(),
            says: String::new(),
            way_out: String::new(),
            astray: false,
        }
    }

    fn ok(mut self, says: impl Into<String>) -> Check {
        self.says = says.into();
        self
    }

    fn warning(mut self, says: impl Into<String>, way_out: impl Into<String>) -> Check {
        (self.level, self.says, self.way_out) = (Level::Warning, says.into(), way_out.into());
        self
    }

    fn wrong(mut self, says: impl Into<String>, way_out: impl Into<String>) -> Check {
        (self.level, self.says, self.way_out) = (Level::Wrong, says.into(), way_out.into());
        self
    }

    /// It does not work, since the address is that of nothing or of something else.
    fn astray(self, says: impl Into<String>, way_out: impl Into<String>) -> Check {
        self.wrong(says, way_out).astray_if(true)
    }

    fn astray_if(self, astray: bool) -> Check {
        Check { astray, ..self }
    }
}

/// What a look at one server brings: what there is to say, and the time that it has.
#[derive(Debug, Default)]
struct Seen {
    checks: Vec<Check>,
    clock: Option<Clock>,
}

impl From<Check> for Seen {
    fn from(check: Check) -> Seen {
        Seen { checks: vec![check], clock: None }
    }
}

/// A server's time beside this machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clock {
    what: String,
    address: String,
    /// How far it is ahead.
    ahead: Nanos,
}

/// Nothing is waited for longer than this; all is looked at at the same time.
const PATIENCE: Duration = Duration::from_millis(3800);

/// Looks at everything. `opa` is the address of an OPA, if it is to be looked at, too.
pub async fn examine(pipeline: &Pipeline, opa: Option<&str>) -> Vec<Check> {
    let mut looks: Vec<tokio::task::JoinHandle<Seen>> = Vec::new();
    let mut look = |one: Look| {
        let Look { what, address, settings, work } = one;
        let defaults = defaults(pipeline, &settings);
        looks.push(tokio::spawn(async move {
            let seen = tokio::time::timeout(PATIENCE + Duration::from_millis(500), work).await;
            let mut seen = seen.unwrap_or_else(|_| {
                Check::new(what, address)
                    .astray("no answer in 4 s", "see whether it runs and can be reached from here")
                    .into()
            });
            seen.checks.iter_mut().for_each(|check| by_default(check, &defaults));
            seen
        }));
    };
    look(kafka::look(pipeline));
    for (name, sink) in &pipeline.file.sinks {
        sinks::looks(pipeline, name, sink).into_iter().for_each(&mut look);
        amendments::look(pipeline, name, sink).into_iter().for_each(&mut look);
    }
    servers::others(pipeline).into_iter().for_each(&mut look);
    push::looks(pipeline).for_each(&mut look);
    if let Some(opa) = opa {
        look(servers::opa(opa));
    }
    for look_at in certificates::servers(pipeline, opa) {
        look(look_at);
    }
    let mut checks = Vec::new();
    let mut seen_clocks = Vec::new();
    for task in looks {
        if let Ok(seen) = task.await {
            checks.extend(seen.checks);
            seen_clocks.extend(seen.clock);
        }
    }
    checks.extend(certificates::files(pipeline, crate::clock::now()));
    checks.extend(clocks::compared(&seen_clocks));
    said_once::tidied(checks)
}

/// The unset variables whose defaults settings have.
fn defaults(pipeline: &Pipeline, settings: &[Vec<String>]) -> Vec<String> {
    let mut variables = Vec::new();
    for setting in settings {
        let setting: Vec<&str> = setting.iter().map(String::as_str).collect();
        variables.extend(pipeline.unset(&setting));
    }
    variables
}

/// Who gave no address does not know the one that fails.
fn by_default(check: &mut Check, variables: &[String]) {
    if !check.astray || variables.is_empty() {
        return;
    }
    let all = variables.join(" and ");
    check.says += &format!("; {}", crate::pipeline::not_set(variables));
    check.way_out = format!("set {all} if it is elsewhere; {}", check.way_out);
}

/// Work to be done, and what to call it if it does not end in time.
struct Look {
    what: String,
    address: String,
    /// The settings that say where it is.
    settings: Vec<Vec<String>>,
    work: std::pin::Pin<Box<dyn Future<Output = Seen> + Send>>,
}

impl Look {
    fn new(
        what: impl Into<String>,
        address: impl Into<String>,
        work: impl Future<Output = Seen> + Send + 'static,
    ) -> Look {
        Look { what: what.into(), address: address.into(), settings: vec![], work: Box::pin(work) }
    }

    fn set_by(mut self, setting: &[&str]) -> Look {
        self.settings.push(setting.iter().map(|key| (*key).to_owned()).collect());
        self
    }
}

/// An address without what one might log in with.
fn shown(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return "an address that is none".into() };
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_credentials() {
        assert_eq!(shown("http://u:canary@h:9/a?token=canary"), "http://h:9/a");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_that_is_down_is_told_within_five_seconds() {
        // Takes connections, and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = silent.local_addr().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = format!(
            "name: x\nkafka: {{brokers: \"{at}\"}}\nsources: [{{topic: t}}]\nsinks:\n  a: {{type: loki, url: \"http://{at}\"}}\n  b: {{type: elasticsearch, url: \"http://{at}\"}}\n  c: {{type: otlp, endpoint: \"http://{at}\"}}\n  d: {{type: loki, url: \"http://127.0.0.1:1\"}}\n"
        );
        let pipeline =
            crate::pipeline::parse(std::path::Path::new("x"), &text, &crate::config::secrets::Real)
                .unwrap();
        let began = std::time::Instant::now();
        let checks = examine(&pipeline, Some(&format!("http://{at}"))).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        for what in ["kafka", "sink a", "sink b", "sink c", "sink d", "opa"] {
            let check = checks.iter().find(|c| c.what == what).unwrap_or_else(|| panic!("{what}"));
            assert_eq!(check.level, Level::Wrong, "{check:?}");
            assert!(!check.way_out.is_empty() && !check.address.is_empty(), "{check:?}");
        }
        let refused = checks.iter().find(|c| c.what == "sink d").unwrap();
        assert!(refused.says.contains("Connection refused"), "{refused:?}");
    }

    struct Unset;

    impl crate::config::secrets::Outside for Unset {
        fn env(&self, name: &str) -> Option<String> {
            (name == "HOST").then(|| "127.0.0.1".to_owned())
        }

        fn file(&self, _: &str) -> Result<zeroize::Zeroizing<String>, String> {
            Err("no such file".into())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_that_fails_and_is_a_default_names_the_variable_that_is_not_set() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = "name: x
kafka: {brokers: '${env:KAFKA:-127.0.0.1:1}'}
sources: [{topic: t}]
sinks:
  a: {type: loki, url: '${env:LOKI:-http://127.0.0.1:1}', server: '${env:KIND:-loki}'}
  b: {type: elasticsearch, url: 'http://${env:HOST:-nowhere}:${env:PORT:-1}'}
  c: {type: otlp, endpoint: 'http://${env:HOST:-nowhere}:1', query: '${env:JAEGER:-http://127.0.0.1:1}'}
";
        let pipeline = crate::pipeline::parse(std::path::Path::new("x"), text, &Unset).unwrap();
        let checks = examine(&pipeline, None).await;
        for (what, variables) in [
            ("kafka", "KAFKA is not set"),
            ("sink a", "LOKI and KIND are not set"),
            ("sink b", "PORT is not set"),
            ("sink c, query", "JAEGER is not set"),
        ] {
            let check = checks.iter().find(|c| c.what == what).unwrap_or_else(|| panic!("{what}"));
            assert!(check.says.contains(variables), "{check:?}");
            let name = variables.split(" is ").next().unwrap().split(" are ").next().unwrap();
            assert!(check.way_out.starts_with(&format!("set {name} if it")), "{check:?}");
        }
        let given = checks.iter().find(|c| c.what == "sink c").unwrap();
        assert!(given.level == Level::Wrong && !given.says.contains("not set"), "{given:?}");
    }
}
