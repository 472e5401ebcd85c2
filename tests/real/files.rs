//! Two processes write to one file, and it is moved away and deleted under them, again and again: nothing is lost, and no line is torn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::delivery::feed;
use super::support::{Metrics, Place, Running, decision_id, generated};
use super::{address, pipeline};

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_to_one_file_that_is_rotated_under_them() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("rotated");
    // Small batches: one ends and another begins at any time.
    let sinks = "sinks: {out: {type: file, path: $DIR/out, delivery: {batch_records: 20, batch_age: 20ms, concurrency: 4}}}";
    let path = pipeline(&place, 4, &format!("docket: {{partitions: 4}}\n{sinks}")).await;
    let pair = [0, 1].map(|_| Running::start(&place, &path));
    for running in &pair {
        let mine =
            |m: &Metrics| m.sum("docket_rebalances_total", &["part=\"out\"", "assigned"]) > 0;
        running.until("it has joined", 60, mine).await;
    }
    let total = 12_000;
    let decisions = generated(total, 81);
    let wanted: Vec<String> = decisions.iter().map(|d| decision_id(d)).collect();
    let feeding =
        feed(&kafka, &format!("{}-source", place.name), decisions, Duration::from_secs(10));
    let out = place.path("out");
    let mut kept: Vec<PathBuf> = Vec::new();
    while !feeding.is_finished() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !out.exists() {
            continue;
        }
        let to = place.path(&format!("out.{}", kept.len()));
        // Moved away, as logrotate does; or deleted, and here it is kept only under another name.
        match kept.len() % 2 {
            0 => std::fs::rename(&out, &to).unwrap(),
            _ => {
                std::fs::hard_link(&out, &to).unwrap();
                std::fs::remove_file(&out).unwrap();
            }
        }
        kept.push(to);
    }
    feeding.join().unwrap();
    let mut delivered = [0, 0];
    super::support::until("both have delivered all", 60, async || {
        for (n, running) in delivered.iter_mut().zip(&pair) {
            *n = running.metrics().await.delivered("out");
        }
        if delivered.iter().sum::<u64>() >= total as u64 {
            Ok(())
        } else {
            Err(format!("{delivered:?}"))
        }
    })
    .await;
    assert!(delivered.iter().all(|n| *n > 0), "both wrote: {delivered:?}");
    for running in pair {
        let metrics = running.metrics().await;
        assert_eq!(metrics.sum("docket_part_restarts_total", &[]), 0);
        running.stop();
    }
    // It may have been moved away after the last line.
    kept.extend(Some(out).filter(|out| out.exists()));
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for file in &kept {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{} ends in a torn line", file.display());
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("{}: {e}: {line}", file.display()));
            let id = line["decision_id"].as_str().unwrap().to_owned();
            *times.entry(id).or_default() += 1;
        }
    }
    let missing = wanted.iter().filter(|id| !times.contains_key(*id)).count();
    let twice = times.values().filter(|n| **n > 1).count();
    println!("{} files, {delivered:?} delivered, {twice} more than once", kept.len());
    assert_eq!((missing, twice), (0, 0), "missing, and more than once, in {} files", kept.len());
    assert!(kept.len() > 10);
}
