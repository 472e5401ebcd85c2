//! One decision for each count that is worth following: its trace id and span id, for Prometheus' exemplars.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::decision::ids::{SpanId, TraceId};
use crate::decision::time::Nanos;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub at: Nanos,
    /// Of a counter 1; of a bucket the observed value.
    pub value: f64,
}

/// The latest exemplars of a process: by family, pipeline and label values, joined by zero bytes; and by bucket.
#[derive(Debug, Default)]
pub struct Exemplars(Mutex<HashMap<String, Of>>);

/// Of a series, by bucket.
type Of = Vec<(Option<usize>, Exemplar)>;

impl Exemplars {
    pub fn set(
        &self,
        family: &str,
        pipeline: &str,
        labels: &[String],
        bucket: Option<usize>,
        exemplar: &Exemplar,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(key(family, pipeline, labels.iter().map(String::as_str))).or_default();
        match of.iter_mut().find(|(b, _)| *b == bucket) {
            Some((_, known)) => *known = *exemplar,
            None => of.push((bucket, *exemplar)),
        }
    }

    pub fn forget(&self, family: &str, pipeline: &str, labels: &[String]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&key(family, pipeline, labels.iter().map(String::as_str)));
    }

    /// Of a series.
    pub fn get(
        &self,
        family: &str,
        pipeline: &str,
        labels: &[&str],
        bucket: Option<usize>,
    ) -> Option<Exemplar> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&key(family, pipeline, labels.iter().copied()))?
            .iter()
            .find(|(b, _)| *b == bucket)
            .map(|(_, exemplar)| *exemplar)
    }
}

fn key<'a>(family: &str, pipeline: &str, labels: impl Iterator<Item = &'a str>) -> String {
    let mut key = format!("{family}\0{pipeline}");
    for label in labels {
        key.push('\0');
        key.push_str(label);
    }
    key
}
