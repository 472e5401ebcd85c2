//! Sinks that people name: those that a pipeline file has, and what is said of one that it does not have.

use std::path::Path;

use super::Exit;
use crate::log::topics::nearest;
use crate::pipeline::Pipeline;
use crate::sink::config::SinkConfig;

/// What is said of a sink that a pipeline file does not have.
pub(super) fn no_sink(file: &Path, pipeline: &Pipeline, name: &str) -> String {
    no_sink_but(file, pipeline, name, "")
}

/// The same, where there is more to name than sinks.
pub(super) fn no_sink_but(file: &Path, pipeline: &Pipeline, name: &str, more: &str) -> String {
    let names: Vec<&str> = pipeline.file.sinks.keys().map(String::as_str).collect();
    let near = nearest(name, names.iter().copied());
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    let (file, names) = (file.display(), names.join(", "));
    match name {
        "" => format!("name a sink of {file} with --sink: {names}"),
        name => format!("there is no sink {name:?} in {file}; there are {names}{more}{near}"),
    }
}

/// A sink of the pipeline that records can be sent to.
pub(super) fn sink<'p>(
    file: &Path,
    pipeline: &'p Pipeline,
    name: &str,
) -> Result<&'p SinkConfig, Exit> {
    match pipeline.file.sinks.get(name) {
        None => Err(Exit::wrong(no_sink(file, pipeline, name))),
        Some(SinkConfig::Metrics(_)) => Err(Exit::wrong(format!(
            "{name} counts decisions in the process that runs; there is nothing to send to"
        ))),
        Some(sink) => Ok(sink),
    }
}
