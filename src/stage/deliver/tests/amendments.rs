//! Amendments: what they are of may come later or never, and of several of one decision the last holds. Against a sink that answers as it is
//! told, and against a double of Elasticsearch.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};

use super::*;
use crate::correlate::record::amendment;
use crate::correlate::{Asked, Class, Matched};
use crate::facts::{Fact, Kind, Packed};
use crate::log::value::Value as Kept;
use crate::sink::any;
use crate::stage::deliver::amends::{Decisions, Places, Told as Asking};

/// A docket of one partition with ten records, and how far the sink's own group is: nothing while Kafka does not say.
#[derive(Default)]
struct Group(Mutex<Option<i64>>);

impl Group {
    fn is_at(&self, offset: Option<i64>) {
        *self.0.lock().unwrap() = offset;
    }

    fn told(&self, offset: i64) -> Asking<'static> {
        let known = self.0.lock().unwrap().is_some();
        Box::pin(std::future::ready(known.then(|| Places::from([(0, offset)]))))
    }
}

impl Decisions for Group {
    fn ends(&self) -> Asking<'_> {
        self.told(11)
    }

    fn finished<'a>(&'a self, _: &'a Places) -> Asking<'a> {
        let offset = *self.0.lock().unwrap();
        self.told(offset.unwrap_or_default())
    }
}

fn amending(sink: Arc<dyn AnySink>, group: &Arc<Group>) -> (Arc<Sending<Written>>, Written) {
    let plain = deliver(&Scripted::new(|_| Outcome::Delivered), None);
    let amends = Amends {
        sink: "s".into(),
        decisions: Some(group.clone()),
        patience: Duration::from_secs(120),
    };
    let delivery = Delivery {
        retry_initial: crate::config::units::Span(Duration::from_millis(10)),
        ..plain.delivery.clone()
    };
    let name = "s-amendments".into();
    let deliver = Deliver {
        name,
        sink,
        delivery,
        amends: Some(amends),
        max_age: None,
        too_old: None,
        ..plain
    };
    let written = Written::default();
    let sending = Sending::apart(Arc::new(deliver), written.clone(), CancellationToken::new());
    (Arc::new(sending), written)
}

fn counted(sending: &Sending<Written>, outcome: &str) -> u64 {
    sending.deliver.meters.delivered.with_label_values(&["s-amendments", outcome]).get()
}

/// The documents of these are there; of all others none is.
fn holding(there: &'static [&str]) -> impl Fn(&[String]) -> Outcome + Send + 'static {
    move |ids| Outcome::Changed(ids.iter().map(|id| Ok(there.contains(&id.as_str()))).collect())
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_waits_beside_others_until_the_decisions_are_past_it() {
    let (sink, group) = (Scripted::new(holding(&["a"])), Arc::new(Group::default()));
    group.is_at(Some(3));
    let (sending, rejects) = amending(sink.clone(), &group);
    let (waits, late) = delivered(&sending, &["a", "late", "never"]);
    pass(5).await;
    assert!(waits.load(Ordering::Relaxed) && !late.is_finished());
    assert_eq!(counted(&sending, "delivered"), 1);
    // Others go on meanwhile, and nothing is asked for again in vain.
    let requests = sink.requests();
    let (_, other) = delivered(&sending, &["a"]);
    assert!(other.await.unwrap());
    // The group is behind for an hour, and moves.
    for offset in 4..9 {
        group.is_at(Some(offset));
        pass(100).await;
    }
    assert!(!late.is_finished() && sink.requests() == requests + 1);
    // That is no stall, unless nobody knows how far it is.
    assert!(sending.awaits());
    group.is_at(None);
    pass(5).await;
    assert!(!sending.awaits());
    sink.answers(holding(&["a", "late"]));
    // The last offset is a transaction's marker.
    group.is_at(Some(10));
    assert!(late.await.unwrap());
    assert_eq!((counted(&sending, "delivered"), counted(&sending, "missing")), (3, 1));
    assert!(!sending.awaits());
    assert_eq!(rejects.all(), Vec::new());
    let failing = sending.deliver.meters.failing.with_label_values(&["s-amendments", "refused"]);
    assert_eq!(failing.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_never_comes_is_counted_once_the_decisions_stand_still() {
    let (sink, group) = (Scripted::new(holding(&[])), Arc::new(Group::default()));
    let (sending, rejects) = amending(sink.clone(), &group);
    let (_, never) = delivered(&sending, &["never"]);
    // While Kafka does not say how far they are, nothing is known.
    pass(3600).await;
    assert!(!never.is_finished());
    group.is_at(Some(3));
    pass(100).await;
    assert!(!never.is_finished());
    pass(60).await;
    assert!(never.is_finished() && never.await.unwrap());
    assert_eq!((counted(&sending, "missing"), rejects.all().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_stood_still_since_the_sink_was_down_is_waited_for_anew() {
    let (sink, group) = (Scripted::new(holding(&[])), Arc::new(Group::default()));
    group.is_at(Some(3));
    let (sending, _) = amending(sink.clone(), &group);
    let (_, late) = delivered(&sending, &["late"]);
    pass(10).await;
    // The sink goes down, and with it stand the decisions.
    sink.answers(|_| Outcome::Failed(Failure::retry(Cause::Connection, "nobody is there")));
    pass(3600).await;
    assert!(!late.is_finished());
    sink.answers(holding(&[]));
    pass(60).await;
    assert!(!late.is_finished(), "its decision is on its way by now");
    sink.answers(holding(&["late"]));
    group.is_at(Some(11));
    assert!(late.await.unwrap());
    assert_eq!((counted(&sending, "delivered"), counted(&sending, "missing")), (1, 0));
}

/// An index that answers bulk requests; what it is to answer to the next updates instead, and how many it got.
#[derive(Default)]
struct Index {
    documents: BTreeMap<String, Value>,
    instead: VecDeque<(u16, &'static str)>,
    updates: usize,
}

type Shared = Arc<Mutex<Index>>;

async fn bulk(State(index): State<Shared>, body: String) -> axum::Json<Value> {
    let mut index = index.lock().unwrap();
    let mut lines = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut items = Vec::new();
    while let (Some(action), Some(part)) = (lines.next(), lines.next()) {
        let id = action["update"]["_id"].as_str().unwrap().to_owned();
        index.updates += 1;
        let error = |status: u16, kind: &str| json!({ "status": status, "error": { "type": kind, "reason": "as it is told" } });
        let item = match (index.instead.pop_front(), index.documents.get_mut(&id)) {
            (Some((status, kind)), _) => error(status, kind),
            (None, None) => error(404, "document_missing_exception"),
            (None, Some(document)) => {
                let mut merged = document.clone();
                merge(&mut merged, part["doc"].clone());
                let same = std::mem::replace(document, merged.clone()) == merged;
                let shards = json!({ "total": 2, "successful": u8::from(!same), "failed": 0 });
                json!({ "status": 200, "result": if same { "noop" } else { "updated" }, "_shards": shards })
            }
        };
        items.push(json!({ "update": item }));
    }
    let errors = items.iter().any(|item| item["update"]["error"].is_object());
    axum::Json(json!({ "took": 1, "errors": errors, "items": items }))
}

fn merge(into: &mut Value, part: Value) {
    match (into, part) {
        (Value::Object(into), Value::Object(part)) => {
            for (name, value) in part {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, part) => *into = part,
    }
}

struct Elasticsearch {
    index: Shared,
    sink: Arc<dyn AnySink>,
}

impl Elasticsearch {
    async fn start() -> Elasticsearch {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let index = Shared::default();
        let router = Router::new().route("/docket-decisions/_bulk", post(bulk));
        let router = router.with_state(index.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = json!({ "type": "elasticsearch", "url": url, "compression": "none" });
        let config = serde_json::from_value(config).unwrap();
        Elasticsearch { index, sink: any::amender("s", &config).unwrap().unwrap() }
    }

    /// The decision's document is made.
    fn create(&self, id: &str) {
        let document = json!({ "decision_id": id, "docket": { "verdict": "allow" } });
        self.index.lock().unwrap().documents.insert(format!("{id}-{}", "00".repeat(10)), document);
    }

    fn path(&self, id: &str) -> Value {
        let index = self.index.lock().unwrap();
        index.documents[&format!("{id}-{}", "00".repeat(10))]["docket"]["request"]["path"].clone()
    }
}

/// Amendments by decision and path, from an offset on.
fn amendments(offset: i64, all: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::default();
    for (offset, (id, path)) in (offset..).zip(all) {
        let mut fact = Vec::new();
        Fact { path: (*path).into(), ..Fact::new(Kind::Access, 1, 2) }.pack(&mut fact);
        let matched = Matched { class: Class::RequestId, fact: Packed::of(&fact) };
        let mut raw = Vec::new();
        let doc = format!(r#"{{"decision_id":"{id}","timestamp":"2026-11-24T12:48:50Z"}}"#);
        let event = Event::parse(doc.as_bytes()).unwrap();
        record::write(&event, &[], None, &Rules::default(), &mut raw);
        let asked = Asked::of(&Record::parse(&raw).unwrap());
        let asked = Asked { contents: [Default::default()].into(), ..asked };
        let raw = amendment(&asked, &matched, true, &["s".to_owned()]);
        batch.push(Arc::new(Kept::new(&raw)), 0, offset, 0);
    }
    batch
}

fn sent(sending: &Arc<Sending<Written>>, mut batch: Batch) -> JoinHandle<bool> {
    let sending = sending.clone();
    tokio::spawn(async move {
        let (body, triage) = sending.triage(&mut batch, |_, _| Noted::New);
        let room = Mutex::new(Vec::new());
        let park = |permit: OwnedSemaphorePermit, _: usize| room.lock().unwrap().push(permit);
        sending.deliver(&mut batch, body, triage, &park).await
    })
}

async fn until(what: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(30), "in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_updated_whatever_elasticsearch_answers_before_it_does() {
    let (server, group) = (Elasticsearch::start().await, Arc::new(Group::default()));
    group.is_at(Some(10));
    let (sending, rejects) = amending(server.sink.clone(), &group);
    for id in ["a", "b", "c", "d"] {
        server.create(id);
    }
    server.index.lock().unwrap().instead = VecDeque::from([
        (409, "version_conflict_engine_exception"),
        (429, "es_rejected_execution_exception"),
        (403, "security_exception"),
        (400, "document_parsing_exception"),
    ]);
    let all = [("a", "/a"), ("b", "/b"), ("c", "/c"), ("d", "/d"), ("e", "/e")];
    assert!(sent(&sending, amendments(0, &all)).await.unwrap());
    for id in ["a", "b", "c", "d"] {
        assert_eq!(server.path(id), format!("/{id}"));
    }
    // There is no such decision, and no stub of one is made.
    assert_eq!((counted(&sending, "delivered"), counted(&sending, "missing")), (4, 1));
    assert_eq!(server.index.lock().unwrap().documents.len(), 4);
    assert_eq!(rejects.all(), Vec::new());
    // Once more, it changes nothing, and is acknowledged.
    assert!(sent(&sending, amendments(0, &all[..4])).await.unwrap());
    assert_eq!(counted(&sending, "delivered"), 8);
    // What is refused for what is in it goes to rejects, if others are taken.
    server.index.lock().unwrap().instead = VecDeque::from([(400, "document_parsing_exception")]);
    assert!(sent(&sending, amendments(5, &all[..2])).await.unwrap());
    assert_eq!(rejects.all().len(), 1);
    assert!(rejects.all()[0].0.contains(r#""decision_id":"a""#), "{:?}", rejects.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_amendments_of_a_decision_the_last_holds() {
    let (server, group) = (Elasticsearch::start().await, Arc::new(Group::default()));
    group.is_at(Some(3));
    let (sending, _) = amending(server.sink.clone(), &group);
    server.create("a");
    let twice = amendments(0, &[("a", "/likely"), ("b", "/likely"), ("a", "/exact")]);
    let waiting = sent(&sending, twice);
    until(|| server.index.lock().unwrap().updates == 2).await;
    until(|| counted(&sending, "delivered") == 1).await;
    assert_eq!((server.path("a"), counted(&sending, "superseded")), (json!("/exact"), 1));
    // The other one waits for its document, which comes; then one that is newer does not wait.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.create("b");
    assert!(sent(&sending, amendments(3, &[("b", "/exact")])).await.unwrap());
    assert_eq!(server.path("b"), "/exact");
    group.is_at(Some(10));
    assert!(waiting.await.unwrap());
    assert_eq!((server.path("b"), counted(&sending, "superseded")), (json!("/exact"), 2));
    assert_eq!(counted(&sending, "missing"), 0);
}
