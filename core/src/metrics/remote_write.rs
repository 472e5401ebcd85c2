//! The registry as Prometheus remote write requests: 2.0 (<https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>), and 1.0
//! for who does not take it (<https://prometheus.io/docs/specs/prw/remote_write_spec/>).

use std::collections::{BTreeSet, HashMap};

use prometheus::proto::{MetricFamily, MetricType};
use prost::Message;

use super::created::Created;
use super::exemplars::Exemplars;
use super::samples;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    pub fn content_type(self) -> &'static str {
        match self {
            Version::V1 => "application/x-protobuf",
            Version::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// The value of X-Prometheus-Remote-Write-Version.
    pub fn header(self) -> &'static str {
        match self {
            Version::V1 => "0.1.0",
            Version::V2 => "2.0.0",
        }
    }
}

/// Names and values, sorted by name.
pub type Labels = Vec<(String, String)>;

/// Says that there is no more of a series (Prometheus' value.StaleNaN).
pub const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// A series with its sample of now.
struct Series {
    /// None of what is gone.
    family: Option<usize>,
    labels: Labels,
    /// In milliseconds; 0 where nobody knows.
    created: i64,
    value: f64,
    exemplar: Option<super::exemplars::Exemplar>,
}

/// So many series a request; the same bound as Prometheus' own.
const REQUEST: usize = 2000;

/// What is sent.
pub struct Push<'p> {
    pub families: &'p [MetricFamily],
    pub exemplars: &'p Exemplars,
    pub created: &'p Created,
    /// Further labels of each series.
    pub more: &'p [(String, String)],
    /// What was sent before: of what is there no more that is said, so that nobody takes its last value for that of now.
    pub before: &'p BTreeSet<Labels>,
    pub millis: i64,
}

/// Requests of all samples, compressed with snappy's block format; and what was sent.
pub fn requests(push: &Push<'_>, version: Version) -> (Vec<Vec<u8>>, BTreeSet<Labels>) {
    let Push { families, exemplars, created, more, before, millis } = *push;
    let mut all = Vec::new();
    for (at, family) in families.iter().enumerate() {
        for sample in samples::of(family, exemplars) {
            let name = format!("{}{}", samples::base(family), sample.suffix);
            let mut labels = vec![("__name__".to_owned(), name)];
            labels.extend(sample.labels().map(|(name, value)| (name.to_owned(), value)));
            labels.extend(
                more.iter()
                    .filter(|(name, _)| !sample.labels().any(|(known, _)| known == name))
                    .cloned(),
            );
            // An empty label is none.
            labels.retain(|(_, value)| !value.is_empty());
            labels.sort_unstable();
            let created = created.of(family, sample.metric).map_or(0, |began| began / 1_000_000);
            let exemplar = sample.exemplar;
            all.push(Series { family: Some(at), labels, created, value: sample.value, exemplar });
        }
    }
    let sent: BTreeSet<Labels> = all.iter().map(|s| s.labels.clone()).collect();
    all.extend(before.difference(&sent).map(|labels| Series {
        family: None,
        labels: labels.clone(),
        created: 0,
        value: STALE,
        exemplar: None,
    }));
    let request = |series: &[Series]| {
        let plain = match version {
            Version::V1 => v1(families, series, millis).encode_to_vec(),
            Version::V2 => v2(families, series, millis).encode_to_vec(),
        };
        snap::raw::Encoder::new().compress_vec(&plain).expect("snappy takes anything below 4 GiB")
    };
    (all.chunks(REQUEST).map(request).collect(), sent)
}

fn kind(family: &MetricFamily) -> i32 {
    match family.get_field_type() {
        MetricType::COUNTER => 1,
        MetricType::GAUGE => 2,
        MetricType::HISTOGRAM => 3,
        MetricType::SUMMARY => 5,
        MetricType::UNTYPED => 0,
    }
}

fn traced(exemplar: &super::exemplars::Exemplar) -> [(&'static str, String); 2] {
    [("trace_id", exemplar.trace_id.to_string()), ("span_id", exemplar.span_id.to_string())]
}

fn v1(families: &[MetricFamily], series: &[Series], millis: i64) -> WriteRequest {
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    let timeseries = series.iter().map(|s| TimeSeries {
        labels: s.labels.iter().map(|(name, value)| label(name, value)).collect(),
        samples: vec![Sample { value: s.value, timestamp: millis }],
        exemplars: s
            .exemplar
            .iter()
            .map(|e| Exemplar {
                labels: traced(e).iter().map(|(name, value)| label(name, value)).collect(),
                value: e.value,
                timestamp: e.at / 1_000_000,
            })
            .collect(),
    });
    let mut named: Vec<usize> = series.iter().filter_map(|s| s.family).collect();
    named.dedup();
    let metadata = named.iter().map(|at| {
        let family = &families[*at];
        // Of a counter, the name with its suffix: as Prometheus has it.
        MetricMetadata {
            r#type: kind(family),
            metric_family_name: family.name().to_owned(),
            help: family.help().to_owned(),
            unit: String::new(),
        }
    });
    WriteRequest { timeseries: timeseries.collect(), metadata: metadata.collect() }
}

fn v2(families: &[MetricFamily], series: &[Series], millis: i64) -> Request {
    // The first symbol is the empty text.
    let mut symbols = vec![String::new()];
    let mut known: HashMap<String, u32> = HashMap::from([(String::new(), 0)]);
    let mut refer = |text: &str| -> u32 {
        if let Some(at) = known.get(text) {
            return *at;
        }
        let at = symbols.len() as u32;
        symbols.push(text.to_owned());
        known.insert(text.to_owned(), at);
        at
    };
    let mut timeseries = Vec::with_capacity(series.len());
    for s in series {
        let labels_refs =
            s.labels.iter().flat_map(|(name, value)| [refer(name), refer(value)]).collect();
        let exemplars = s.exemplar.iter().map(|e| ExemplarV2 {
            labels_refs: traced(e)
                .iter()
                .flat_map(|(name, value)| [refer(name), refer(value)])
                .collect(),
            value: e.value,
            timestamp: e.at / 1_000_000,
        });
        let exemplars = exemplars.collect();
        let metadata = s.family.map(|at| Metadata {
            r#type: kind(&families[at]),
            help_ref: refer(families[at].help()),
            unit_ref: 0,
        });
        timeseries.push(TimeSeriesV2 {
            labels_refs,
            samples: vec![Sample { value: s.value, timestamp: millis }],
            exemplars,
            metadata,
            created_timestamp: s.created,
        });
    }
    Request { symbols, timeseries }
}

#[derive(prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<MetricMetadata>,
}

#[derive(prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
}

#[derive(prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    /// Milliseconds.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(prost::Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(prost::Message)]
struct MetricMetadata {
    #[prost(int32, tag = "1")]
    r#type: i32,
    #[prost(string, tag = "2")]
    metric_family_name: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

/// `io.prometheus.write.v2.Request`.
#[derive(prost::Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeriesV2>,
}

#[derive(prost::Message)]
struct TimeSeriesV2 {
    /// Name, value, name, value.
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<ExemplarV2>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
    /// Milliseconds.
    #[prost(int64, tag = "6")]
    created_timestamp: i64,
}

#[derive(prost::Message)]
struct ExemplarV2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(prost::Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    r#type: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts, Registry};

    use super::*;

    fn registry(count: usize) -> Vec<MetricFamily> {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "All."), &["z", "b"]).unwrap();
        (0..count).for_each(|i| counter.with_label_values(&[&i.to_string(), ""]).inc());
        registry.register(Box::new(counter)).unwrap();
        registry.gather()
    }

    fn requests(
        families: &[MetricFamily],
        more: &[(String, String)],
        before: &BTreeSet<Labels>,
        version: Version,
    ) -> (Vec<Vec<u8>>, BTreeSet<Labels>) {
        let mut created = Created::new(3_000_000);
        created.look(families, 7_000_000);
        let exemplars = &Exemplars::default();
        let push = Push { families, exemplars, created: &created, more, before, millis: 7 };
        super::requests(&push, version)
    }

    /// Partitions that another has now, series that had to go: Prometheus is told, as a scrape tells it.
    #[test]
    fn what_is_gone_is_said_to_be_stale_once() {
        let none = BTreeSet::new();
        let (_, sent) = requests(&registry(2), &[], &none, Version::V2);
        assert_eq!(sent.len(), 2);
        let (bodies, then) = requests(&registry(1), &[], &sent, Version::V2);
        let plain = snap::raw::Decoder::new().decompress_vec(&bodies[0]).unwrap();
        let request = Request::decode(&*plain).unwrap();
        let values: Vec<u64> =
            request.timeseries.iter().map(|s| s.samples[0].value.to_bits()).collect();
        assert_eq!(values, [1f64.to_bits(), 0x7ff0_0000_0000_0002]);
        assert_eq!(request.timeseries[0].created_timestamp, 3);
        assert!(request.timeseries[1].metadata.is_none());
        assert_eq!(then.len(), 1);
        let (bodies, _) = requests(&registry(1), &[], &then, Version::V1);
        let plain = snap::raw::Decoder::new().decompress_vec(&bodies[0]).unwrap();
        assert_eq!(WriteRequest::decode(&*plain).unwrap().timeseries.len(), 1);
    }

    #[test]
    fn symbols_stand_once_and_labels_are_sorted() {
        let more = [
            ("instance".to_owned(), "i-1".to_owned()),
            ("z".to_owned(), "not over one's own".to_owned()),
        ];
        let (requests, _) = requests(&registry(2), &more, &BTreeSet::new(), Version::V2);
        let plain = snap::raw::Decoder::new().decompress_vec(&requests[0]).unwrap();
        let request = Request::decode(&*plain).unwrap();
        assert_eq!(
            request.symbols,
            ["", "__name__", "a_total", "instance", "i-1", "z", "0", "All.", "1"]
        );
        assert_eq!(request.timeseries[1].labels_refs, [1, 2, 3, 4, 5, 8], "an empty label is none");
        assert_eq!(
            (request.timeseries[1].samples[0].value, request.timeseries[1].samples[0].timestamp),
            (1.0, 7)
        );
    }

    #[test]
    fn many_series_are_several_requests() {
        let (requests, _) = requests(&registry(4001), &[], &BTreeSet::new(), Version::V1);
        let decode = |r: &Vec<u8>| {
            WriteRequest::decode(&*snap::raw::Decoder::new().decompress_vec(r).unwrap()).unwrap()
        };
        let decoded: Vec<_> = requests.iter().map(decode).collect();
        assert_eq!(decoded.iter().map(|r| r.timeseries.len()).collect::<Vec<_>>(), [2000, 2000, 1]);
        assert!(
            decoded
                .iter()
                .all(|r| r.metadata.len() == 1 && r.metadata[0].metric_family_name == "a_total")
        );
    }
}
