//! Clients that are slow, greedy or hostile.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::door::*;
use super::support::{Place, Running, generated, read_all, status, until};
use super::{address, pipeline, tls_client};

fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS").unwrap() << 10
}

/// Clients that never finish, and bodies that never end: memory stays bounded, and others are served.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_bombs_harm_nobody_else() {
    let _servers = super::alone().await;
    let place = Place::new("door-slow");
    let pipeline = pipeline(
        &place,
        4,
        "door: {listen: \"127.0.0.1:0\", limits: {connections: 200, requests: 64, bytes_in_flight: 32MiB, body: 3s}}\nlimits: {record_bytes: 8MiB}\n",
    )
    .await;
    let running = Running::start_with(&place, &pipeline, &["--only", "door"]);
    let at = opened(&running).await;
    let client = tls_client(false);
    let url = format!("http://{at}/logs");
    let decisions = generated(2000, 5);
    assert_eq!(upload(&client, &url, &decisions[..10]).await, Ok(200));
    let before = resident(running.pid());

    let stop = Arc::new(AtomicBool::new(false));
    // Half of them never finish their headers, half never their bodies: 500, where 200 connections are let in.
    let slow = {
        let (stop, at) = (stop.clone(), at.clone());
        std::thread::spawn(move || {
            let open = |i: usize| {
                let mut stream = TcpStream::connect(&at).ok()?;
                let head: &[u8] = if i.is_multiple_of(2) {
                    b"POST /logs HTTP/1.1\r\nhost: x\r\n"
                } else {
                    b"POST /logs HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n["
                };
                stream.write_all(head).ok()?;
                Some(stream)
            };
            let mut streams: Vec<Option<TcpStream>> = (0..500).map(open).collect();
            let mut closed = 0;
            while !stop.load(Ordering::Relaxed) {
                for (i, slot) in streams.iter_mut().enumerate() {
                    let gone = slot.as_mut().is_none_or(|s| s.write_all(b"x").is_err());
                    if gone {
                        closed += 1;
                        *slot = open(i);
                    }
                }
                std::thread::sleep(Duration::from_millis(500));
            }
            closed
        })
    };
    // 200 MB of nothing in 200 KB each, eight at a time.
    let bomb = Arc::new(gzip(&vec![b' '; 200 << 20]));
    let bombs: Vec<_> = (0..8)
        .map(|_| {
            let (stop, bomb, client, url) =
                (stop.clone(), bomb.clone(), client.clone(), url.clone());
            tokio::spawn(async move {
                let mut statuses = HashSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let request =
                        client.post(&url).header("content-encoding", "gzip").body(bomb.to_vec());
                    if let Ok(response) = request.send().await {
                        statuses.insert(response.status().as_u16());
                    }
                }
                statuses
            })
        })
        .collect();
    let mut worst = Duration::ZERO;
    let mut most = 0;
    for chunk in decisions[10..].chunks(10) {
        let began = Instant::now();
        // In line with bombs a second try is fair.
        until("an honest client is served", 20, async || {
            match upload(&client, &url, chunk).await {
                Ok(200) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        worst = worst.max(began.elapsed());
        most = most.max(resident(running.pid()));
    }
    stop.store(true, Ordering::Relaxed);
    let closed = tokio::task::spawn_blocking(move || slow.join().unwrap()).await.unwrap();
    for bomb in bombs {
        let statuses = bomb.await.unwrap();
        assert!(statuses.iter().all(|s| [413, 503].contains(s)), "{statuses:?}");
    }
    println!(
        "worst wait {worst:?}; {closed} slow connections closed; {} MiB resident, {} before",
        most >> 20,
        before >> 20
    );
    assert!(closed > 100, "{closed} slow connections were closed");
    assert!(most < before + (96 << 20), "{} MiB resident, {} before", most >> 20, before >> 20);
    let there = read_all(&address("KAFKA_BOOTSTRAP"), &format!("{}-source", place.name));
    assert_eq!(
        there
            .iter()
            .map(|r| id(std::str::from_utf8(&r.value).unwrap()))
            .collect::<HashSet<_>>()
            .len(),
        2000
    );
    running.stop();
}
