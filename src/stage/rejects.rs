//! Dead letters: what could not be decoded or was refused for good, with its original bytes, and in
//! headers where it came from and why.

use rdkafka::message::OwnedHeaders;
use sha2::{Digest, Sha256};

use crate::decision::docket::hex;
use crate::decision::reject::Reject;
use crate::log::headers::{self, Origin};

/// Room for headers and framing beside a record's value.
const OVERHEAD: usize = 16 << 10;
/// How much of a record is kept that does not fit the rejects topic.
const KEPT: usize = 64 << 10;

/// A record for the rejects topic.
pub struct DeadLetter {
    pub value: Vec<u8>,
    pub headers: OwnedHeaders,
}

/// Makes a dead letter. `cut` keeps only the start of the value, for a topic that does not take more.
pub fn dead_letter(stage: &str, value: &[u8], reject: &Reject, origin: &Origin<'_>, received: &str, cut: bool) -> DeadLetter {
    let mut all = headers::origin(origin, received);
    all = headers::add(all, headers::STAGE, stage);
    all = headers::add(all, headers::REASON, reject.reason.as_str());
    let detail: String = reject.detail.chars().take(1000).collect();
    all = headers::add(all, headers::DETAIL, &detail);
    let mut kept = value;
    if cut && value.len() > KEPT {
        kept = &value[..KEPT];
        all = headers::add(all, headers::TRUNCATED, &value.len().to_string());
        all = headers::add(all, headers::SHA256, &hex(&Sha256::digest(value)));
    }
    DeadLetter { value: kept.to_vec(), headers: all }
}

/// Whether a value of `len` bytes may not fit a topic that takes `limit` bytes.
pub fn may_not_fit(len: usize, limit: Option<usize>) -> bool {
    limit.is_some_and(|limit| len + OVERHEAD > limit)
}
