//! `examples/stomp-chat`: its page in a real Chromium, through its nginx, on three nodes.

use serde_json::json;

use crate::harness::clients::Program;
use crate::harness::nginx::Nginx;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

#[test]
fn two_people_in_their_browsers() {
    let redis = RedisServer::start();
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::start(&redis.url())).collect();
    let nginx = Nginx::start("stomp-chat", &nodes);
    let mut arguments = vec![nginx.url("")];
    arguments.extend(nodes.iter().map(|node| node.url("")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut page = Program::node("stomp-chat/chat.mjs", &arguments);
    loop {
        let event = page.json();
        match event["event"].as_str().unwrap() {
            "step" => eprintln!("{}", event["name"]),
            "kill" => {
                nodes[event["node"].as_u64().unwrap() as usize].kill9();
                page.say(&json!({"done": true}).to_string());
            }
            "passed" => return,
            _ => panic!("{event}\n{}", nginx.log()),
        }
    }
}
