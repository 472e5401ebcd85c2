//! Lines that were split on their way: Docker's json-file at 16 KiB, containerd's and CRI-O's parts by stream,
//! and what agents make of either.

use super::super::json;
use super::super::record::Agent;
use super::super::reject::Reason;
use super::{Around, Found, Opener, agent, lines, reject};

/// What is known of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// More of it comes.
    More,
    /// It ends with this, whether others came before or not.
    Last,
}

/// So many streams may have an open line at once.
const MAX_OPEN: usize = 256;

/// Lines whose ends have not come yet, each of one stream.
pub(super) struct Joins {
    open: Vec<Pending>,
    /// How many bytes may wait.
    room: usize,
}

struct Pending {
    stream: Vec<u8>,
    text: Vec<u8>,
    agent: Option<Agent>,
    collected: bool,
    /// Its parts were called parts; otherwise they were told by what is missing.
    called: bool,
    balance: Balance,
}

impl Joins {
    pub(super) fn new(room: usize) -> Joins {
        Joins { open: Vec::new(), room }
    }

    fn take(&mut self, stream: &[u8]) -> Option<Pending> {
        let at = self.open.iter().position(|pending| pending.stream == stream)?;
        let pending = self.open.remove(at);
        self.room += pending.text.len();
        Some(pending)
    }

    fn has(&self, stream: &[u8]) -> bool {
        self.open.iter().any(|pending| pending.stream == stream)
    }

    fn keep(&mut self, pending: Pending, found: &mut Found<'_>) {
        if self.open.len() >= MAX_OPEN {
            let oldest = self.open.remove(0);
            self.room += oldest.text.len();
            oldest.missing(found);
        }
        if pending.text.len() > self.room {
            return pending.missing(found);
        }
        self.room -= pending.text.len();
        self.open.push(pending);
    }

    /// What is left has no end.
    pub(super) fn flush(&mut self, found: &mut Found<'_>) {
        for pending in std::mem::take(&mut self.open) {
            pending.missing(found);
        }
    }
}

impl Pending {
    fn new(around: Around<'_>, called: bool) -> Pending {
        Pending {
            stream: around.stream.to_vec(),
            text: Vec::new(),
            agent: around.agent.cloned(),
            collected: around.collected,
            called,
            balance: Balance::default(),
        }
    }

    fn push(&mut self, text: &[u8]) {
        self.balance.feed(text);
        self.text.extend_from_slice(text);
    }

    fn missing(self, found: &mut Found<'_>) {
        let detail = "a line of a container's log whose last part is missing";
        reject(&self.text, Reason::NotJson, detail, found);
    }

    fn open(self, open: &mut Opener<'_>, found: &mut Found<'_>) {
        let around =
            Around { agent: self.agent.as_ref(), collected: self.collected, stream: &self.stream };
        open.bytes(&self.text, around, found);
    }
}

/// How deep brackets are open, over the parts of a text.
#[derive(Debug, Clone, Default)]
pub(super) struct Balance {
    depth: usize,
    string: bool,
    escaped: bool,
    began: bool,
}

impl Balance {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for b in bytes {
            if self.escaped {
                self.escaped = false;
            } else if self.string {
                match b {
                    b'"' => self.string = false,
                    b'\\' => self.escaped = true,
                    _ => {}
                }
            } else {
                match b {
                    b'"' if self.began => self.string = true,
                    b'{' | b'[' => {
                        self.began = true;
                        self.depth += 1;
                    }
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.began && (self.depth > 0 || self.string)
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
        Some(pending) if part.is_none() && agent::whole(text) => {
            pending.missing(found);
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
        open.joins.keep(pending, found);
    } else {
        pending.open(open, found);
    }
}

/// A CRI log line (Kubernetes, containerd, CRI-O): time, stream, tag, content.
pub(super) fn cri(line: &[u8]) -> Option<(&[u8], Part, &[u8])> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
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
    Some((stream, tag, content.strip_suffix(b"\r").unwrap_or(content)))
}

/// What the lines of one stream said.
struct Stream<'l> {
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
        let Some((name, tag, content)) = cri(line) else {
            if json::trim(line).is_empty() && eol < bytes.len() {
                from = eol + 1;
                continue;
            }
            break;
        };
        // One line alone is the common case: it is not copied.
        let alone = tag == Part::Last && from == at && json::trim(&bytes[eol..]).is_empty();
        if alone && (open.probing || !open.joins.has(&key(around, name))) {
            open.bytes(content, around, found);
            return bytes.len();
        }
        let stream = match streams.iter().position(|s| s.name == name) {
            Some(n) => &mut streams[n],
            None => {
                streams.push(Stream { name, whole: Vec::new(), part: Vec::new() });
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
        let key = key(around, stream.name);
        let around = Around { stream: &key, ..around };
        // A line that began before is the beginning of the first one here.
        let before = if open.probing { None } else { open.joins.take(&key) };
        let mut said = before.map(|pending| pending.text).unwrap_or_default();
        said.extend_from_slice(&stream.whole);
        if !stream.part.is_empty() {
            if open.probing || stream.whole.is_empty() {
                said.extend_from_slice(&stream.part);
            }
            if !open.probing {
                let mut pending = Pending::new(around, true);
                pending.push(if stream.whole.is_empty() { &said } else { &stream.part });
                open.joins.keep(pending, found);
                if stream.whole.is_empty() {
                    continue;
                }
            }
        }
        open.bytes(&said, around, found);
    }
    end
}

fn key(around: Around<'_>, name: &[u8]) -> Vec<u8> {
    [around.stream, b"\0cri\0", name].concat()
}
