//! Settings of the Loki sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::forms::{LABEL_NAME, Label};
use crate::config::secrets::{Called, Secret};
use crate::http::client::{Client, HttpError};
use crate::http::config::{Auth, Tls};
use crate::sink::delivery::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Loki")]
pub struct LokiConfig {
    /// Base URL of the server; /loki/api/v1/push is appended, or /insert/loki/api/v1/push for VictoriaLogs.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// Kind of server. VictoriaLogs is told to keep each line unchanged, and is queried in LogsQL by `docket verify`. Default: loki.
    #[serde(default)]
    pub server: LogServer,
    /// Tenant: the value of X-Scope-OrgID, or <AccountID>:<ProjectID> for VictoriaLogs.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Stream labels and the source of their values: service, verdict, engine, policy, instance, label.<OPA label>, or =<fixed text>. Keep them few, since each combination of values is a stream. Default: service, verdict and engine.
    #[serde(default = "loki_labels")]
    #[schemars(length(min = 1), extend("propertyNames" = { "pattern": LABEL_NAME }))]
    pub labels: BTreeMap<String, Label>,
    /// Additional HTTP headers.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    /// Credentials. None by default.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// TLS settings for https addresses.
    #[serde(default)]
    pub tls: Tls,
    /// How batches are formed and sent.
    #[serde(default)]
    pub delivery: Delivery,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogServer {
    /// Grafana Loki.
    #[default]
    Loki,
    /// VictoriaLogs.
    Victorialogs,
}

impl LokiConfig {
    /// The base URL, also of who gives that of pushes, whole or in part.
    pub fn base(&self) -> &str {
        let mut base = self.url.trim_end_matches('/');
        base = base.strip_suffix("/loki/api/v1/push").unwrap_or(base);
        if self.server == LogServer::Victorialogs {
            base = base.strip_suffix("/insert").unwrap_or(base);
        }
        base.trim_end_matches('/')
    }

    pub fn client(&self) -> Result<Client, HttpError> {
        let (auth, timeout) = (self.auth.as_ref(), self.delivery.timeout.0);
        Client::new(&self.tls, auth, &self.request_headers(), timeout)
    }

    /// What the server is told besides the lines: whose they are, and of VictoriaLogs that it keeps each as it is, in `_msg`. It takes JSON apart
    /// otherwise, and what was altered could no longer be told.
    pub(super) fn request_headers(&self) -> BTreeMap<String, Secret> {
        let mut headers = self.headers.clone();
        let mut add = |name: &str, value: &str| headers.insert(name.to_owned(), Secret::new(value));
        match (self.server, &self.tenant) {
            (LogServer::Loki, None) => {}
            (LogServer::Loki, Some(tenant)) => {
                add("X-Scope-OrgID", tenant);
            }
            (LogServer::Victorialogs, tenant) => {
                add("VL-Loki-Disable-Message-Parsing", "1");
                if let Some(tenant) = tenant {
                    let (account, project) = tenant.split_once(':').unwrap_or((tenant, "0"));
                    add("AccountID", account);
                    add("ProjectID", project);
                }
            }
        }
        headers
    }
}

fn loki_labels() -> BTreeMap<String, Label> {
    let named = |name: &str| (name.to_owned(), Label::new(name).expect("it is one"));
    ["service", "verdict", "engine"].into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_the_address_of_pushes_means_that_of_the_server() {
        for (server, url, base) in [
            (LogServer::Loki, "http://l:3100/", "http://l:3100"),
            (LogServer::Loki, "http://l:3100/loki/api/v1/push", "http://l:3100"),
            (LogServer::Loki, "http://l/insert", "http://l/insert"),
            (LogServer::Victorialogs, "http://v:9428/insert", "http://v:9428"),
            (LogServer::Victorialogs, "http://v:9428/insert/loki/api/v1/push", "http://v:9428"),
            (LogServer::Victorialogs, "http://v:9428/logs", "http://v:9428/logs"),
        ] {
            let text = serde_json::json!({ "url": url }).to_string();
            let mut config: LokiConfig = serde_json::from_str(&text).unwrap();
            config.server = server;
            assert_eq!(config.base(), base);
        }
    }
}
