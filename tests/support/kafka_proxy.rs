//! A proxy before a Kafka of one broker. It puts its own address in place of the broker's, and holds back a request to end a
//! transaction when it is told to: the client's connection is cut, and the request goes on to the broker later, as one does that was in a
//! network's queue. Or it cuts whatever connection a member's heartbeats, or its wishes to join, come on.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const END_TXN: i16 = 26;
const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;

#[derive(Default)]
struct State {
    target: String,
    port: u16,
    armed: AtomicBool,
    /// The request, and where it is to go.
    held: Mutex<Option<(Vec<u8>, OwnedWriteHalf)>>,
    /// How many requests to end a transaction were passed on.
    ends: AtomicUsize,
    /// The group that nobody stays in.
    shut: Mutex<Option<String>>,
}

impl State {
    fn is_cut(&self, frame: &[u8]) -> bool {
        let shut = self.shut.lock().unwrap();
        let names = |group: &String| frame.windows(group.len()).any(|w| w == group.as_bytes());
        matches!(api(frame), JOIN_GROUP | HEARTBEAT) && shut.as_ref().is_some_and(names)
    }
}

fn api(frame: &[u8]) -> i16 {
    i16::from_be_bytes([frame[4], frame[5]])
}

#[derive(Clone)]
pub struct KafkaProxy {
    pub bootstrap: String,
    state: Arc<State>,
}

impl KafkaProxy {
    /// Before a broker at 127.0.0.1.
    pub async fn start(target: &str) -> KafkaProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { target: target.to_owned(), port, ..State::default() });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let broker = TcpStream::connect(&shared.target).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_broker, to_broker) = broker.into_split();
                let cut = Arc::new(tokio::sync::Notify::new());
                tokio::spawn(back(from_broker, to_client, shared.clone(), cut.clone()));
                tokio::spawn(forth(from_client, to_broker, shared.clone(), cut));
            }
        });
        KafkaProxy { bootstrap: format!("127.0.0.1:{port}"), state }
    }

    /// Holds the next request to end a transaction back.
    pub fn hold_the_next_end(&self) {
        self.state.armed.store(true, Ordering::SeqCst);
    }

    /// Nobody stays in this group, or comes in; in none, nobody is kept out.
    pub fn shut(&self, group: Option<&str>) {
        *self.state.shut.lock().unwrap() = group.map(str::to_owned);
    }

    pub fn holds(&self) -> bool {
        self.state.held.lock().unwrap().is_some()
    }

    pub fn ends(&self) -> usize {
        self.state.ends.load(Ordering::SeqCst)
    }

    /// What was held back arrives at the broker. The connection stays open as long as what is returned.
    pub async fn release(&self) -> OwnedWriteHalf {
        let (frame, mut broker) = self.state.held.lock().unwrap().take().unwrap();
        broker.write_all(&frame).await.unwrap();
        broker
    }
}

async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

async fn forth(
    mut client: OwnedReadHalf,
    mut broker: OwnedWriteHalf,
    state: Arc<State>,
    cut: Arc<tokio::sync::Notify>,
) {
    while let Some(frame) = frame(&mut client).await {
        if state.is_cut(&frame) {
            return;
        }
        if api(&frame) == END_TXN {
            if state.armed.swap(false, Ordering::SeqCst) {
                *state.held.lock().unwrap() = Some((frame, broker));
                cut.notify_one();
                return;
            }
            state.ends.fetch_add(1, Ordering::SeqCst);
        }
        if broker.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn back(
    mut broker: OwnedReadHalf,
    client: OwnedWriteHalf,
    state: Arc<State>,
    cut: Arc<tokio::sync::Notify>,
) {
    let real: u16 = state.target.rsplit(':').next().unwrap().parse().unwrap();
    let address = |port: u16| [b"127.0.0.1".as_slice(), &i32::from(port).to_be_bytes()].concat();
    let (real, own) = (address(real), address(state.port));
    let mut client = Some(client);
    loop {
        let frame = tokio::select! {
            // The client's side is closed, the broker's goes on.
            () = cut.notified() => {
                client = None;
                continue;
            }
            frame = frame(&mut broker) => frame,
        };
        let Some(mut frame) = frame else { return };
        let mut at = 0;
        while let Some(found) = frame[at..].windows(real.len()).position(|w| w == real) {
            frame[at + found..at + found + own.len()].copy_from_slice(&own);
            at += found + own.len();
        }
        if let Some(out) = &mut client
            && out.write_all(&frame).await.is_err()
        {
            return;
        }
    }
}
