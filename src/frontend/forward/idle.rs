//! [`Idle`]: connections to other nodes that carry nothing just now, kept for the next request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::Way;

/// How long one is kept. A client that polls asks again at once; the other node waits for a request far
/// longer, so that it does not hang up just when one is sent.
const KEPT: Duration = Duration::from_secs(2);

/// Most that are kept, to all nodes together.
const KEPT_MAX: usize = 64;

/// Connections that rest.
#[derive(Default)]
pub(crate) struct Idle(Mutex<Resting>);

#[derive(Default)]
struct Resting {
    last: u64,
    /// A number, where to, and the connection, oldest first.
    ways: Vec<(u64, String, Way)>,
}

impl Idle {
    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One to that address, the one that was used last.
    pub(super) fn take(&self, address: &str) -> Option<Way> {
        let mut resting = self.resting();
        let is_good = |(_, to, way): &(u64, String, Way)| to == address && way.sender.is_ready();
        let at = resting.ways.iter().rposition(is_good)?;
        Some(resting.ways.remove(at).2)
    }

    /// Keeps one whose last answer was read to its end, for a while.
    pub(super) fn keep(self: &Arc<Self>, address: String, mut way: Way) {
        let idle = Arc::downgrade(self);
        tokio::spawn(async move {
            if way.sender.ready().await.is_err() {
                return;
            }
            let Some(number) = idle.upgrade().and_then(|idle| idle.add(address, way)) else {
                return;
            };
            sleep(KEPT).await;
            if let Some(idle) = idle.upgrade() {
                idle.resting().ways.retain(|(other, ..)| *other != number);
            }
        });
    }

    fn add(&self, address: String, way: Way) -> Option<u64> {
        let mut resting = self.resting();
        if resting.ways.len() >= KEPT_MAX {
            return None;
        }
        resting.last += 1;
        let number = resting.last;
        resting.ways.push((number, address, way));
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Body;
    use axum::http::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::Hop;
    use super::*;
    use crate::drain::Drain;

    /// Answers so many requests on each connection, and then hangs up.
    async fn server(each: usize, accepted: Arc<AtomicUsize>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    for _ in 0..each {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            match stream.read_u8().await {
                                Ok(byte) => head.push(byte),
                                Err(_) => return,
                            }
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        address
    }

    async fn check(each: usize, requests: usize, connections: usize) {
        let accepted = Arc::new(AtomicUsize::new(0));
        let address = server(each, accepted.clone()).await;
        let idle = Arc::new(Idle::default());
        for _ in 0..requests {
            let hop = Hop {
                address: address.clone(),
                patience: Duration::from_secs(30),
                max_body: 1000,
                drain: Drain::default(),
                idle: idle.clone(),
            };
            let (parts, body) = Request::new(Body::empty()).into_parts();
            assert_eq!(hop.request(parts, body).await.unwrap().status(), 200);
            // It's kept, or seen to have ended, by tasks of their own.
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(accepted.load(Ordering::SeqCst), connections);
        tokio::time::pause();
        sleep(KEPT * 2).await;
        assert!(idle.resting().ways.is_empty());
    }

    #[tokio::test]
    async fn one_connection_carries_many_requests() {
        check(usize::MAX, 4, 1).await;
    }

    #[tokio::test]
    async fn one_that_ended_is_replaced() {
        check(2, 4, 2).await;
    }
}
