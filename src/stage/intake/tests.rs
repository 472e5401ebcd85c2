use std::cell::RefCell;
use std::pin::pin;
use std::task::{Context, Waker};

use prometheus::Registry;
use rdkafka::error::RDKafkaErrorCode;

use super::*;
use crate::config::secrets::Real;
use crate::log::{Committed, Headers, Outgoing, Polled};

/// What was written, by topic.
#[derive(Default)]
struct Written(RefCell<Vec<String>>);

impl Transactions for Written {
    type Membership = ();

    fn begin(&self) -> KafkaResult<()> {
        Ok(())
    }

    fn send_to(&self, _: Option<i32>, record: Outgoing<'_>, _: usize, _: bool) -> KafkaResult<()> {
        self.0.borrow_mut().push(record.topic.to_owned());
        Ok(())
    }

    fn partitions(&self, _: &str) -> KafkaResult<i32> {
        Ok(2)
    }

    fn any_failed(&self) -> bool {
        false
    }

    fn commit_with(&self, _: &[(&str, i32, Committed)], (): &()) -> KafkaResult<()> {
        Ok(())
    }

    fn abort(&self) -> KafkaResult<Vec<(usize, RDKafkaErrorCode)>> {
        Ok(Vec::new())
    }
}

/// So much time passes at each look at a record.
struct Passes(Duration);

impl Headers for Passes {
    fn pairs(&self) -> Vec<(&str, &[u8])> {
        let passes = pin!(tokio::time::advance(self.0));
        let _ = passes.poll(&mut Context::from_waker(Waker::noop()));
        Vec::new()
    }
}

fn intake() -> Intake {
    let text = "name: p\nkafka: {brokers: x}\nsources: [{topic: source}]\n";
    let pipeline = crate::pipeline::parse(std::path::Path::new("p.yaml"), text, &Real);
    Intake {
        work: Work::Decisions,
        pipeline: Arc::new(pipeline.map_err(|e| e.to_string()).unwrap()),
        meters: Arc::new(Meters::new("p", &Registry::new()).unwrap()),
        health: Arc::default(),
        progress: Arc::default(),
        facts: None,
        docket_limit: None,
        rejects_limit: None,
        trouble: Trouble::default(),
        id: "x".into(),
    }
}

/// Takes a record of two decisions at which so much time passes, as the last of so many; whether it was taken, and where it went.
fn takes(intake: &Intake, time: Duration, records: usize, stop: bool) -> (bool, Vec<String>) {
    let written = Written::default();
    let stopped = CancellationToken::new();
    if stop {
        stopped.cancel();
    }
    let target = Target {
        intake,
        transactions: &written,
        topics: &["source"],
        docket_topic: "docket",
        rejects_topic: "rejects",
        suspects: &BTreeMap::new(),
        condemned: &intake.trouble.condemned(),
        received: "2026-11-24T12:00:00Z",
        stop: &stopped,
        keeping: RefCell::default(),
    };
    let payload = PAYLOAD;
    let headers = &Passes(time);
    let message = Message { topic: "source", partition: 0, offset: 7, payload, headers };
    let began = Some(Instant::now());
    let mut open = Open { begun: true, began, records: records - 1, ..Open::default() };
    let taken = target.take(&message, &mut Vec::new(), &mut open).is_ok();
    if taken {
        intake.trouble.passed(&open);
    }
    (taken, written.0.into_inner())
}

const PAYLOAD: &[u8] = br#"{"decision_id":"a","timestamp":"2026-11-24T12:00:00Z"}
{"decision_id":"b","timestamp":"2026-11-24T12:00:00Z"}"#;
const BOTH: [&str; 2] = ["docket", "docket"];

#[tokio::test(start_paused = true)]
async fn a_record_is_not_rejected_because_the_machine_is_slow() {
    let intake = intake();
    let seconds = Duration::from_secs;
    assert!(takes(&intake, seconds(1), 9, false).0);
    // With others in a transaction it has that split.
    for (records, most) in [(4, 2), (2, 1)] {
        assert!(!takes(&intake, seconds(20), records, false).0);
        assert_eq!(intake.trouble.most(), most);
    }
    // Alone it is too slow for a transaction, and then made before one, however often.
    assert!(!takes(&intake, seconds(20), 1, false).0);
    let of = trouble::fingerprint(PAYLOAD);
    for _ in 0..5 {
        intake.trouble.outlasted((0, 0, 7), of, pace::Outlasted::Transaction, 1);
        assert_eq!(intake.trouble.most(), 1);
        // Nothing is written, and nothing held against it, when docket is stopped meanwhile.
        assert_eq!(takes(&intake, seconds(20), 1, true), (false, Vec::new()));
        let (taken, written) = takes(&intake, seconds(20), 1, false);
        assert!(taken && written == BOTH, "{written:?}");
        assert!(intake.trouble.most() > 1, "it is through");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_outlasts_what_a_member_may_be_silent_stops_nobody() {
    let intake = intake();
    // Where the work is not told, the clock stands for it, and once is enough.
    let mut tries = (0..6).map(|_| takes(&intake, Duration::from_secs(250), 1, false));
    let (_, written) = tries.find(|(taken, _)| *taken).unwrap();
    assert_eq!(written, ["rejects"]);
}

/// Docket panics at half of its records.
struct Bad(bool);

impl Headers for Bad {
    fn pairs(&self) -> Vec<(&str, &[u8])> {
        assert!(!self.0, "simulated: docket has a bug");
        Vec::new()
    }
}

/// Two partitions of so many records each; at those of the first, docket panics.
struct Log {
    next: RefCell<[i64; 2]>,
    end: i64,
}

impl Commits for Log {
    fn commit(&self, _: &str, _: &[(i32, i64)], _: bool) -> KafkaResult<()> {
        Ok(())
    }
}

impl Reader for Log {
    type Membership = ();

    async fn poll(
        &self,
        wait: Duration,
        take: &mut dyn FnMut(&Message<'_>),
    ) -> KafkaResult<Polled> {
        let next = *self.next.borrow();
        let Some(at) = (0..2).filter(|at| next[*at] < self.end).min_by_key(|at| next[*at]) else {
            tokio::time::sleep(wait).await;
            return Ok(Polled::Nothing);
        };
        self.next.borrow_mut()[at] += 1;
        let (partition, headers) = (i32::try_from(at).unwrap(), &Bad(at == 0));
        let payload = br#"{"decision_id":"a","timestamp":"2026-11-24T12:00:00Z"}"#;
        take(&Message { topic: "source", partition, offset: next[at], payload, headers });
        Ok(Polled::Message)
    }

    fn idle(&self) -> KafkaResult<()> {
        Ok(())
    }

    fn seek(&self, places: &[(&str, i32, i64)]) -> KafkaResult<()> {
        for (_, partition, offset) in places {
            self.next.borrow_mut()[usize::try_from(*partition).unwrap()] = *offset;
        }
        Ok(())
    }

    fn read_back(&self, _: &str, _: Vec<i32>, _: usize, _: crate::log::Told) {}

    fn end(&self, _: &str, _: i32) -> Option<i64> {
        Some(self.end)
    }

    fn read_through(&self, _: &str, _: i32) -> Option<i64> {
        None
    }

    fn committed(&self, partitions: &[(String, i32)]) -> KafkaResult<Vec<Option<Committed>>> {
        Ok(vec![None; partitions.len()])
    }

    fn membership(&self) -> Option<()> {
        Some(())
    }

    fn leave(&self) {}
}

/// What was committed: how many records by topic, and how far the partitions are.
#[derive(Default)]
struct Kept {
    open: RefCell<Vec<String>>,
    all: RefCell<Vec<String>>,
    next: RefCell<BTreeMap<i32, i64>>,
    aborts: std::cell::Cell<u32>,
    end: i64,
    stop: CancellationToken,
}

impl Transactions for &Kept {
    type Membership = ();

    fn begin(&self) -> KafkaResult<()> {
        Ok(())
    }

    fn send_to(&self, _: Option<i32>, record: Outgoing<'_>, _: usize, _: bool) -> KafkaResult<()> {
        self.open.borrow_mut().push(record.topic.to_owned());
        Ok(())
    }

    fn partitions(&self, _: &str) -> KafkaResult<i32> {
        Ok(2)
    }

    fn any_failed(&self) -> bool {
        false
    }

    fn commit_with(&self, offsets: &[(&str, i32, Committed)], (): &()) -> KafkaResult<()> {
        self.all.borrow_mut().append(&mut self.open.borrow_mut());
        let next = &mut *self.next.borrow_mut();
        next.extend(offsets.iter().map(|(_, partition, to)| (*partition, to.offset)));
        if (0..2).all(|partition| next.get(&partition) == Some(&self.end)) {
            self.stop.cancel();
        }
        Ok(())
    }

    fn abort(&self) -> KafkaResult<Vec<(usize, RDKafkaErrorCode)>> {
        self.open.borrow_mut().clear();
        self.aborts.set(self.aborts.get() + 1);
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn many_records_at_which_docket_panics_hold_up_nobody_for_long() {
    let intake = intake();
    let kept = Kept { end: 40, ..Kept::default() };
    let log = Log { next: RefCell::default(), end: 40 };
    let began = Instant::now();
    let run = intake.over(|_| Ok(log), &kept, &kept.stop);
    tokio::time::timeout(Duration::from_secs(60), run)
        .await
        .unwrap()
        .map_err(|e| e.to_string())
        .unwrap();
    let all = kept.all.borrow();
    let of = |topic: &str| all.iter().filter(|to| to.as_str() == topic).count();
    assert_eq!((of("docket.p"), of("docket.p.rejects")), (40, 40));
    // Each three times, and none of them again for the next.
    assert_eq!(kept.aborts.get(), 3 * 40);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
