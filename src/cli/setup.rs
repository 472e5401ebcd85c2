//! `docket setup`: what a pipeline needs to be there: topics, and index templates.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::metadata::MetadataTopic;
use reqwest::Method;
use serde_json::Value;

use super::shown::{say, say_aside};
use super::{CommandResult, Exit};
use crate::http::failure::innermost;
use crate::log::ask::Asker;
use crate::log::topics::nearest;
use crate::pipeline::Pipeline;
use crate::pipeline::topics::{self, Which};
use crate::sink::config::SinkConfig;
use crate::sink::elasticsearch::config::ElasticsearchConfig;

/// Create what pipelines need: Kafka topics, and the index templates of Elasticsearch sinks. Safe to repeat.
#[derive(clap::Args)]
#[command(after_help = "Example:
  docket setup pipelines/opa.yaml    asks before it makes topics of sources
  docket setup pipelines/opa.yaml --yes")]
pub struct Args {
    /// Pipeline files.
    #[arg(required = true, value_name = "PIPELINE")]
    files: Vec<PathBuf>,

    /// Create topics of sources without asking. Without a terminal nobody can be asked: if one is not there, --yes or --no-sources is needed.
    #[arg(long, conflicts_with = "no_sources")]
    yes: bool,

    /// Create no topics of sources, and do not ask.
    #[arg(long)]
    no_sources: bool,
}

/// Kafka has answered before.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(args: Args) -> CommandResult {
    for path in &args.files {
        let pipeline = super::load(path)?;
        let waiting = super::waiting(&format!("Kafka at {}", pipeline.file.kafka.brokers));
        let absent = topics::absent_sources(&pipeline).await?;
        drop(waiting);
        let like = like(&pipeline, &absent);
        let which = sources(&args, path, &absent, &like)?;
        let made = topics::ensure(&pipeline, which).await?;
        let topics = match (made.is_empty(), which == Which::Setup && !absent.is_empty()) {
            (false, _) => format!("created {}", made.join(", ")),
            (true, true) => "docket's own are all there".to_owned(),
            (true, false) => "all there".to_owned(),
        };
        let file = path.display();
        say(&format!("{file}: topics: {topics}"));
        for source in absent.iter().filter(|_| which == Which::Setup) {
            say(&format!("{file}: source {source}: not there, and not created"));
        }
        for source in absent.iter().filter(|source| made.contains(source)) {
            let told = match like.get(source) {
                Some(near) => format!("{near} is there: did you mean that?"),
                None => "see that whoever sends decisions writes to this name".to_owned(),
            };
            say_aside(&format!("{file}: source {source} was not there: {told}"));
        }
        let (single, brokers) = topics::single(&pipeline)?;
        if !single.is_empty() {
            say_aside(&format!("{file}: {}", one_copy(&single, brokers)));
        }
        for (name, sink) in &pipeline.file.sinks {
            if let SinkConfig::Elasticsearch(config) = sink {
                let waiting = super::waiting(&format!("sink {name} at {}", config.url));
                let what = template(config).await.map_err(|e| {
                    let astray = pipeline.astray(&["sinks", name, "url"]);
                    format!("{file}: sink {name} at {}: {e}{astray}", config.url)
                })?;
                drop(waiting);
                say(&format!("{file}: sink {name}: {what}"));
            }
        }
    }
    Ok(())
}

/// What is said of topics that are gone with one broker.
fn one_copy(topics: &[String], brokers: usize) -> String {
    let way_out = match brokers {
        1 => "for production, run three brokers or more and make them with replication factor 3"
            .to_owned(),
        n => format!("kafka-reassign-partitions.sh gives each partition {} replicas", n.min(3)),
    };
    format!(
        "replication factor 1: {}: a broker that is lost takes what is in them with it; {way_out}",
        topics.join(", ")
    )
}

/// Topics that are there, of much the same name as sources that are not.
fn like(pipeline: &Pipeline, absent: &[String]) -> BTreeMap<String, String> {
    if absent.is_empty() {
        return BTreeMap::new();
    }
    let kafka = &pipeline.file.kafka;
    let asker = Asker::new(kafka, "setup", None);
    let Ok(all) = asker.and_then(|asker| asker.metadata(None, PATIENCE)) else {
        return BTreeMap::new();
    };
    let names = || all.topics().iter().map(MetadataTopic::name);
    let near = |name: &String| Some((name.clone(), nearest(name, names())?.to_owned()));
    absent.iter().filter_map(near).collect()
}

/// Whether sources are created, too: one that isn't there may only be misspelt.
fn sources(
    args: &Args,
    path: &Path,
    absent: &[String],
    like: &BTreeMap<String, String>,
) -> CommandResult<Which> {
    if args.no_sources {
        return Ok(Which::Setup);
    }
    if absent.is_empty() || args.yes {
        return Ok(Which::All);
    }
    let (named, them) = match absent {
        [one] => (format!("The source {one} is not there."), "it"),
        several => (format!("The sources {} are not there.", several.join(", ")), "them"),
    };
    let near: Vec<&str> = like.values().map(String::as_str).collect();
    let meant = match near.is_empty() {
        true => String::new(),
        false => format!(" Did you mean {}?", near.join(", ")),
    };
    let (named, file) = (named + &meant, path.display());
    if !std::io::stdin().is_terminal() {
        return Err(Exit::wrong(format!(
            "{file}: {named} Nothing is created: standard input is no terminal, so nobody can be asked; --yes creates {them}, --no-sources leaves {them} out"
        ))
        .into());
    }
    let mut err = std::io::stderr();
    write!(err, "{file}: {named} Create {them}? [y/N] ")?;
    err.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let yes = line.trim_start().to_ascii_lowercase().starts_with('y');
    Ok(if yes { Which::All } else { Which::Setup })
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

async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Box<dyn std::error::Error>> {
    let response = request.send().await.map_err(|e| innermost(&e))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| innermost(&e))?;
    if !status.is_success() {
        return Err(format!(
            "the server answered {status}: {}",
            text.chars().take(500).collect::<String>()
        )
        .into());
    }
    Ok(serde_json::from_str(&text)?)
}
