//! A docket record as the sinks of a process have it: read once, and told apart from others once, however many want it.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use crate::decision::record::{self, NotARecord, Outline, Record};

/// A decision: its id and its content.
pub type Identity = (u128, u64);

/// Tells decisions apart.
pub fn identity(record: &Record<'_>) -> Identity {
    identity_of(&record.decision_id, record.original())
}

pub fn identity_of(decision_id: &str, content: &str) -> Identity {
    /// This process' own: nobody can make up two contents that look alike.
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    (fingerprint(decision_id), KEY.hash_one(content))
}

/// 128 bits of a decision id: a UUID as it is.
fn fingerprint(id: &str) -> u128 {
    if let Ok(uuid) = uuid::Uuid::try_parse(id) {
        return uuid.as_u128();
    }
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, id).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// What stands in the docket topic.
// Most are records: others may take as much.
#[allow(clippy::large_enum_variant)]
pub enum Value {
    Record {
        raw: Box<str>,
        outline: Outline,
        identity: Identity,
    },
    /// And why it is no docket record.
    Other {
        bytes: Box<[u8]>,
        why: NotARecord,
    },
}

impl Value {
    pub fn new(bytes: &[u8]) -> Value {
        let outlined = record::text(bytes).and_then(|raw| Ok((raw, Outline::of(raw)?)));
        match outlined {
            Ok((raw, outline)) => {
                let identity = identity(&outline.record(raw));
                Value::Record { raw: raw.into(), outline, identity }
            }
            Err(why) => Value::Other { bytes: bytes.into(), why },
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Record { raw, .. } => raw.as_bytes(),
            Value::Other { bytes, .. } => bytes,
        }
    }

    pub fn record(&self) -> Result<(Record<'_>, Identity), NotARecord> {
        match self {
            Value::Record { raw, outline, identity } => Ok((outline.record(raw), *identity)),
            Value::Other { why, .. } => Err(why.clone()),
        }
    }

    /// What it takes.
    pub fn size(&self) -> usize {
        size_of::<Value>() + self.bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::record::{Rules, write};

    #[test]
    fn ids_are_told_apart_in_any_form() {
        let uuid = "8f2d6c1e-0000-4000-8000-000000000001";
        assert_ne!(fingerprint(uuid), fingerprint("8f2d6c1e-0000-4000-8000-000000000002"));
        assert_ne!(fingerprint("a"), fingerprint("b"));
        assert_eq!(fingerprint("a"), fingerprint("a"));
    }

    #[test]
    fn what_is_read_once_is_what_each_would_read() {
        let doc = r#"{"decision_id":"d\u0031","path":"a\/b","input":{"user":"\"bob\""},"result":{"allow":false,"reason":"no"},"timestamp":"2026-11-24T12:48:50Z","labels":{"app":"s","id":""},"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#;
        let mut bytes = Vec::new();
        write(&Event::parse(doc.as_bytes()).unwrap(), &[], None, &Rules::default(), &mut bytes);
        let value = Value::new(&bytes);
        let (record, told) = value.record().unwrap();
        let read = Record::parse(&bytes).unwrap();
        assert_eq!(format!("{record:?}"), format!("{read:?}"));
        assert_eq!(told, identity(&read));
        assert_eq!((value.bytes(), &*record.decision_id), (&*bytes, "d1"));
        assert_eq!((&*record.subject, record.instance.as_deref()), ("\"bob\"", Some("")));
        for other in [&b"{}"[..], b"\xff", b""] {
            let value = Value::new(other);
            assert_eq!(value.bytes(), other);
            assert_eq!(value.record().unwrap_err(), Record::parse(other).unwrap_err());
        }
        // There are thousands of them in a ring, and in a batch.
        assert!(size_of::<Value>() <= 256, "{}", size_of::<Value>());
    }
}
