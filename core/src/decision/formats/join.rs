//! Lines that were split on their way: Docker's json-file at 16 KiB, containerd's and CRI-O's parts by stream,
//! and what agents make of either.

use super::super::json;
use super::super::record::Agent;
use super::super::reject::{Reason, Reject};
use super::agent::{self, Part};
use super::balance::Balance;
use super::{Around, Found, Opener, lines, reject};

/// So many streams may have an open line at once.
const MAX_OPEN: usize = 256;

/// So many records of a source may stand between two parts of a line.
const MAX_APART: u64 = 10_000;

/// Where a record stands: its topic (by number), its partition, its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPlace {
    pub topic: usize,
    pub partition: i32,
    pub offset: i64,
}

/// Lines whose ends have not come yet, each of one stream.
#[derive(Default)]
pub(super) struct Joins {
    open: Vec<Pending>,
    /// How many bytes wait.
    held: usize,
    /// The record that is read, where parts of lines may come in others.
    here: Option<RecordPlace>,
    /// What streams of this record begin with, if it has a key.
    keyed: bool,
    prefix: usize,
    /// How many records were read.
    records: u64,
    /// Lines of records before this one that will not be whole.
    lost: Vec<Pending>,
}

struct Pending {
    stream: Vec<u8>,
    text: Vec<u8>,
    agent: Option<Agent>,
    collected: bool,
    /// Its parts were called parts; otherwise they were told by what is missing.
    called: bool,
    balance: Balance,
    /// The record of its last part, and how many pieces were told of that.
    last: Option<RecordPlace>,
    element: usize,
    at: u64,
}

impl Joins {
    fn take(&mut self, stream: &[u8]) -> Option<Pending> {
        let at = self.open.iter().position(|pending| pending.stream == stream)?;
        let pending = self.open.remove(at);
        self.held -= pending.text.len();
        Some(pending)
    }

    fn has(&self, stream: impl FnOnce() -> Vec<u8>) -> bool {
        !self.open.is_empty() && {
            let stream = stream();
            self.open.iter().any(|pending| pending.stream == stream)
        }
    }

    fn keep(&mut self, mut pending: Pending, room: usize, found: &mut Found<'_>) {
        if self.open.len() >= MAX_OPEN {
            let oldest = self.open.remove(0);
            self.held -= oldest.text.len();
            self.give_up(oldest, found);
        }
        pending.last = self.here;
        pending.at = self.records;
        if self.held + pending.text.len() > room {
            return self.give_up(pending, found);
        }
        self.held += pending.text.len();
        self.open.push(pending);
    }

    /// What has no end is a reject of the record that its last part came in.
    fn give_up(&mut self, pending: Pending, found: &mut Found<'_>) {
        if pending.last == self.here {
            pending.missing(found);
        } else {
            self.lost.push(pending);
        }
    }

    /// What is left has no end.
    pub(super) fn flush(&mut self, found: &mut Found<'_>) {
        self.held = 0;
        for pending in std::mem::take(&mut self.open) {
            self.give_up(pending, found);
        }
    }

    /// The record is over. Of what is left, other records may have the rest where the part was called one, or where
    /// it is as long as Docker makes them.
    pub(super) fn end_of_record(&mut self, found: &mut Found<'_>) {
        if self.here.is_none() {
            return self.flush(found);
        }
        let (open, records) = (std::mem::take(&mut self.open), self.records);
        for pending in open {
            let is_part = pending.called || pending.text.len() + 4 >= DOCKER;
            // Without a key and a container's name it may be anybody's.
            let named =
                self.keyed || pending.stream.iter().skip(self.prefix).any(|b| *b == agent::NAMED);
            let elsewhere = pending.last != self.here;
            let may_come = (elsewhere || is_part && named) && records - pending.at < MAX_APART;
            if may_come {
                self.open.push(pending);
            } else {
                self.held -= pending.text.len();
                self.give_up(pending, found);
            }
        }
    }
}

/// Parts of lines that came in records of their own, until the rest of their line comes in another record of the same
/// key and partition. Who keeps it must not commit past a record whose part waits here.
#[derive(Default)]
pub struct Parts {
    joins: Joins,
    stream: Vec<u8>,
}

/// A line whose last part did not come.
#[derive(Debug)]
pub struct Missing {
    /// The record that its last part came in, and how many pieces stood before it there.
    pub place: RecordPlace,
    pub element: usize,
    pub bytes: Vec<u8>,
    pub reject: Reject,
}

impl Parts {
    /// Whether parts wait.
    pub fn wait(&self) -> bool {
        !self.joins.open.is_empty()
    }

    /// Whether parts of a partition wait.
    pub fn wait_in(&self, topic: usize, partition: i32) -> bool {
        let of = |at: RecordPlace| (at.topic, at.partition) == (topic, partition);
        self.joins.open.iter().any(|pending| pending.last.is_some_and(of))
    }

    /// They wait no longer.
    pub fn give_up(&mut self) {
        self.joins.here = None;
        self.joins.flush(&mut |_| {});
    }

    /// Lines that will not be whole, each told once.
    pub fn missing(&mut self) -> impl Iterator<Item = Missing> + use<> {
        std::mem::take(&mut self.joins.lost).into_iter().filter_map(|pending| {
            Some(Missing {
                place: pending.last?,
                element: pending.element,
                bytes: pending.text,
                reject: Reject::new(Reason::NotJson, MISSING),
            })
        })
    }

    /// A record begins: what it says is of the stream of its key in its partition.
    pub(super) fn begin(&mut self, place: RecordPlace, key: &[u8]) -> (&mut Joins, &[u8]) {
        self.joins.here = Some(place);
        self.joins.records += 1;
        self.joins.keyed = !key.is_empty();
        self.joins.prefix = 12 + key.len();
        self.stream.clear();
        self.stream.extend_from_slice(&place.topic.to_le_bytes());
        self.stream.extend_from_slice(&place.partition.to_le_bytes());
        self.stream.extend_from_slice(key);
        (&mut self.joins, &self.stream)
    }

    /// A record is over, of which so many pieces were told.
    pub(super) fn told(&mut self, pieces: usize) {
        if self.joins.open.is_empty() {
            return;
        }
        let here = self.joins.here;
        let of = self.joins.open.iter_mut().filter(|pending| pending.last == here);
        of.enumerate().for_each(|(n, pending)| pending.element = pieces + n);
    }
}

const MISSING: &str = "a line of a container's log whose last part is missing";

impl Pending {
    fn new(around: Around<'_>, called: bool) -> Pending {
        Pending {
            stream: around.stream.to_vec(),
            text: Vec::new(),
            agent: around.agent.cloned(),
            collected: around.collected,
            called,
            balance: Balance::default(),
            last: None,
            element: 0,
            at: 0,
        }
    }

    fn push(&mut self, text: &[u8]) {
        self.balance.feed(text);
        self.text.extend_from_slice(text);
    }

    fn missing(self, found: &mut Found<'_>) {
        reject(&self.text, Reason::NotJson, MISSING, found);
    }

    /// Whether a text can't be the end of this: it is whole by itself.
    fn is_other(&self, text: &str) -> bool {
        self.balance.is_open() && agent::whole(text)
    }

    fn open(self, open: &mut Opener<'_>, found: &mut Found<'_>) {
        let around =
            Around { agent: self.agent.as_ref(), collected: self.collected, stream: &self.stream };
        open.bytes(&self.text, around, found);
    }
}

/// Docker cuts lines at so many bytes.
const DOCKER: usize = 16 << 10;

/// Whether a line was cut: it has no line break at its end, as Docker leaves a whole one, and its JSON goes on.
fn cut(text: &str) -> bool {
    let long = text.len() + 4 >= DOCKER;
    if text.ends_with('\n') || !(long || text.starts_with('{') && !text.ends_with('}')) {
        return false;
    }
    let Some(begin) = text.find("{\"") else { return false };
    let mut balance = Balance::default();
    balance.feed(&text.as_bytes()[begin..]);
    balance.is_open()
}

/// A line, or a part of one, of the stream that `around` names.
pub(super) fn line(
    open: &mut Opener<'_>,
    text: &str,
    part: Option<Part>,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    if part.is_none() && lines::of_stream(open, text, around, found) {
        return;
    }
    let mut pending = match open.joins.take(around.stream) {
        Some(pending) if part != Some(Part::More) && pending.is_other(text) => {
            open.joins.give_up(pending, found);
            return open.bytes(text.as_bytes(), around, found);
        }
        Some(pending) => pending,
        None if part == Some(Part::More) => Pending::new(around, true),
        None if part.is_none() && cut(text) => Pending::new(around, false),
        None => return open.bytes(text.as_bytes(), around, found),
    };
    pending.push(text.as_bytes());
    let more = match part {
        Some(part) => part == Part::More,
        None => !pending.called && !text.ends_with('\n') && pending.balance.is_open(),
    };
    if more {
        open.joins.keep(pending, open.limits.record, found);
    } else {
        pending.open(open, found);
    }
}

/// A CRI log line (Kubernetes, containerd, CRI-O): time, stream, tag, content; and what somebody wrote before it.
pub(super) struct Cri<'l> {
    prefix: &'l [u8],
    stream: &'l [u8],
    tag: Part,
    content: &'l [u8],
}

/// So far into a line its stream is looked for.
const PREFIX: usize = 512;

pub(super) fn cri(line: &[u8]) -> Option<Cri<'_>> {
    let before = memchr::memmem::find(&line[..line.len().min(PREFIX)], b" std")?;
    let begin = line[..before].iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
    let (prefix, time) = (&line[..begin], &line[begin..before]);
    let mut parts = line[before + 1..].splitn(3, |b| *b == b' ');
    let (stream, tag) = (parts.next()?, parts.next()?);
    let is_time = (20..=40).contains(&time.len())
        && time[4] == b'-'
        && time[10] == b'T'
        && time.iter().all(|b| b.is_ascii_digit() || b"-:.+TZ".contains(b));
    if !is_time || !matches!(stream, b"stdout" | b"stderr") {
        return None;
    }
    // More tags may follow behind colons. An empty line's last blank is lost in editors and shippers.
    let tag = match tag.split(|b| *b == b':').next()?.trim_ascii_end() {
        b"P" => Part::More,
        b"F" => Part::Last,
        _ => return None,
    };
    let content = parts.next().unwrap_or_default();
    Some(Cri { prefix, stream, tag, content: content.strip_suffix(b"\r").unwrap_or(content) })
}

/// Whether a line, or an object, is a part of a line, and more of it comes.
pub fn is_part(line: &[u8]) -> bool {
    if let Some(cri) = cri(line) {
        return cri.tag == Part::More;
    }
    let says = |name: &[u8]| memchr::memmem::find(line, name).is_some();
    let may_be =
        [&b"\"log\""[..], b"artial", b"ARTIAL", b"\"logtag\"", b"\"_p\""].into_iter().any(says);
    let Some(text) = std::str::from_utf8(line).ok().filter(|t| may_be && t.starts_with('{')) else {
        return false;
    };
    let Ok((members, _)) = json::parse_prefix(text) else { return false };
    match agent::part(&members) {
        Some(part) => part == Part::More,
        None => members
            .iter()
            .find(|m| m.name == "log")
            .and_then(|m| json::as_str(m.value))
            .is_some_and(|log| cut(&log)),
    }
}

/// What the lines of one stream said.
struct Stream<'l> {
    prefix: &'l [u8],
    name: &'l [u8],
    whole: Vec<u8>,
    part: Vec<u8>,
}

/// The CRI lines that follow each other from `at` on: what each stream wrote, as it wrote it. Where to go on.
pub(super) fn cri_lines(
    open: &mut Opener<'_>,
    bytes: &[u8],
    at: usize,
    around: Around<'_>,
    found: &mut Found<'_>,
) -> usize {
    let around = around.collected();
    let mut streams: Vec<Stream<'_>> = Vec::new();
    let mut end = at;
    let mut from = at;
    loop {
        let eol = memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |n| from + n);
        let line = &bytes[from..eol];
        let Some(Cri { prefix, stream: name, tag, content }) = cri(line) else {
            if json::trim(line).is_empty() && eol < bytes.len() {
                from = eol + 1;
                continue;
            }
            break;
        };
        // One line alone is the common case: it is not copied.
        let alone = tag == Part::Last && from == at && json::trim(&bytes[eol..]).is_empty();
        if alone && (open.probing || !open.joins.has(|| key(around, prefix, name))) {
            open.bytes(content, around, found);
            return bytes.len();
        }
        let stream = match streams.iter().position(|s| (s.prefix, s.name) == (prefix, name)) {
            Some(n) => &mut streams[n],
            None => {
                streams.push(Stream { prefix, name, whole: Vec::new(), part: Vec::new() });
                let last = streams.len() - 1;
                &mut streams[last]
            }
        };
        stream.part.extend_from_slice(content);
        if tag == Part::Last {
            stream.whole.append(&mut stream.part);
            stream.whole.push(b'\n');
        }
        end = eol;
        if eol == bytes.len() {
            break;
        }
        from = eol + 1;
    }
    for stream in streams {
        let key = key(around, stream.prefix, stream.name);
        let around = Around { stream: &key, ..around };
        // A line that began before is the beginning of the first one here.
        let mut before = if open.probing { None } else { open.joins.take(&key) };
        let first = stream.whole.split(|b| *b == b'\n').next().unwrap_or_default();
        if let Ok(first) = std::str::from_utf8(first)
            && let Some(other) = before.take_if(|pending| pending.is_other(first))
        {
            open.joins.give_up(other, found);
        }
        if stream.whole.is_empty() && !open.probing {
            let mut pending = before.unwrap_or_else(|| Pending::new(around, true));
            pending.push(&stream.part);
            open.joins.keep(pending, open.limits.record, found);
            continue;
        }
        let mut said = before.map(|pending| pending.text).unwrap_or_default();
        said.extend_from_slice(&stream.whole);
        if open.probing {
            said.extend_from_slice(&stream.part);
        } else if !stream.part.is_empty() {
            let mut pending = Pending::new(around, true);
            pending.push(&stream.part);
            open.joins.keep(pending, open.limits.record, found);
        }
        open.bytes(&said, around, found);
    }
    end
}

fn key(around: Around<'_>, prefix: &[u8], name: &[u8]) -> Vec<u8> {
    [around.stream, b"\0cri\0", prefix, name].concat()
}
