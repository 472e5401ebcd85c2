//! Dead letters: what could not be decoded or was refused for good, with its original bytes, and in
//! headers where it came from and why.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::message::{BorrowedMessage, Message, OwnedHeaders};
use sha2::{Digest, Sha256};

use super::headers::{self, Origin};
use crate::decision::ids::hex;
use crate::decision::reject::{Reason, Reject};

/// Room for headers and framing beside a record's value.
const OVERHEAD: usize = 16 << 10;
/// At most so much is kept of a record that does not fit the rejects topic.
const KEPT: usize = 64 << 10;
/// And so much if it is not known what the topic takes.
const KEPT_BLINDLY: usize = 4 << 10;

/// A dead letter as it is read back.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Where it stands in the rejects topic.
    pub partition: i32,
    pub offset: i64,
    /// When it was written there, in milliseconds.
    pub written: i64,
    pub value: Vec<u8>,
    headers: BTreeMap<String, String>,
}

impl Letter {
    pub fn read(message: &BorrowedMessage<'_>) -> Letter {
        let pairs = headers::pairs(message)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        Letter {
            partition: message.partition(),
            offset: message.offset(),
            written: message.timestamp().to_millis().unwrap_or(0),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: pairs.collect(),
        }
    }

    /// One that was just made, as if it had been read.
    #[cfg(test)]
    pub fn of(letter: &DeadLetter, partition: i32, offset: i64, written: i64) -> Letter {
        use rdkafka::message::Headers;
        let text =
            |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let headers = letter.headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect();
        Letter { partition, offset, written, value: letter.value.clone(), headers }
    }

    /// A header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// The sink that refused it; nothing if intake did.
    pub fn sink(&self) -> Option<&str> {
        self.headers.get(headers::SINK).map(String::as_str)
    }

    /// Who refused it: a sink, or else intake or the door.
    pub fn part(&self) -> &str {
        match (self.sink(), self.header(headers::STAGE)) {
            (Some(sink), _) => sink,
            (None, "door") => "door",
            (None, "facts") => "facts",
            (None, "join") => "join",
            (None, _) => "intake",
        }
    }

    /// It names what was gone from a log, and is of no record.
    pub fn is_gap(&self) -> bool {
        self.header(headers::REASON) == Reason::LogGap.as_str()
    }

    pub fn is_truncated(&self) -> bool {
        self.headers.contains_key(headers::TRUNCATED)
    }

    /// A receipt lists letters that were sent round again: partition/offset, one a line.
    fn receipt(&self) -> Option<Vec<(i32, i64)>> {
        if self.header(headers::STAGE) != REPLAYED {
            return None;
        }
        let place = |line: &str| {
            let (partition, offset) = line.split_once('/')?;
            Some((partition.parse().ok()?, offset.parse().ok()?))
        };
        Some(String::from_utf8_lossy(&self.value).lines().filter_map(place).collect())
    }
}

/// The stage of a receipt.
const REPLAYED: &str = "replayed";

/// A receipt for letters that were sent round again, for the rejects topic itself: it is what tells that they were.
pub fn receipt(letters: &[(i32, i64)]) -> DeadLetter {
    let lines: Vec<String> =
        letters.iter().map(|(partition, offset)| format!("{partition}/{offset}")).collect();
    let all = headers::add(OwnedHeaders::new_with_capacity(1), headers::STAGE, REPLAYED);
    DeadLetter { value: lines.join("\n").into_bytes(), headers: all }
}

/// Letters without receipts, and the places that receipts tell of.
pub fn without_receipts(all: Vec<Letter>) -> (Vec<Letter>, BTreeSet<(i32, i64)>) {
    let mut replayed = BTreeSet::new();
    let letters = all.into_iter().filter(|letter| match letter.receipt() {
        Some(places) => {
            replayed.extend(places);
            false
        }
        None => true,
    });
    (letters.collect(), replayed)
}

/// A record for the rejects topic.
pub struct DeadLetter {
    pub value: Vec<u8>,
    pub headers: OwnedHeaders,
}

/// Makes a dead letter. `cut` keeps only so much of the value, for a topic that does not take more.
pub fn dead_letter(
    stage: &str,
    value: &[u8],
    reject: &Reject,
    origin: &Origin<'_>,
    received: &str,
    cut: Option<usize>,
) -> DeadLetter {
    let mut all = headers::origin(origin, received);
    all = headers::add(all, headers::STAGE, stage);
    all = headers::add(all, headers::REASON, reject.reason.as_str());
    let detail: String = reject.detail.chars().take(1000).collect();
    all = headers::add(all, headers::DETAIL, &detail);
    let mut kept = value;
    if let Some(len) = cut.filter(|len| *len < value.len()) {
        kept = &value[..len];
        all = headers::add(all, headers::TRUNCATED, &value.len().to_string());
        all = headers::add(all, headers::SHA256, &hex(&Sha256::digest(value)));
    }
    DeadLetter { value: kept.to_vec(), headers: all }
}

/// How much of a value is kept of one that a topic which takes `limit` bytes does not take.
pub fn cut(limit: Option<usize>) -> usize {
    limit.map_or(KEPT_BLINDLY, |limit| limit.saturating_sub(OVERHEAD).max(limit / 2).min(KEPT))
}

/// The same, if a value of `len` bytes may not fit.
pub fn cut_to_fit(len: usize, limit: Option<usize>) -> Option<usize> {
    limit.filter(|limit| len + OVERHEAD > *limit).map(|_| cut(limit))
}
