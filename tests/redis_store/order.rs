//! The order of appends: what one lane appends to one room is stored in the order of the calls,
//! whatever is sent again. Held against a real server that forgets its scripts and cuts connections
//! all the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tailcast::relay::log::{Append, Lane, Limit, Log};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::append::messages;
use crate::harness::{Outcome, Server, room};

/// What one call asks for.
#[derive(Debug, Clone)]
struct Call {
    room: usize,
    key: bool,
    limit: bool,
    first: bool,
    size: usize,
}

/// What happens to the server meanwhile.
#[derive(Debug, Clone)]
struct Case {
    calls: Vec<Call>,
    /// Connections are cut so often; 0 is never.
    cut_ms: u64,
}

fn call() -> impl Strategy<Value = Call> {
    let size = prop_oneof![3 => Just(10), 1 => Just(3_000)];
    let shape = (0..3_usize, any::<bool>(), 0..4_u8, 0..5_u8, size);
    shape.prop_map(|(room, key, limit, first, size)| Call {
        room,
        key,
        limit: limit == 0,
        first: first == 0,
        size,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let calls = prop::collection::vec(call(), 1_000..2_000);
    let cut_ms = prop_oneof![Just(0_u64), Just(7)];
    (calls, cut_ms).prop_map(|(calls, cut_ms)| Case { calls, cut_ms })
}

fn submit(log: &dyn Log, name: &str, index: usize, call: &Call) -> oneshot::Receiver<Outcome> {
    let (tell, told) = oneshot::channel();
    let text = format!("{index} {}", "x".repeat(call.size));
    let limit = Limit {
        name: "u".into(),
        interval: Duration::from_millis(1),
        burst: 1_000_000,
    };
    log.append(Append {
        room: room(name),
        fields: Box::new([("message".into(), text.into())]),
        key: call.key.then(|| Bytes::from(format!("{name} {index}"))),
        limits: call.limit.then_some(limit).into_iter().collect(),
        lane: if call.first { Lane::First } else { Lane::Usual },
        deadline: Instant::now() + Duration::from_secs(20),
        done: Box::new(move |outcome| drop(tell.send(outcome))),
    });
    told
}

async fn hold(case: Case, turn: usize) -> Result<(), TestCaseError> {
    let server = Arc::new(Server::start(&[]).await);
    let log = server.log();
    // Another node loads the same script again and again.
    let other = server.log();
    let flushing = tokio::spawn({
        let server = server.clone();
        async move {
            let client = redis::Client::open(server.url()).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            loop {
                let flush = redis::cmd("SCRIPT").arg("FLUSH").to_owned();
                if flush.exec_async(&mut connection).await.is_err() {
                    connection = client.get_multiplexed_async_connection().await.unwrap();
                }
                sleep(Duration::from_micros(300)).await;
            }
        }
    });
    let cutting = (case.cut_ms > 0).then(|| {
        let (server, pause) = (server.clone(), Duration::from_millis(case.cut_ms));
        tokio::spawn(async move {
            // As many as the appends can stand, then it's quiet.
            for _ in 0..20 {
                sleep(pause).await;
                let _ = server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
            }
        })
    });
    let loading = tokio::spawn(async move {
        for index in 0.. {
            let call = Call {
                room: 0,
                key: true,
                limit: false,
                first: false,
                size: 1,
            };
            let _ = submit(&*other, "elsewhere", index, &call).await;
        }
    });
    let mut told = Vec::new();
    for (index, call) in case.calls.iter().enumerate() {
        let name = format!("{turn} {}", call.room);
        told.push(submit(&*log, &name, index, call));
        // In bursts, as a busy node has them.
        if index % 100 == 99 {
            sleep(Duration::from_millis(2)).await;
        }
    }
    let mut ids = HashMap::new();
    for (index, told) in told.into_iter().enumerate() {
        if let Ok(id) = told.await.unwrap() {
            ids.insert(index, id);
        }
    }
    flushing.abort();
    loading.abort();
    if let Some(cutting) = cutting {
        cutting.abort();
    }
    if case.cut_ms == 0 {
        prop_assert_eq!(ids.len(), case.calls.len(), "none was refused");
    }
    for number in 0..3 {
        let stored = messages(&*log, &format!("{turn} {number}")).await;
        let indices = stored
            .iter()
            .filter_map(|text| text.split(' ').next()?.parse().ok());
        let indices: Vec<usize> = indices.collect();
        for first in [true, false] {
            let lane = indices
                .iter()
                .filter(|index| case.calls[**index].first == first);
            let lane: Vec<usize> = lane.copied().collect();
            prop_assert!(
                lane.is_sorted_by(|a, b| a < b),
                "room {}: {:?}",
                number,
                lane
            );
        }
    }
    Ok(())
}

/// Mixed appends, with and without keys, limits and large bodies, in both lanes.
#[test]
fn a_lane_is_stored_in_the_order_of_its_calls_whatever_is_sent_again() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 6,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    });
    let turn = std::cell::Cell::new(0);
    runner
        .run(&case(), |case| {
            turn.set(turn.get() + 1);
            runtime.block_on(hold(case, turn.get()))
        })
        .unwrap();
}
