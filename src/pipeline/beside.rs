//! Files that a pipeline file names by their paths, and which are read where docket runs: certificates and keys.

use std::path::{Path, PathBuf};

use super::File;
use crate::http::config::{ServerTls, Tls};
use crate::log::config::Property;
use crate::notify::config::Notify;
use crate::sink::config::SinkConfig;
use crate::telemetry::config::Push;

/// Of librdkafka's properties, those that are paths.
const PATHS: [&str; 3] = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"];

/// All of them, by the setting that names each.
pub fn named(file: &File) -> Vec<(String, PathBuf)> {
    let mut all = Vec::new();
    let mut add = |setting: String, path: &Path| all.push((setting, path.to_owned()));
    for (what, tls) in [
        ("door", file.door.as_ref().and_then(|door| door.tls.as_ref())),
        ("admin", file.admin.tls.as_ref()),
    ] {
        let files = tls.into_iter().flat_map(ServerTls::files);
        files.for_each(|(name, path)| add(format!("{what}.tls.{name}"), path));
    }
    for (of, tls) in clients(file) {
        tls.files().for_each(|(name, path)| add(format!("{of}.tls.{name}"), path));
    }
    for name in PATHS {
        if let Some(path) = file.kafka.properties.get(name).map(Property::value) {
            add(format!("kafka.properties.{name}"), Path::new(&path));
        }
    }
    all
}

/// Who speaks TLS with a server, by its place in the file.
fn clients(file: &File) -> Vec<(String, &Tls)> {
    let sinks = file.sinks.iter().filter_map(|(name, sink)| {
        let tls = match sink {
            SinkConfig::Otlp(c) => &c.tls,
            SinkConfig::Loki(c) => &c.tls,
            SinkConfig::Elasticsearch(c) => &c.tls,
            SinkConfig::Cloudwatch(c) => &c.tls,
            SinkConfig::File(_) | SinkConfig::Metrics(_) => return None,
        };
        Some((format!("sinks.{name}"), tls))
    });
    let notify = file.spikes.iter().flat_map(|spikes| &spikes.notify).map(|(name, notify)| {
        let tls = match notify {
            Notify::Alertmanager(c) => &c.tls,
            Notify::Webhook(c) => &c.tls,
            Notify::Slack(c) => &c.tls,
        };
        (format!("spikes.notify.{name}"), tls)
    });
    let push = file.telemetry.push.iter().map(|(name, push)| {
        let tls = match push {
            Push::RemoteWrite(c) => &c.tls,
            Push::Otlp(c) => &c.tls,
        };
        (format!("telemetry.push.{name}"), tls)
    });
    sinks.chain(notify).chain(push).collect()
}
