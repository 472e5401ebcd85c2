//! Uploads decisions as OPA does: gzipped arrays, several clients at once, each again until it is taken. Decisions come from standard input, one a
//! line. Prints how long it took. For `benches/door`.
//!
//!   uploads URL DECISIONS_A_CHUNK CLIENTS
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args: Vec<String> = std::env::args().collect();
    let (url, chunk, clients) =
        (args[1].clone(), args[2].parse::<usize>().unwrap(), args[3].parse::<usize>().unwrap());
    let decisions: Vec<String> = std::io::stdin().lock().lines().map(Result::unwrap).collect();
    let body = |part: &[String]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        write!(encoder, "[{}]", part.join(",")).unwrap();
        bytes::Bytes::from(encoder.finish().unwrap())
    };
    let bodies: Arc<Vec<bytes::Bytes>> = Arc::new(decisions.chunks(chunk).map(body).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    let client = async |bodies: Arc<Vec<bytes::Bytes>>,
                        next: Arc<AtomicUsize>,
                        refused: Arc<AtomicUsize>,
                        url: String| {
        let http = reqwest::Client::new();
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
            loop {
                let request = http
                    .post(&url)
                    .header("content-encoding", "gzip")
                    .header("content-type", "application/json");
                if request
                    .body(body.clone())
                    .send()
                    .await
                    .is_ok_and(|response| response.status() == 200)
                {
                    break;
                }
                refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let began = Instant::now();
        let all: Vec<_> = (0..clients)
            .map(|_| client(bodies.clone(), next.clone(), refused.clone(), url.clone()))
            .collect();
        let local = tokio::task::LocalSet::new();
        for one in all {
            local.spawn_local(one);
        }
        local.await;
        println!(
            "{} {} {}",
            decisions.len(),
            began.elapsed().as_secs_f64(),
            refused.load(Ordering::Relaxed)
        );
    });
}
