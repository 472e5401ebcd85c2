//! Objects printed over many lines, whose lines came one by one: each behind a prefix (`kubectl logs --prefix`, stern,
//! docker compose), or each in an envelope of its own (Docker's json-file).

use super::super::record::Agent;
use super::super::reject::Reason;
use super::balance::Balance;
use super::{Around, Found, Ignored, Opener, Piece, marks, reject};

/// An object whose end has not come yet.
pub(super) struct Spread {
    stream: Vec<u8>,
    /// The layer whose text it stands in; `None` if its lines are in envelopes.
    layer: Option<usize>,
    prefix: String,
    text: Vec<u8>,
    lines: usize,
    agent: Option<Agent>,
    balance: Balance,
}

/// So many may be open at once; others are lines like any.
const MAX_OPEN: usize = 32;
/// So far behind an object's first line its second one is looked for: containers have their say in between.
const NEAR: usize = 32;

impl Spread {
    fn push(&mut self, line: &[u8]) {
        self.balance.feed(line);
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        self.lines += 1;
    }

    /// Its end is missing. How many lines of text it was, if it can't be a decision.
    fn settle(self, found: &mut Found<'_>) -> usize {
        if !marks::like(&self.text) {
            return self.lines;
        }
        let detail = "an object printed over many lines, whose end is missing: start OPA with \
            --log-format json";
        reject(self.text.trim_ascii_end(), Reason::NotJson, detail, found);
        0
    }

    fn is_of(&self, layer: Option<usize>, stream: &[u8]) -> bool {
        self.layer == layer && self.stream == stream
    }
}

/// What stands on a line behind a prefix. Times in it are other ones on each line: numbers with colons, and long ones.
fn behind<'t>(line: &'t str, prefix: &str) -> Option<&'t str> {
    let number = |text: &str| text.bytes().take_while(|b| b"0123456789.:,".contains(b)).count();
    let (mut line, mut prefix) = (line, prefix);
    while !prefix.is_empty() {
        let digits = number(prefix);
        let is_time = prefix.starts_with(|c: char| c.is_ascii_digit())
            && (prefix[..digits].contains(':') || digits > 9);
        if is_time {
            let other = number(line);
            if other == 0 {
                return None;
            }
            (line, prefix) = (&line[other..], &prefix[digits..]);
            continue;
        }
        let plain = prefix[digits..].find(|c: char| c.is_ascii_digit()).map(|n| digits + n);
        let (head, rest) = prefix.split_at(plain.unwrap_or(prefix.len()));
        match line.strip_prefix(head) {
            Some(after) => (line, prefix) = (after, rest),
            // An empty line, whose last blanks were taken off.
            None => return (rest.is_empty() && line == head.trim_end()).then_some(""),
        }
    }
    Some(line)
}

/// Whether a line goes on with an object that was printed over many.
fn goes_on(line: &str) -> bool {
    line.trim_end().is_empty() || line.starts_with([' ', '\t', '}', ']', '"'])
}

/// What stands before the bracket that a line ends with.
fn begins(line: &str) -> Option<&str> {
    let prefix = line.trim_end().strip_suffix(['{', '['])?;
    (prefix.len() <= 512 && !prefix.trim_end().ends_with("\":")).then_some(prefix)
}

/// A line of a text behind some prefix; `rest` is what follows its break. Whether it was taken.
pub(super) fn of_text(
    open: &mut Opener<'_>,
    line: &str,
    bytes: &[u8],
    rest: &str,
    around: Around<'_>,
    found: &mut Found<'_>,
) -> Option<usize> {
    let layer = Some(open.layers);
    if let Some(taken) = more(open, layer, line, bytes, around, found) {
        return Some(taken);
    }
    let prefix = begins(line).filter(|prefix| !prefix.trim().is_empty())?;
    let second = |next: &str| {
        behind(next.trim_start(), prefix)
            .is_some_and(|next| goes_on(next) && next.trim_start().starts_with(['"', '{', '}']))
    };
    if open.spread.len() >= MAX_OPEN || !rest.lines().take(NEAR).any(second) {
        return None;
    }
    let around = around.collected();
    open.spread.push(begun(layer, prefix, &bytes[prefix.len()..], around));
    Some(0)
}

/// A line that an envelope holds. Whether it was taken.
pub(super) fn of_stream(
    open: &mut Opener<'_>,
    line: &str,
    around: Around<'_>,
    found: &mut Found<'_>,
) -> bool {
    let line = line.strip_suffix('\n').unwrap_or(line);
    if open.spread.is_empty() && !line.trim_end().ends_with(['{', '[']) || line.contains('\n') {
        return false;
    }
    if let Some(settled) = more(open, None, line, line.as_bytes(), around, found) {
        (0..settled).for_each(|_| found(Piece::Ignored(Ignored::Text)));
        return true;
    }
    let Some(prefix) = begins(line) else { return false };
    if open.spread.len() >= MAX_OPEN {
        return false;
    }
    open.spread.push(begun(None, prefix, &line.as_bytes()[prefix.len()..], around));
    true
}

fn begun(layer: Option<usize>, prefix: &str, line: &[u8], around: Around<'_>) -> Spread {
    let mut spread = Spread {
        stream: around.stream.to_vec(),
        layer,
        prefix: prefix.to_owned(),
        text: Vec::new(),
        lines: 0,
        agent: around.agent.cloned(),
        balance: Balance::default(),
    };
    spread.push(line);
    spread
}

/// A line that goes on with an object that is open, or ends it: how many lines of text that were then.
fn more(
    open: &mut Opener<'_>,
    layer: Option<usize>,
    line: &str,
    bytes: &[u8],
    around: Around<'_>,
    found: &mut Found<'_>,
) -> Option<usize> {
    let content = |spread: &Spread| {
        let rest = behind(line, &spread.prefix).filter(|rest| goes_on(rest))?;
        Some(rest.len())
    };
    let of = |spread: &Spread| spread.is_of(layer, around.stream);
    let at = open.spread.iter().rposition(|spread| of(spread) && content(spread).is_some())?;
    let len = content(&open.spread[at])?;
    let spread = &mut open.spread[at];
    spread.push(&bytes[bytes.len() - len..]);
    if !spread.balance.is_open() {
        let Spread { stream, text, agent, .. } = open.spread.remove(at);
        let around = Around { agent: agent.as_ref(), collected: true, stream: &stream };
        open.bytes(&text, around, found);
    }
    Some(0)
}

/// The text of a layer is over. How many lines of text were taken for objects.
pub(super) fn end_of_text(open: &mut Opener<'_>, found: &mut Found<'_>) -> usize {
    if open.spread.is_empty() {
        return 0;
    }
    let layer = Some(open.layers);
    let over = open.spread.extract_if(.., |spread| spread.layer == layer);
    over.collect::<Vec<_>>().into_iter().map(|spread| spread.settle(found)).sum()
}

/// The record is over.
pub(super) fn flush(open: &mut Opener<'_>, found: &mut Found<'_>) {
    for spread in std::mem::take(&mut open.spread) {
        (0..spread.settle(found)).for_each(|_| found(Piece::Ignored(Ignored::Text)));
    }
}
