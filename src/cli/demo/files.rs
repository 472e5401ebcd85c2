//! `docket demo FILE`: the user's own decision logs, without Kafka: through in as long as it takes to read them, or followed as they come.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::screen::{Screen, Summary};
use super::{Args, findings};
use crate::cli::offline::Reader;
use crate::cli::recent::Recent;
use crate::cli::{CommandResult, Exit, feed, offline, tail};
use crate::decision::record::Record;
use crate::decision::{formats, json};
use crate::pipeline::spikes::Spikes;
use crate::sink::Sink;
use crate::words::counted;

/// So many decisions that come are written a second; the others are counted.
const LINES: u32 = 20;
/// More than this of a standard input that is not made of lines is not held.
const WHOLE: u64 = 2 << 30;

pub async fn run(args: &Args) -> CommandResult {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    tokio::spawn(async move {
        let _ = crate::cli::asked_to_stop().await;
        stopped.store(true, Ordering::SeqCst);
    });
    tokio::task::block_in_place(|| Files::new(args, stop)?.all(args))
}

struct Files {
    reader: Reader,
    screen: Screen,
    findings: findings::Past,
    recent: Recent,
    repeats: u64,
    stop: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// What comes on standard input is written as it comes.
    printer: Option<Printer>,
    /// Why not all was read.
    cut: Option<String>,
}

impl Files {
    fn new(args: &Args, stop: Arc<AtomicBool>) -> Result<Files, Box<dyn std::error::Error>> {
        if let Some(path) = args.files.iter().find(|path| offline::is_pipeline(path)) {
            let (named, path) = (path.display(), crate::words::shell(&path.display()));
            let told = format!(
                "{named} is a pipeline file, not a file of decisions: docket demo FILE --pipeline {path} uses its rules"
            );
            return Err(Exit::wrong(told).into());
        }
        let pipeline = offline::pipeline(args.pipeline.as_deref())?;
        let spikes = pipeline.file.spikes.clone().unwrap_or_else(Spikes::default);
        Ok(Files {
            reader: Reader::new(pipeline),
            screen: Screen::default(),
            findings: findings::Past::new(spikes),
            recent: Recent::default(),
            repeats: 0,
            stop,
            deadline: args.period.map(|period| Instant::now() + period),
            printer: None,
            cut: None,
        })
    }

    fn all(mut self, args: &Args) -> CommandResult {
        for (i, path) in args.files.iter().enumerate() {
            if path.as_os_str() == "-" {
                self.follow()?;
            } else {
                self.file(path)?;
            }
            if let Some(cut) = &mut self.cut {
                let rest = args.files.len() - i - 1;
                if rest > 0 {
                    cut.push_str(&format!("; {} not begun", counted(rest, "file")));
                }
                break;
            }
        }
        if let Some(printer) = &mut self.printer {
            printer.rest();
        }
        let Files { reader, screen, findings, repeats, cut, .. } = self;
        let tally = reader.tally;
        let summary = Summary {
            from: match &args.files[..] {
                [one] if one.as_os_str() == "-" => "standard input".into(),
                [one] => one.display().to_string(),
                several => counted(several.len(), "file"),
            },
            verdicts: screen.verdicts(),
            ignored: tally.ignored,
            rejected_alone: tally.rejected_alone,
            dropped: tally.dropped,
            repeats,
            written: tally.findings,
            rejects: tally.rejects.into_iter().map(|(r, (n, e))| (r, n, Some(e))).collect(),
            over_time: findings.denials(),
            findings: findings.found(),
        };
        summary.print(&screen);
        match cut {
            Some(cut) => anstream::eprintln!("\n{cut}"),
            None if summary.verdicts.is_empty() && summary.written > 0 => {
                return Err("no decision was found: these are findings, which docket wrote of decisions; docket tail PIPELINE --json prints both".into());
            }
            None if summary.verdicts.is_empty() => {
                if let [Some(told)] =
                    &args.files.iter().map(|file| offline::empty(file)).collect::<Vec<_>>()[..]
                {
                    return Err(format!("no decision was found: {told}").into());
                }
                return Err("no decision was found; docs/formats.md lists what docket reads".into());
            }
            None => {}
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), Exit> {
        let content = feed::read(path)?;
        let records = feed::records(&content);
        let bar = crate::cli::progress(records.len() as u64, "reading");
        let mut taken = 0;
        for record in records {
            if let Some(why) = self.ends() {
                self.cut = Some(format!(
                    "{why}: {} of {} KiB of {} were read; without --for all are",
                    taken / 1024,
                    content.len().div_ceil(1024),
                    path.display()
                ));
                break;
            }
            self.take(record);
            taken += record.len();
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Standard input as it comes.
    fn follow(&mut self) -> Result<(), String> {
        self.printer = Some(Printer::default());
        let (send, chunks) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let result = pieces(&mut BufReader::new(std::io::stdin()), &mut |piece| {
                send.send(Ok(piece)).is_ok()
            });
            if let Err(error) = result {
                let _ = send.send(Err(error.to_string()));
            }
        });
        loop {
            if let Some(why) = self.ends() {
                self.cut = Some(format!(
                    "{why}: {} of standard input read, before its end came",
                    counted(self.reader.tally.records, "record")
                ));
                return Ok(());
            }
            match chunks.recv_timeout(Duration::from_millis(100)) {
                Ok(Ok(piece)) => feed::records(&piece).iter().for_each(|one| self.take(one)),
                Ok(Err(error)) => return Err(format!("standard input can't be read: {error}")),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.printer.iter_mut().for_each(Printer::tick);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn ends(&self) -> Option<&'static str> {
        if self.stop.load(Ordering::SeqCst) {
            return Some("interrupted");
        }
        let over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        over.then_some("the time of --for is over")
    }

    fn take(&mut self, record: &[u8]) {
        let Files { reader, screen, findings, recent, repeats, printer, .. } = self;
        reader.read(record, &mut |bytes| {
            let Ok(record) = Record::parse(bytes) else { return };
            if recent.has(&record) {
                *repeats += 1;
                return;
            }
            let shown = screen.encode(std::slice::from_ref(&record));
            screen.add(&shown);
            findings.note(&record, bytes);
            if let Some(printer) = printer {
                printer.decision(&record);
            }
        });
    }
}

/// Writes decisions as they come, but no flood.
#[derive(Default)]
struct Printer {
    second: Option<Instant>,
    written: u32,
    more: u64,
}

impl Printer {
    fn decision(&mut self, record: &Record<'_>) {
        self.tick();
        self.second.get_or_insert_with(Instant::now);
        if self.written < LINES {
            self.written += 1;
            anstream::println!("{}", tail::line(record, crate::cli::columns()));
        } else {
            self.more += 1;
        }
    }

    fn tick(&mut self) {
        if self.second.is_some_and(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.rest();
            (self.second, self.written) = (None, 0);
        }
        let _ = std::io::stdout().flush();
    }

    fn rest(&mut self) {
        let more = std::mem::take(&mut self.more);
        if more > 0 {
            anstream::println!(".. and {more} more");
        }
    }
}

/// Cuts what comes into pieces that can be read by themselves: lines, as many as are there, or all of it if it is not made of lines.
fn pieces(input: &mut impl BufRead, take: &mut dyn FnMut(Vec<u8>) -> bool) -> std::io::Result<()> {
    let mut piece = Vec::new();
    input.read_until(b'\n', &mut piece)?;
    if let Some(told) = feed::foreign(&piece) {
        return Err(std::io::Error::other(told));
    }
    if !of_lines(&piece) {
        input.take(WHOLE).read_to_end(&mut piece)?;
        if piece.starts_with(&[0x1f, 0x8b]) {
            piece =
                feed::unzipped(&piece).map_err(|reject| std::io::Error::other(reject.detail))?;
        }
        take(piece);
        return Ok(());
    }
    loop {
        // A line's parts stay with the last one.
        let last = piece[..piece.len().saturating_sub(1)].rsplit(|b| *b == b'\n').next();
        let partial = last.is_some_and(formats::is_part);
        if !partial && !piece.is_empty() && !take(std::mem::take(&mut piece)) {
            return Ok(());
        }
        if input.read_until(b'\n', &mut piece)? == 0 {
            if !piece.is_empty() {
                take(piece);
            }
            return Ok(());
        }
    }
}

/// Whether the first line says that each stands for itself.
fn of_lines(first: &[u8]) -> bool {
    let text = json::trim(first);
    match text.first() {
        Some(b'[') => false,
        Some(b'{') => json::end_of_value(text, 0) == text.len() && json::check(text).is_ok(),
        // OTLP as protobuf, gzip.
        _ => std::str::from_utf8(first).is_ok() && first.first() != Some(&0x1f),
    }
}

/// Whether somebody looks on.
pub fn live() -> bool {
    std::io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        pieces(&mut BufReader::new(text), &mut |piece| {
            all.push(piece);
            true
        })
        .unwrap();
        all
    }

    #[test]
    fn lines_come_one_by_one_and_other_things_whole() {
        assert_eq!(cut(b"{\"a\":1}\n{\"b\":2}"), [&b"{\"a\":1}\n"[..], b"{\"b\":2}"]);
        for whole in [&b"[\n{\"a\":1}]\n"[..], b"{\n\"a\":1\n}\n"] {
            assert_eq!(cut(whole), [whole]);
        }
        let zipped = crate::gzip::gzip(b"{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(cut(&zipped), [b"{\"a\":1}\n{\"b\":2}\n"]);
        let [a, b, c, d] = [("F", "one"), ("P", "tw"), ("F", "o"), ("P", "end")]
            .map(|(tag, text)| format!("2026-11-24T12:48:50.0Z stdout {tag} {text}\n"));
        let cri = format!("{a}{b}{c}{d}");
        assert_eq!(cut(cri.as_bytes()), [a.as_bytes(), format!("{b}{c}").as_bytes(), d.as_bytes()]);
        assert!(cut(b"").is_empty());
    }
}
