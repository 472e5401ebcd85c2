mod amendments;

use std::path::Path;
use std::sync::atomic::AtomicUsize;

use rdkafka::message::Headers as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::repeats::Noted;
use super::*;
use crate::config::secrets::Real;
use crate::decision::event::Event;
use crate::decision::record::{self, Rules};
use crate::decision::time;
use crate::http::failure::{Cause, Failure};
use crate::log::{Committed, Gap, Outgoing, Value};
use crate::sink::{Outcome, Sink};

const PIPELINE: &str = "
name: p
kafka: {brokers: nowhere}
sources: [{topic: source}]
sinks: {s: {type: file, path: x, delivery: {concurrency: 1}}}
spikes: {}
";

type Answer = Box<dyn Fn(&[String]) -> Outcome + Send>;

/// A sink that answers as it is told, by the ids in a request; and how many requests it got.
struct Scripted(Mutex<Answer>, AtomicUsize);

impl Scripted {
    fn new(answer: impl Fn(&[String]) -> Outcome + Send + 'static) -> Arc<Scripted> {
        Arc::new(Scripted(Mutex::new(Box::new(answer)), AtomicUsize::new(0)))
    }

    fn answers(&self, answer: impl Fn(&[String]) -> Outcome + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(answer);
    }

    fn requests(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

/// A decision at which encoding panics.
const UNENCODED: &str = "unencoded";

impl Sink for Scripted {
    type Body = Vec<String>;

    fn encode(&self, batch: &[Record<'_>]) -> Vec<String> {
        assert!(batch.iter().all(|record| record.decision_id != UNENCODED), "no body");
        batch.iter().map(|record| record.decision_id.to_string()).collect()
    }

    fn size(body: &Vec<String>) -> usize {
        body.len()
    }

    async fn send(&self, body: &Vec<String>) -> Outcome {
        self.1.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
        // It may have panicked before.
        (self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))(body)
    }
}

/// Rejects: the content and the detail of each.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<(String, String)>>>);

impl Written {
    fn all(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().clone()
    }
}

impl RecordWriter for Written {
    async fn write(&self, record: Outgoing<'_>) -> KafkaResult<()> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let detail = record.headers.iter().find(|header| header.key == "docket-detail");
        let detail = detail.and_then(|header| header.value).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.0.lock().unwrap().push((text(record.payload), text(detail)));
        Ok(())
    }
}

fn deliver(sink: &Arc<Scripted>, too_old: Option<Arc<dyn Fallback>>) -> Deliver {
    let pipeline = crate::pipeline::parse(Path::new("p.yaml"), PIPELINE, &Real);
    let pipeline = Arc::new(pipeline.map_err(|e| e.to_string()).unwrap());
    Deliver {
        name: "s".into(),
        sink: sink.clone(),
        topic: pipeline.docket_topic(),
        amends: None,
        delivery: pipeline.file.sinks["s"].delivery().clone(),
        redaction: Redaction::default(),
        concurrency: 1,
        repeat_window: 0,
        reuse_window: 0,
        share: usize::MAX,
        max_age: Some(Duration::from_secs(86_400)),
        too_old,
        meters: Arc::new(Meters::new("p", &prometheus::Registry::new()).unwrap()),
        pipeline,
        health: Arc::default(),
        progress: Arc::default(),
        events: Arc::default(),
        runtime: Handle::current(),
        rejects_limit: None,
        shared: None,
        drain: Duration::ZERO,
        seed: 1,
    }
}

fn sending(
    sink: &Arc<Scripted>,
    too_old: Option<Arc<dyn Fallback>>,
) -> (Arc<Sending<Written>>, Written) {
    let (deliver, written) = (Arc::new(deliver(sink, too_old)), Written::default());
    let sending = Sending::apart(deliver, written.clone(), CancellationToken::new());
    (Arc::new(sending), written)
}

/// Decisions by id; those that begin with `old` are of years ago.
fn batch(ids: &[&str]) -> Batch {
    let mut batch = Batch::default();
    let today = time::format(now());
    for (offset, id) in ids.iter().enumerate() {
        let at = if id.starts_with("old") { "2020-01-01T00:00:00Z" } else { &today };
        let doc = format!(r#"{{"decision_id":"{id}","timestamp":"{at}"}}"#);
        let mut raw = Vec::new();
        let event = Event::parse(doc.as_bytes()).unwrap();
        record::write(&event, &[], None, &Rules::default(), &mut raw);
        batch.push(Arc::new(Value::new(&raw)), 0, offset as i64, 0);
    }
    batch
}

/// Delivers a batch as the loop does. Tells whether it waits beside others.
fn delivered(sending: &Arc<Sending<Written>>, ids: &[&str]) -> (Arc<AtomicBool>, JoinHandle<bool>) {
    let waits = Arc::new(AtomicBool::new(false));
    let (sending, told, mut batch) = (sending.clone(), waits.clone(), batch(ids));
    let task = tokio::spawn(async move {
        let (body, triage) = sending.triage(&mut batch, |_, _| Noted::New);
        let room = Mutex::new(Vec::new());
        let park = |permit: OwnedSemaphorePermit, _: usize| {
            room.lock().unwrap().push(permit);
            told.store(true, Ordering::Relaxed);
        };
        sending.deliver(&mut batch, body, triage, &park).await
    });
    (waits, task)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// 500 for what holds a poison.
fn fails(ids: &[String]) -> Outcome {
    match ids.iter().any(|id| id == "poison") {
        true => Outcome::Failed(Failure::retry(Cause::Server, "the server answered 500")),
        false => Outcome::Delivered,
    }
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

fn names(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_for_ever_waits_for_others_to_pass_and_is_rejected_then() {
    let sink = Scripted::new(fails);
    let (sending, rejects) = sending(&sink, None);
    let (waits, poison) = delivered(&sending, &["poison"]);
    pass(3600).await;
    // Nothing else was sent: the server may be down.
    assert!(waits.load(Ordering::Relaxed) && !poison.is_finished() && rejects.all().is_empty());
    for _ in 0..40 {
        let (_, other) = delivered(&sending, &["a", "b"]);
        assert!(other.await.unwrap());
        pass(31).await;
    }
    assert!(poison.await.unwrap());
    let rejects = rejects.all();
    assert_eq!(rejects.len(), 1);
    let (content, detail) = &rejects[0];
    assert!(content.contains("poison") && detail.contains("the server answered 500"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_a_batch_is_found_and_the_others_do_not_wait_for_it() {
    let sink = Scripted::new(fails);
    let (sending, rejects) = sending(&sink, None);
    let mut ids = numbered("d", 500);
    ids.push("poison".into());
    let (waits, task) = delivered(&sending, &names(&ids));
    pass(60).await;
    assert!(waits.load(Ordering::Relaxed) && !task.is_finished() && rejects.all().is_empty());
    let counter = sending.deliver.meters.delivered.with_label_values(&["s", "delivered"]);
    assert_eq!(counter.get(), 500);
    assert!(sink.requests() < 100, "{}", sink.requests());
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_refuses_everything_is_an_outage_until_it_takes_something() {
    let sink = Scripted::new(|_| Outcome::Failed(Failure::refused(400, "no")));
    let (sending, rejects) = sending(&sink, None);
    let (_, task) = delivered(&sending, &["a", "bad", "c", "d"]);
    pass(7200).await;
    assert_eq!((sending.refuses(), rejects.all().len()), (Some((400, 4)), 0));
    let failing = sending.deliver.meters.failing.with_label_values(&["s", "refused"]);
    assert_eq!(failing.get(), 1);
    // One in a quarter of a minute or so.
    assert!(sink.requests() < 1000, "{}", sink.requests());
    sink.answers(|ids| match ids.iter().any(|id| id == "bad") {
        true => Outcome::Failed(Failure::refused(400, "no")),
        false => Outcome::Delivered,
    });
    assert!(task.await.unwrap());
    assert_eq!((sending.refuses(), failing.get()), (None, 0));
    let rejects = rejects.all();
    assert!(rejects.len() == 1 && rejects[0].0.contains(r#""bad""#), "{rejects:?}");
}

#[tokio::test(start_paused = true)]
async fn items_that_are_all_refused_are_an_outage_too() {
    let refused = || Err(Failure::refused(400, "no"));
    let sink = Scripted::new(move |ids| Outcome::Each(ids.iter().map(|_| refused()).collect()));
    let (sending, rejects) = sending(&sink, None);
    let (_, task) = delivered(&sending, &["a", "b", "c"]);
    pass(600).await;
    assert!(!task.is_finished() && rejects.all().is_empty() && sending.refuses() == Some((400, 3)));
    task.abort();
    // One that is taken says that the others are refused for what they are.
    sink.answers(move |ids| {
        let one = |id: &String| if id == "good" { Ok(()) } else { refused() };
        Outcome::Each(ids.iter().map(one).collect())
    });
    let (_, task) = delivered(&sending, &["a", "good", "c"]);
    assert!(task.await.unwrap());
    assert_eq!((rejects.all().len(), sending.refuses()), (2, None));
}

#[tokio::test(start_paused = true)]
async fn rejects_are_written_at_once() {
    let sink = Scripted::new(|_| Outcome::Delivered);
    let (sending, rejects) = sending(&sink, None);
    let began = Instant::now();
    assert!(delivered(&sending, &names(&numbered("old", 128))).1.await.unwrap());
    assert_eq!(rejects.all().len(), 128);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_sink_for_what_is_too_old_holds_up_only_that() {
    let archive =
        Scripted::new(|_| Outcome::Failed(Failure::retry(Cause::Connection, "nobody is there")));
    let fallback: Arc<dyn Fallback> = sending(&archive, None).0;
    let sink = Scripted::new(|_| Outcome::Delivered);
    let (sending, rejects) = sending(&sink, Some(fallback));
    let (waits, task) = delivered(&sending, &["a", "old", "b"]);
    pass(60).await;
    let counter = |outcome| sending.deliver.meters.delivered.with_label_values(&["s", outcome]);
    assert_eq!(counter("delivered").get(), 2);
    assert!(waits.load(Ordering::Relaxed) && !task.is_finished());
    archive.answers(|ids| {
        assert_eq!(ids, ["old"]);
        Outcome::Delivered
    });
    assert!(task.await.unwrap());
    assert_eq!((counter("too_old").get(), rejects.all().len()), (1, 0));
}

/// A member of a group with one partition, which has these records; and what it commits.
struct OnePartition {
    records: std::cell::RefCell<VecDeque<Vec<u8>>>,
    watch: Watch,
    gaps: std::cell::RefCell<Vec<Gap>>,
    committed: Arc<Mutex<Vec<i64>>>,
}

impl OnePartition {
    fn new(batch: &Batch, watch: Watch) -> OnePartition {
        let records = batch.records.iter().map(|item| item.bytes().to_vec()).collect();
        let records = std::cell::RefCell::new(records);
        OnePartition { records, watch, gaps: Vec::new().into(), committed: Arc::default() }
    }
}

impl Commits for OnePartition {
    fn commit(&self, _: &str, offsets: &[(i32, i64)], _: bool) -> KafkaResult<()> {
        self.committed.lock().unwrap().extend(offsets.iter().map(|(_, offset)| *offset));
        Ok(())
    }
}

impl Reader for OnePartition {
    type Membership = ();

    async fn poll(
        &self,
        wait: Duration,
        take: &mut dyn FnMut(&Message<'_>),
    ) -> KafkaResult<Polled> {
        struct None;
        impl crate::log::Headers for None {
            fn pairs(&self) -> Vec<(&str, &[u8])> {
                Vec::new()
            }
        }
        let next = self.records.borrow_mut().pop_front();
        let Some(payload) = next else {
            tokio::time::sleep(wait).await;
            return Ok(Polled::Nothing);
        };
        if self.watch.offsets.lock().epoch(0).is_none() {
            self.watch.assigned(&[("docket.p".to_owned(), 0)]);
        }
        let offset = 10 - self.records.borrow().len() as i64;
        take(&Message {
            topic: "docket.p",
            partition: 0,
            offset,
            payload: &payload,
            headers: &None,
        });
        Ok(Polled::Message)
    }

    fn idle(&self) -> KafkaResult<()> {
        Ok(())
    }

    fn seek(&self, _: &[(&str, i32, i64)]) -> KafkaResult<()> {
        Ok(())
    }

    fn read_back(&self, _: &str, _: Vec<i32>, _: usize, _: crate::log::Told) {}

    fn end(&self, _: &str, _: i32) -> Option<i64> {
        None
    }

    fn gaps(&self) -> Vec<Gap> {
        self.gaps.take()
    }

    fn read_through(&self, _: &str, _: i32) -> Option<i64> {
        None
    }

    fn committed(&self, partitions: &[(String, i32)]) -> KafkaResult<Vec<Option<Committed>>> {
        Ok(vec![None; partitions.len()])
    }

    fn membership(&self) -> Option<()> {
        None
    }

    fn leave(&self) {}
}

/// Rejects that can't be written, or can.
struct Refusing(bool);

impl RecordWriter for Refusing {
    async fn write(&self, _: Outgoing<'_>) -> KafkaResult<()> {
        let refused = rdkafka::error::RDKafkaErrorCode::MessageTimedOut;
        if self.0 { Err(KafkaError::MessageProduction(refused)) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_past_a_gap_that_is_not_told() {
    for refusing in [false, true] {
        let sink = Scripted::new(|_| Outcome::Delivered);
        let drain = Duration::from_secs(5);
        let deliver = Arc::new(Deliver { drain, ..deliver(&sink, None) });
        let committed = Arc::<Mutex<Vec<i64>>>::default();
        let (stop, kept) = (CancellationToken::new(), committed.clone());
        let join = |watch| {
            let (cause, from, to) = (crate::resume::Cause::Retention, 2, Some(8));
            let gap = crate::resume::Gap { cause, from, to };
            let gap = Gap { topic: "docket.p".into(), partition: 0, gap, at: 8 };
            let one = OnePartition::new(&batch(&["a", "b", "c"]), watch);
            Ok(OnePartition { gaps: vec![gap].into(), committed: kept, ..one })
        };
        let ending = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(30)).await;
            ending.cancel();
        });
        deliver.over(join, Refusing(refusing), &stop).await.unwrap();
        let last = committed.lock().unwrap().last().copied();
        assert_eq!(last, (!refusing).then_some(11), "refusing {refusing}");
    }
}

/// Rejects at which docket panics.
struct Panicking;

impl RecordWriter for Panicking {
    async fn write(&self, _: Outgoing<'_>) -> KafkaResult<()> {
        panic!("simulated")
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_panics_ends_the_part_which_is_started_again() {
    let sink = Scripted::new(|_| Outcome::Delivered);
    let deliver = Arc::new(deliver(&sink, None));
    let stop = CancellationToken::new();
    let join = |watch| Ok(OnePartition::new(&batch(&["a", "old-b", "c"]), watch));
    let ended = tokio::time::timeout(Duration::from_secs(60), deliver.over(join, Panicking, &stop));
    assert!(matches!(ended.await, Ok(Err(DeliverError::Died))));
}

#[tokio::test(start_paused = true)]
async fn a_record_at_whose_request_or_answer_docket_panics_ends_alone() {
    let sink = Scripted::new(|ids| match ids.iter().any(|id| id == "bug") {
        true => panic!("simulated"),
        false => Outcome::Delivered,
    });
    let (sending, rejects) = sending(&sink, None);
    for bug in ["bug", UNENCODED] {
        let (_, bug) = delivered(&sending, &["a", bug, "b", "c"]);
        for _ in 0..40 {
            let (_, other) = delivered(&sending, &["d", "e"]);
            assert!(other.await.unwrap());
            pass(31).await;
        }
        assert!(bug.await.unwrap());
    }
    let rejects = rejects.all();
    assert_eq!(rejects.len(), 2, "{rejects:?}");
    for ((content, detail), (id, said)) in
        rejects.iter().zip([("bug", "simulated"), (UNENCODED, "no body")])
    {
        assert!(content.contains(id) && detail.contains(said), "{content}: {detail}");
    }
    let panics = sending.deliver.meters.requests.with_label_values(&["s", "panic"]);
    assert!(panics.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_decision_under_a_used_id_is_a_finding_now_and_then() {
    let sink = Scripted::new(|_| Outcome::Delivered);
    let (sending, written) = sending(&sink, None);
    let send = async |ids: &[&str]| {
        let mut batch = batch(ids);
        let (body, triage) = sending.triage(&mut batch, |_, _| Noted::Reused);
        assert!(sending.deliver(&mut batch, body, triage, &|_, _| {}).await);
    };
    send(&["a", "b"]).await;
    send(&["c"]).await;
    assert_eq!(written.all().len(), 1, "{:?}", written.all());
    let finding = Record::parse(written.all()[0].0.as_bytes()).map(|record| {
        let finding = crate::spike::record::event(&record, 0).unwrap();
        (finding.kind, finding.examples[0].decision_id.clone())
    });
    let kind = crate::spike::Kind::DecisionIdReused;
    assert_eq!(finding.ok(), Some((kind, "a".to_owned())));
    pass(600).await;
    send(&["d"]).await;
    assert_eq!(written.all().len(), 2);
    assert_eq!(sending.deliver.meters.reused.with_label_values(&["s"]).get(), 4);
}
