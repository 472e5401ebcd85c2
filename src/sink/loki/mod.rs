//! Grafana Loki, or VictoriaLogs, which speaks its protocol: `POST /loki/api/v1/push`, protobuf (`logproto.PushRequest`) compressed with snappy.
//! <https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs>
//!
//! Few labels, since each combination is a stream; what is looked up goes to structured metadata
//! (`trace_id`, `span_id`, `decision_id`, `policy`). The line is the docket record. A repeat with the same
//! time and line is stored once by Loki, twice by VictoriaLogs.
//! <https://docs.victoriametrics.com/victorialogs/data-ingestion/promtail/>

pub mod config;
mod encode;
mod logsql;
pub mod query;

use config::{LogServer, LokiConfig};
pub use encode::Encoder;
use reqwest::StatusCode;

use super::{Outcome, Sink};
use crate::decision::record::Record;
use crate::http::client::{Client, HttpError};

pub struct Loki {
    encoder: Encoder,
    client: Client,
    url: String,
}

impl Loki {
    pub fn new(config: &LokiConfig) -> Result<Loki, HttpError> {
        let client = config.client()?;
        let path = match config.server {
            LogServer::Loki => "loki/api/v1/push",
            LogServer::Victorialogs => "insert/loki/api/v1/push",
        };
        Ok(Loki { encoder: Encoder::new(config), client, url: format!("{}/{path}", config.base()) })
    }
}

impl Sink for Loki {
    type Body = bytes::Bytes;

    fn encode(&self, batch: &[Record<'_>]) -> bytes::Bytes {
        let request = self.encoder.push_request(batch);
        let compressed = snap::raw::Encoder::new().compress_vec(&request);
        compressed.expect("snappy takes anything below 4 GiB").into()
    }

    fn size(body: &bytes::Bytes) -> usize {
        body.len()
    }

    async fn send(&self, body: &bytes::Bytes) -> Outcome {
        // The answer to a push is 204; Loki's 260 says that ingestion is blocked and nothing was stored. A 400 names one
        // entry, and others of the batch were stored; what is sent again is stored once.
        let answer =
            self.client.post(&self.url, "application/x-protobuf", None, body.clone()).await;
        answer
            .and_then(|answer| match answer.status {
                StatusCode::NO_CONTENT => Ok(()),
                _ => Err(answer.unexpected("204")),
            })
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_the_tenant_in_its_own_way_and_victorialogs_to_keep_lines_whole() {
        let told = |config: serde_json::Value| {
            let mut config = config;
            config["url"] = "http://l".into();
            let config: LokiConfig = serde_json::from_value(config).unwrap();
            let headers = config.request_headers();
            headers.iter().map(|(n, v)| format!("{n}={}", v.expose())).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(serde_json::json!({})), "");
        assert_eq!(told(serde_json::json!({ "tenant": "a:b" })), "X-Scope-OrgID=a:b");
        let whole = "VL-Loki-Disable-Message-Parsing=1";
        assert_eq!(told(serde_json::json!({ "server": "victorialogs" })), whole);
        assert_eq!(
            told(serde_json::json!({ "server": "victorialogs", "tenant": "7:3" })),
            format!("AccountID=7 ProjectID=3 {whole}")
        );
        assert_eq!(
            told(serde_json::json!({ "server": "victorialogs", "tenant": "7" })),
            format!("AccountID=7 ProjectID=0 {whole}")
        );
    }
}
