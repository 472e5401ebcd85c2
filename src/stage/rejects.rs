//! Dead letters: what could not be decoded or was refused for good, with its original bytes, and in
//! headers where it came from and why.

use rdkafka::message::OwnedHeaders;
use sha2::{Digest, Sha256};

use crate::decision::docket::hex;
use crate::decision::reject::Reject;
use crate::log::headers::{self, Origin};

/// Room for headers and framing beside a record's value.
const OVERHEAD: usize = 16 << 10;
/// At most so much is kept of a record that does not fit the rejects topic.
const KEPT: usize = 64 << 10;
/// And so much if it is not known what the topic takes.
const KEPT_BLINDLY: usize = 4 << 10;

/// A record for the rejects topic.
pub struct DeadLetter {
    pub value: Vec<u8>,
    pub headers: OwnedHeaders,
}

/// Makes a dead letter. `cut` keeps only so much of the value, for a topic that does not take more.
pub fn dead_letter(stage: &str, value: &[u8], reject: &Reject, origin: &Origin<'_>, received: &str, cut: Option<usize>) -> DeadLetter {
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
