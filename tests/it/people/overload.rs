//! More than Redis takes: hosts and co-hosts go first, and are never refused for the others' sake.

use serde_json::{Value, json};

use super::{enter, start, token};

#[tokio::test]
async fn hosts_go_first_and_are_not_shed() {
    let settings = [
        "--publish-queue",
        "5",
        "--publish-timeout",
        "50s",
        "--rate",
        "",
    ];
    let (redis, [node]) = start::<1>(&settings);
    let mut member = enter(&node, &token("fan", "live=member"), "live", "").await;
    let mut host = enter(&node, &token("boss", "live=host"), "live", "").await;
    let mut cohost = enter(&node, &token("co", "live=cohost"), "live", "").await;
    redis.stop();
    let publish = |text: &str| json!({"type":"publish","message":text,"ref":text});
    for number in 0..12 {
        member.send_json(publish(&format!("fan {number}"))).await;
    }
    // What does not fit is refused at once, and nothing of it is stored.
    let mut refused = Vec::new();
    for _ in 0..7 {
        let frame = member.frame_of("error").await;
        assert_eq!(frame["code"], "busy", "{frame}");
        refused.push(frame["ref"].as_str().unwrap().to_owned());
    }
    for number in 0..2 {
        host.send_json(publish(&format!("boss {number}"))).await;
        cohost.send_json(publish(&format!("co {number}"))).await;
        // Read before the next is sent, so that all are queued while Redis stands still.
        host.send_json(json!({"type":"ping"})).await;
        cohost.send_json(json!({"type":"ping"})).await;
        assert_eq!(host.frame().await["type"], "pong");
        assert_eq!(cohost.frame().await["type"], "pong");
    }
    redis.cont();
    for number in 0..2 {
        let told = |frame: &Value, text: String| frame["type"] == "ack" && frame["ref"] == text;
        host.frame_that(|frame| told(frame, format!("boss {number}")))
            .await;
        cohost
            .frame_that(|frame| told(frame, format!("co {number}")))
            .await;
    }
    for _ in 0..5 {
        member.frame_of("ack").await;
    }
    let stored: Vec<String> = redis
        .entries("live")
        .into_iter()
        .map(|(_, message)| String::from_utf8(message.to_vec()).unwrap())
        .collect();
    assert_eq!(stored.len(), 9, "{stored:?}");
    assert!(
        stored.iter().all(|text| !refused.contains(text)),
        "{stored:?}"
    );
    // What was on the wire already comes first, then the leaders, and nobody in between.
    let leads = |text: &String| !text.starts_with("fan");
    let first = stored.iter().position(leads).unwrap();
    let last = stored.iter().rposition(leads).unwrap();
    assert_eq!(last - first, 3, "{stored:?}");
}
