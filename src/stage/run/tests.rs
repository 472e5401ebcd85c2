use super::*;
use crate::config::secrets::Real;
use crate::log::mock::Mock;

fn pipeline(text: &str) -> Pipeline {
    pipeline_at("127.0.0.1:1", text)
}

fn pipeline_at(brokers: &str, text: &str) -> Pipeline {
    let text =
        format!("name: half\nkafka: {{brokers: '{brokers}'}}\nsources: [{{topic: t}}]\n{text}");
    let parsed = crate::pipeline::parse(std::path::Path::new("p.yaml"), &text, &Real);
    parsed.map_err(|e| e.to_string()).unwrap()
}

/// Parts that run, and each part's thread.
fn running(text: &str) -> (Process, Parts) {
    running_of(pipeline(text))
}

fn running_of(pipeline: Pipeline) -> (Process, Parts) {
    let process = Process::alone();
    let mut parts = Parts::new(pipeline, &process, Limits::default()).unwrap();
    parts.all().unwrap();
    (process, parts)
}

fn threads(parts: &Parts) -> BTreeMap<String, std::thread::ThreadId> {
    parts.running.iter().map(|(name, part)| (name.clone(), part.id())).collect()
}

async fn reload(parts: Parts, text: &str) -> (Result<Vec<String>, RunError>, Parts) {
    reload_of(parts, pipeline(text)).await
}

async fn reload_of(mut parts: Parts, new: Pipeline) -> (Result<Vec<String>, RunError>, Parts) {
    tokio::task::spawn_blocking(move || (parts.reload(new), parts)).await.unwrap()
}

async fn ended(process: Process, parts: Parts) {
    process.stop.cancel();
    tokio::task::spawn_blocking(|| parts.join()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_can_not_be_leaves_every_part_of_the_old_file_as_it_was() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let door = |listen: &str| {
        format!(
            "sinks: {{a: {{type: file, path: /tmp/y}}}}\ndoor: {{listen: '{listen}'}}\nlimits: {{record_bytes: 9MiB}}"
        )
    };
    let (process, parts) =
        running("sinks: {a: {type: file, path: /tmp/x}}\ndoor: {listen: '127.0.0.1:0'}");
    let (file, before) = (parts.pipeline.file.clone(), threads(&parts));
    assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "door", "intake"]);

    let (result, parts) = reload(parts, &door(&address.to_string())).await;
    let why = result.unwrap_err().to_string();
    assert!(why.contains(&address.to_string()) && why.contains("door.listen"), "{why}");
    assert_eq!(parts.pipeline.file, file);
    assert_eq!(threads(&parts), before, "a part was started again");

    // The metrics of the detector have their place taken.
    let _taken = spikes::Meters::new("half", &process.registry).unwrap();
    let spikes = "sinks: {a: {type: file, path: /tmp/y}}\nspikes: {}\nlimits: {record_bytes: 9MiB}";
    let (result, parts) = reload(parts, spikes).await;
    assert!(matches!(result, Err(RunError::Metrics { .. })), "{result:?}");
    assert_eq!(parts.pipeline.file, file);
    assert_eq!(threads(&parts), before, "a part was started again");

    // Whoever comes to the new address is let in from the first moment on.
    drop(taken);
    let (result, parts) = reload(parts, &door(&address.to_string())).await;
    assert_eq!(result.unwrap(), ["intake", "a", "door"]);
    std::net::TcpStream::connect(address).unwrap();
    assert!(threads(&parts).iter().all(|(name, thread)| before[name] != *thread));
    ended(process, parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_moves_on_its_port_or_the_old_one_opens_again() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let door = |host: &str| format!("door: {{listen: '{host}:{free}'}}");
    let (process, parts) = running(&door("127.0.0.1"));
    let (result, parts) = reload(parts, &door("0.0.0.0")).await;
    assert_eq!(result.unwrap(), ["door"]);
    std::net::TcpStream::connect(("127.0.0.1", free)).unwrap();
    // It is nobody's address here, which is not known before it is tried.
    let file = parts.pipeline.file.clone();
    let (result, parts) = reload(parts, &door("192.0.2.1")).await;
    assert!(matches!(result, Err(RunError::Door(_))), "{result:?}");
    assert_eq!(parts.pipeline.file, file);
    assert_eq!(parts.running.keys().collect::<Vec<_>>(), ["door", "intake"]);
    ended(process, parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_of_a_joined_pipeline_come_and_go_while_it_runs() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let docket = |of: &str| format!("docket.half{of}");
    let own = ["", ".rejects", ".pending", ".facts", ".amendments"].map(docket);
    let topics: Vec<_> = ["t", "f"].into_iter().chain(own.iter().map(String::as_str)).collect();
    let mock = Mock::start(&topics.iter().map(|topic| (*topic, 1)).collect::<Vec<_>>()).unwrap();
    let with = |sinks: &str| {
        let text = format!(
            "memory: {{budget: 400MiB}}\njoin: {{facts: [{{topic: f}}]}}\nsinks: {{a: {{type: file, path: /tmp/x}}{sinks}}}"
        );
        pipeline_at(&mock.bootstrap(), &text)
    };
    let (process, parts) = running_of(with(""));
    let before = threads(&parts);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "facts", "intake", "join"]);
    let search = ", s: {type: elasticsearch, url: 'http://127.0.0.1:1'}";
    let (result, parts) = reload_of(parts, with(search)).await;
    // There is less memory for each.
    assert_eq!(result.unwrap(), ["intake", "facts", "join", "a", "s", "s-amendments"]);
    assert!(threads(&parts).iter().all(|(name, thread)| before.get(name) != Some(thread)));
    let (result, parts) = reload_of(parts, with("")).await;
    result.unwrap();
    assert_eq!(threads(&parts).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    ended(process, parts).await;
}
