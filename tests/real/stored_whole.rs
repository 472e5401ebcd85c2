//! OpenSearch takes every decision that intake takes, and keeps it whole: a corpus of sizes, depths and types, made from a seed.

use std::collections::HashMap;
use std::fmt::Write;

use docket::decision::json;
use docket::decision::record::Record;
use docket::sink::elasticsearch::document;
use docket::sink::query::document_hash;
use serde_json::json;

use super::support::{Place, Running, docket, generated, produce, read_all};
use super::{address, count, pipeline};

/// Pseudo-random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.roll(of.len())]
    }

    /// Mostly short, sometimes longer than a term or a name may be.
    fn len(&mut self) -> usize {
        let most = [8, 8, 8, 8, 8, 300, 9_000, 33_000, 70_000][self.roll(9)];
        self.roll(most)
    }

    fn text(&mut self) -> String {
        let len = self.len();
        let letter =
            self.pick(&["x", "é", "\\u0000", "7", "\\\"", "😀", " ", "\\ud83d\\ude00", "."]);
        letter.repeat(len / letter.len())
    }

    fn name(&mut self) -> String {
        if self.roll(3) > 0 {
            return format!("n{}", self.roll(1000));
        }
        let odd = [
            "",
            " ",
            ".",
            "..",
            "a.b",
            "a",
            "a..b",
            ".a",
            "a.",
            "a\\u0000b",
            "_id",
            "$",
            "\\u0061b",
        ];
        match self.roll(3) {
            0 => self.text(),
            _ => self.pick(&odd).to_owned(),
        }
    }

    fn number(&mut self) -> String {
        match self.roll(8) {
            0 => "1e999".into(),
            1 => "-1E-999".into(),
            2 => "123456789012345678901234567890".into(),
            3 => "9".repeat(1 + self.roll(3_000)),
            4 => format!("0.{}", "3".repeat(1 + self.roll(3_000))),
            5 => format!("1e{}", "0".repeat(1 + self.roll(2_000))),
            6 => "-0.0".into(),
            _ => self.roll(1 << 40).to_string(),
        }
    }

    /// A value, of at most so many levels.
    fn value(&mut self, levels: usize, out: &mut String) {
        match self.roll(if levels == 0 { 4 } else { 8 }) {
            0 => write!(out, "\"{}\"", self.text()).unwrap(),
            1 => out.push_str(&self.number()),
            2 | 3 => out.push_str(self.pick(&["null", "true", "false", "{}", "[]", "\"\"", "0"])),
            4 | 5 => {
                out.push('[');
                for i in 0..self.roll(4) {
                    if i > 0 {
                        out.push(',');
                    }
                    self.value(levels - 1, out);
                }
                out.push(']');
            }
            _ => self.object(levels - 1, &mut Vec::new(), out),
        }
    }

    /// An object; no name stands in it twice.
    fn object(&mut self, levels: usize, taken: &mut Vec<String>, out: &mut String) {
        out.push('{');
        let members = if self.roll(100) == 0 { 3_000 } else { self.roll(6) };
        let mut first = true;
        for _ in 0..members {
            let many = || format!("many{}", taken.len());
            let name = if members > 10 { many() } else { self.name() };
            let key = json::unescape(&name).into_owned();
            if taken.contains(&key) {
                continue;
            }
            taken.push(key);
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            write!(out, "\"{name}\":").unwrap();
            if members > 10 {
                write!(out, "{}", taken.len()).unwrap();
            } else {
                self.value(levels, out);
            }
        }
        out.push('}');
    }

    fn decision(&mut self, id: &str) -> String {
        let time = self.pick(&[
            "2026-11-24T12:48:50Z",
            "2026-11-24T12:48:50Z",
            "2026-11-24 12:48:50.123456789012z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:60Z",
            "2026-11-24t12:48:50+23:59",
        ]);
        let mut out = format!("{{\"decision_id\":\"{id}\",\"timestamp\":\"{time}\"");
        let member = |name: &str, value: &str, out: &mut String| {
            write!(out, ", \"{name}\" :{value}").unwrap();
        };
        let mut levels = [1, 2, 3, 4, 118][self.roll(5)];
        if levels > 100 {
            // As deep as intake takes it.
            let (open, close) = [("[", "]"), ("{\"d\":", "}")][self.roll(2)];
            let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            member("input", &deep, &mut out);
            levels = 2;
        } else {
            let mut input = String::new();
            self.value(levels, &mut input);
            member("input", &input, &mut out);
        }
        let mut taken: Vec<String> =
            ["decision_id", "timestamp", "input"].map(str::to_owned).into();
        for name in [
            "result",
            "service",
            "event",
            "trace",
            "span",
            "rule",
            "finding",
            "docket.verdict",
            "service.name",
            "input.a",
            "_id",
            "@timestamp",
            "docket",
            "custom_",
        ] {
            taken.push(name.into());
            if self.roll(6) == 0 {
                let mut value = String::new();
                self.value(levels, &mut value);
                member(name, &value, &mut out);
            }
        }
        for name in ["labels", "bundles", "metrics", "custom", "nd_builtin_cache"] {
            taken.push(name.into());
            if self.roll(5) == 0 {
                let mut value = String::new();
                self.object(levels, &mut Vec::new(), &mut value);
                if name == "metrics" && value.len() > 2 {
                    let mut odd = String::new();
                    self.value(1, &mut odd);
                    value = format!("{{\"timer_server_handler_ns\":{odd},{}", &value[1..]);
                }
                member(name, &value, &mut out);
            }
        }
        for name in ["path", "query", "revision", "requested_by", "batch_decision_id"] {
            taken.push(name.into());
            if self.roll(5) == 0 {
                let value = format!("\"{}\"", self.text());
                member(name, &value, &mut out);
            }
        }
        self.rest(levels, &mut taken, &mut out);
        out + "}"
    }

    /// Members whose elements or values the index has a type for, and such that nobody knows.
    fn rest(&mut self, levels: usize, taken: &mut Vec<String>, out: &mut String) {
        for name in ["erased", "masked"] {
            taken.push(name.into());
            if self.roll(8) == 0 {
                let mut value = String::from("[");
                self.value(levels, &mut value);
                write!(out, ", \"{name}\" :{value}]").unwrap();
            }
        }
        if self.roll(4) == 0 {
            let number = self.number();
            write!(out, ", \"req_id\" :{number}").unwrap();
        }
        taken.push("req_id".into());
        let mut rest = String::new();
        self.object(levels, taken, &mut rest);
        if rest.len() > 2 {
            write!(out, ",\n{}", &rest[1..rest.len() - 1]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opensearch_takes_whatever_intake_takes_and_keeps_it_whole() {
    let _servers = super::together().await;
    let seed = std::env::var("DOCKET_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("DOCKET_SEED={seed}");
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("whole");
    let name = place.name.clone();
    let url = address("OPENSEARCH_URL");
    let sinks = format!(
        "docket: {{partitions: 2}}
sinks:
  search: {{type: elasticsearch, url: \"{url}\", index: $NAME}}
"
    );
    let pipeline = pipeline(&place, 2, &sinks).await;
    let mut dice = Dice(seed);
    // Kafka's topics take a megabyte.
    let mut odd = std::iter::from_fn(|| Some(dice.decision("odd-#"))).filter(|d| d.len() < 600_000);
    let numbered = |i: usize| odd.next().unwrap().replacen("odd-#", &format!("odd-{i}"), 1);
    let mut input: Vec<String> = (0..400).map(numbered).collect();
    input.extend(generated(100, seed));
    produce(&kafka, &format!("{name}-source"), &input);
    let running = Running::start(&place, &pipeline);
    let total = input.len() as u64;
    running
        .until("each is stored or rejected", 60, |m| {
            m.written() + m.rejected() >= total && m.delivered("search") == m.written()
        })
        .await;
    let rejects = read_all(&kafka, &format!("docket.{name}.rejects"));
    let told: Vec<String> =
        rejects.iter().take(3).map(|r| format!("{:?}: {:.300}", r.headers, r.json())).collect();
    assert!(told.is_empty(), "seed {seed}: {} rejects: {told:#?}", rejects.len());
    assert_eq!(count(&name, json!({ "match_all": {} })).await, total);
    // Every one is found by its id, its verdict and its time, whatever it holds.
    let all = json!({ "bool": { "filter": [{ "exists": { "field": "docket.verdict" } },
        { "exists": { "field": "@timestamp" } }, { "exists": { "field": "decision_id" } },
        { "exists": { "field": "service.name" } }, { "exists": { "field": "trace.id" } }] } });
    assert_eq!(count(&name, all).await, total);

    let (mut whole, mut beside) = (0, 0);
    let records = read_all(&kafka, &format!("docket.{name}"));
    let sources = sources(&name, &records.iter().map(|r| id(&r.value)).collect::<Vec<_>>()).await;
    for record in &records {
        let source = &sources[&id(&record.value)];
        let record = Record::parse(&record.value).unwrap();
        let mut sent = Vec::new();
        document(&record, &mut sent);
        let sent = String::from_utf8(sent).unwrap();
        assert_eq!(document_hash(source), document_hash(&sent), "seed {seed}: {source:.300}");
        // All of the record: as members, or as text.
        let event = json::get(source, "event").unwrap();
        match json::get(event, "original").and_then(json::as_str) {
            Some(text) => {
                beside += 1;
                assert_eq!(text, record.raw, "seed {seed}");
            }
            None => {
                whole += 1;
                for member in record.members() {
                    let name = member.key();
                    let stored = json::get(source, &name).unwrap_or_else(|| panic!("{name}"));
                    let wrapped = json::get(stored, "value").unwrap_or_default();
                    let hash = document_hash(member.value);
                    assert!(
                        document_hash(stored) == hash || document_hash(wrapped) == hash,
                        "seed {seed}: {name}: {stored:.300}"
                    );
                }
            }
        }
    }
    println!("{whole} stand as they are, {beside} with their text beside what of them is indexed");
    assert!(whole > 100 && beside > 100);
    // `docket verify` reads all of it.
    let verified =
        docket().args(["verify", "--from", "start", "--json"]).arg(&pipeline).output().unwrap();
    let report = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && report.contains("\"complete\":true"), "{report:.3000}");
    running.stop();
}

fn id(record: &[u8]) -> String {
    Record::parse(record).unwrap().decision_id.into_owned()
}

/// The text of documents, as the server gives it.
async fn sources(index: &str, ids: &[String]) -> HashMap<String, String> {
    let mut all = HashMap::new();
    for ids in ids.chunks(50) {
        let url = format!("{}/{index}/_search", address("OPENSEARCH_URL"));
        let query = json!({ "size": 1000, "query": { "terms": { "decision_id": ids } } });
        let answer = reqwest::Client::new()
            .post(url)
            .header("content-type", "application/json")
            .body(query.to_string())
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let hits = json::get(json::get(&answer, "hits").unwrap(), "hits").unwrap().to_owned();
        for hit in json::elements(&hits) {
            let source = json::get(hit, "_source").unwrap();
            let id = json::get(source, "decision_id").and_then(json::as_str).unwrap();
            all.insert(id.into_owned(), source.to_owned());
        }
    }
    all
}
