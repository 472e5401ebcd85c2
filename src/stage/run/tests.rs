use super::*;
use crate::config::secrets::Real;

fn pipeline(text: &str) -> Pipeline {
    let text =
        format!("name: half\nkafka: {{brokers: '127.0.0.1:1'}}\nsources: [{{topic: t}}]\n{text}");
    let parsed = crate::pipeline::parse(std::path::Path::new("p.yaml"), &text, &Real);
    parsed.map_err(|e| e.to_string()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_half_way_leaves_the_old_file_in_force_and_its_parts_running() {
    let process = Process::alone();
    let old = pipeline("sinks: {a: {type: file, path: /tmp/a}, b: {type: file, path: /tmp/b}}");
    let file = old.file.clone();
    let mut parts = Parts::new(old, &process, Limits::default()).unwrap();
    parts.all().unwrap();
    // The metrics of the detector have their place taken: it is the last that is started.
    let _taken = spikes::Meters::new("half", &process.registry).unwrap();
    let new = pipeline(
        "sinks: {a: {type: file, path: /tmp/c}}\nspikes: {}\nlimits: {record_bytes: 9MiB}",
    );
    let (result, parts) =
        tokio::task::spawn_blocking(move || (parts.reload(new), parts)).await.unwrap();
    assert!(matches!(result, Err(RunError::Metrics { .. })), "{result:?}");
    assert_eq!(parts.pipeline.file, file);
    assert_eq!(parts.running.keys().collect::<Vec<_>>(), ["a", "b", "intake"]);
    process.stop.cancel();
    tokio::task::spawn_blocking(|| parts.join()).await.unwrap();
}
