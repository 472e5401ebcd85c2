//! What there is to say of one sink, or of the source.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Compared;

/// The result for one sink.
#[derive(Serialize)]
pub struct Report {
    pub sink: String,
    pub r#type: &'static str,
    /// Set if it can't tell what it holds, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Set if it could not be asked, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Set if it is not known what else it holds, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others_unknown: Option<String>,
    /// Set if only a sample was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<BTreeMap<String, f64>>,
    #[serde(flatten)]
    pub compared: Compared,
    /// Of `only_there`: what intake has read, so that it is in the source and not in the docket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_source: Vec<String>,
    pub gaps: usize,
}

impl Report {
    pub(super) fn new(sink: &str, r#type: &'static str) -> Report {
        Report {
            sink: sink.to_owned(),
            r#type,
            skipped: None,
            error: None,
            others_unknown: None,
            sample: None,
            counts: None,
            compared: Compared::default(),
            in_source: Vec::new(),
            gaps: 0,
        }
    }
}
