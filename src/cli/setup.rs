//! `docket setup`: what a pipeline needs to be there: topics, and index templates.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use super::CommandResult;
use crate::pipeline::topics;
use crate::sink::config::SinkConfig;
use crate::sink::elasticsearch::config::ElasticsearchConfig;

/// Create what pipelines need: Kafka topics, and the index templates of Elasticsearch sinks. Safe to repeat.
#[derive(clap::Args)]
#[command(after_help = "Example:
  docket setup pipelines/opa.yaml")]
pub struct Args {
    /// Pipeline files.
    #[arg(required = true, value_name = "PIPELINE")]
    files: Vec<PathBuf>,
}

pub async fn run(args: Args) -> CommandResult {
    for path in &args.files {
        let pipeline = super::load(path)?;
        let waiting = super::waiting(format!("Kafka at {}", pipeline.file.kafka.brokers));
        let made = topics::ensure(&pipeline, true).await?;
        drop(waiting);
        let topics = if made.is_empty() {
            "all there".to_owned()
        } else {
            format!("created {}", made.join(", "))
        };
        anstream::println!("{}: topics: {topics}", path.display());
        for (name, sink) in &pipeline.file.sinks {
            if let SinkConfig::Elasticsearch(config) = sink {
                let waiting = super::waiting(format!("sink {name} at {}", config.url));
                let what = template(config).await.map_err(|e| {
                    format!("{}: sink {name} at {}: {e}", path.display(), config.url)
                })?;
                drop(waiting);
                anstream::println!("{}: sink {name}: {what}", path.display());
            }
        }
    }
    Ok(())
}

const TEMPLATE: &str = include_str!("../../deploy/elasticsearch/index-template.json");

/// Installs the index template; for OpenSearch with its own name for `flattened`.
async fn template(config: &ElasticsearchConfig) -> Result<String, Box<dyn std::error::Error>> {
    let client = config.client()?;
    let base = config.url.trim_end_matches('/');
    let about: Value = answer(client.request(Method::GET, base)).await?;
    let opensearch = about["version"]["distribution"] == "opensearch";
    let mut template: Value = serde_json::from_str(TEMPLATE)?;
    template["index_patterns"] =
        vec![if config.data_stream { config.index.clone() } else { format!("{}*", config.index) }]
            .into();
    if config.data_stream {
        template["data_stream"] = serde_json::json!({});
    }
    if opensearch {
        to_opensearch(&mut template);
    }
    let name = config.template();
    let request = client.request(Method::PUT, &format!("{base}/_index_template/{name}"));
    let body = template.to_string();
    answer(request.header("content-type", "application/json").body(body)).await?;
    let kind = if opensearch { "OpenSearch" } else { "Elasticsearch" };
    Ok(format!(
        "index template {name} installed ({kind} {})",
        about["version"]["number"].as_str().unwrap_or("?")
    ))
}

/// `flattened` is Elasticsearch's name; OpenSearch calls it `flat_object`, and it has no settings there.
fn to_opensearch(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("type").is_some_and(|t| t == "flattened") {
                *value = serde_json::json!({ "type": "flat_object" });
                return;
            }
            members.values_mut().for_each(to_opensearch);
        }
        Value::Array(elements) => elements.iter_mut().for_each(to_opensearch),
        _ => {}
    }
}

/// What is behind an error: it says itself only that a request failed.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Box<dyn std::error::Error>> {
    let response = request.send().await.map_err(|e| cause(&e))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| cause(&e))?;
    if !status.is_success() {
        return Err(format!(
            "the server answered {status}: {}",
            text.chars().take(500).collect::<String>()
        )
        .into());
    }
    Ok(serde_json::from_str(&text)?)
}
