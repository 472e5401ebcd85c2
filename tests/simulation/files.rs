//! The file sink, on files that others move away, delete, empty and write to, and that it puts aside itself: whatever it acknowledged stood
//! there as a whole line, and so does what others wrote.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use docket::sink::file::rotate::Rotate;
use docket::sink::file::{File, FileConfig};
use docket::sink::{Outcome, Sink};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::each_seed;
use super::world::Sabotage;

struct Folder {
    path: PathBuf,
    /// Lines that were acknowledged, or that others wrote.
    wanted: BTreeSet<String>,
    /// What stood in files that others deleted or emptied.
    taken: String,
    events: Vec<String>,
}

impl Folder {
    fn new(seed: u64) -> Folder {
        let name = format!("docket-files-{seed:x}-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder { path, wanted: BTreeSet::new(), taken: String::new(), events: Vec::new() }
    }

    fn file(&self) -> PathBuf {
        self.path.join("d.ndjson")
    }

    /// The next few lines.
    fn batch(&mut self, sink: &Writes, n: usize, rng: &mut SmallRng) {
        let lines: Vec<String> =
            (0..rng.random_range(1..5)).map(|i| format!("line {n}.{i}")).collect();
        if sink.write(&format!("{}\n", lines.join("\n"))) {
            self.wanted.extend(lines);
        }
    }

    /// Another process does something.
    fn other(&mut self, n: usize, rng: &mut SmallRng) {
        let file = self.file();
        let Ok(there) = std::fs::read_to_string(&file) else { return };
        let what = rng.random_range(0..4);
        self.events.push(format!("{n}: another does {what}"));
        match what {
            0 => std::fs::rename(&file, self.path.join(format!("moved-{n}"))).unwrap(),
            1 => {
                self.taken += &format!("{there}\n");
                std::fs::remove_file(&file).unwrap();
            }
            2 => {
                self.taken += &format!("{there}\n");
                let open = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
                open.set_len(0).unwrap();
            }
            _ => {
                // Some die before the line is over.
                let line = format!("another {n}");
                let end = if rng.random_bool(0.5) { "\n" } else { "" };
                // After one that died, nobody but docket begins a line of its own.
                let begin = if there.is_empty() || there.ends_with('\n') { "" } else { "\n" };
                let mut open = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
                write!(open, "{begin}{line}{end}").unwrap();
                self.wanted.insert(line);
            }
        }
    }

    fn check(self) -> (Vec<String>, Vec<String>) {
        let mut all = self.taken;
        for entry in std::fs::read_dir(&self.path).unwrap() {
            all += "\n";
            all += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
        }
        std::fs::remove_dir_all(&self.path).unwrap();
        let lines: BTreeSet<String> =
            all.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let lost = self.wanted.difference(&lines).map(|line| format!("{line:?} is nowhere"));
        let broken = lines.difference(&self.wanted).map(|line| format!("{line:?} stands there"));
        (lost.chain(broken).collect(), self.events)
    }
}

/// Who writes to the file.
enum Writes {
    Docket(File, tokio::runtime::Runtime),
    /// Opened once.
    Keeps(std::fs::File),
}

impl Writes {
    fn new(file: &Path, rotate: Option<Rotate>, sabotage: Sabotage) -> Writes {
        if sabotage == Sabotage::KeepsTheFile {
            let mut open = std::fs::OpenOptions::new();
            return Writes::Keeps(open.create(true).append(true).open(file).unwrap());
        }
        let config = FileConfig { path: file.to_owned(), rotate, delivery: Default::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Writes::Docket(File::new(&config), runtime)
    }

    /// Whether it was acknowledged.
    fn write(&self, lines: &str) -> bool {
        match self {
            Writes::Docket(file, runtime) => {
                let body: <File as Sink>::Body = lines.as_bytes().to_vec().into();
                runtime.block_on(file.send(&body)) == Outcome::Delivered
            }
            Writes::Keeps(file) => {
                let mut file = file;
                file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()).is_ok()
            }
        }
    }
}

fn run(seed: u64, sabotage: Sabotage) -> (Vec<String>, Vec<String>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut folder = Folder::new(seed);
    let size = docket::config::units::Bytes(rng.random_range(10..200));
    let rotate =
        rng.random_bool(0.5).then_some(Rotate { size: Some(size), every: None, keep: None });
    let begins = |folder: &Folder| Writes::new(&folder.file(), rotate.clone(), sabotage);
    // Two sinks of one process, which is started again now and then.
    let mut sinks = [begins(&folder), begins(&folder)];
    for n in 0..rng.random_range(3..40) {
        match rng.random_range(0..10) {
            0 => sinks = [begins(&folder), begins(&folder)],
            1..4 => folder.other(n, &mut rng),
            _ => folder.batch(&sinks[rng.random_range(0..2)], n, &mut rng),
        }
    }
    folder.check()
}

#[test]
fn what_a_file_sink_acknowledged_stands_in_a_file() {
    each_seed(60, |seed| run(seed, Sabotage::Nothing));
}

/// It can fail.
#[test]
fn a_file_sink_that_does_wrong_is_noticed() {
    super::each_is_noticed(60, &[(Sabotage::KeepsTheFile, 0)], run);
}
