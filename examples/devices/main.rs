//! An application with users, each on any number of devices: every three seconds it sends a message to each
//! user who is online, by the next node in turn, and says which nodes there are.
//!
//! ```sh
//! examples/devices/run
//! ```
//!
//! or, with nodes that run already,
//!
//! ```sh
//! KEY=… cargo run --example devices -- user1,user2 http://127.0.0.1:8081 http://127.0.0.1:8082
//! ```

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Between messages.
const EVERY: Duration = Duration::from_secs(3);

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The application: what it needs to know of tailcast is an API key and where its nodes are.
pub(crate) struct App {
    agent: ureq::Agent,
    key: String,
    users: Vec<String>,
    nodes: Vec<String>,
}

impl App {
    /// An application with these users, over nodes at these URLs.
    pub(crate) fn new(key: &str, users: &[&str], nodes: &[String]) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .build();
        App {
            agent: config.into(),
            key: key.to_owned(),
            users: users.iter().map(|&user| user.to_owned()).collect(),
            nodes: nodes.to_vec(),
        }
    }

    /// Sends every user who is online the message of this number, through the node whose turn it is, and
    /// looks which nodes there are; through the next one if that does not answer. A line for each.
    pub(crate) fn round(&self, number: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for turn in 0..self.nodes.len() {
            let node = &self.nodes[(number + turn) % self.nodes.len()];
            match self.round_through(node, number) {
                Ok(told) => {
                    lines.extend(told);
                    return lines;
                }
                Err(error) => lines.push(format!("{node} failed: {error:#}")),
            }
        }
        lines
    }

    fn round_through(&self, node: &str, number: usize) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for user in &self.users {
            let devices = self.get(&format!("{node}/users/{user}"))?["devices"].clone();
            if devices == 0 {
                lines.push(format!("{user} is offline"));
                continue;
            }
            // A repeat under its key, through whichever node, is stored once.
            let message = json!({"message": format!("message {number} to {user}")});
            let sent = self
                .agent
                .post(format!("{node}/users/{user}"))
                .header("x-api-key", &self.key)
                .header("content-type", "application/json")
                .header("idempotency-key", format!("{number}"))
                .send(message.to_string());
            let id = read(sent)?["id"].clone();
            lines.push(format!(
                "{user} ({devices} devices) was sent {id} through {node}"
            ));
        }
        let nodes = self.get(&format!("{node}/nodes"))?;
        let names = nodes["nodes"].as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(|node| node["address"].as_str()).collect();
        lines.push(format!("nodes: {}", names.join(", ")));
        Ok(lines)
    }

    fn get(&self, url: &str) -> Result<Value> {
        read(self.agent.get(url).header("x-api-key", &self.key).call())
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let text = answer?.body_mut().read_to_string()?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ensure!(
        arguments.len() >= 2,
        "usage: KEY=… cargo run --example devices -- USER,… URL…"
    );
    let key = std::env::var("KEY").context("KEY has no API key of the nodes' --api-key")?;
    let users: Vec<&str> = arguments[0].split(',').collect();
    let app = App::new(&key, &users, &arguments[1..]);
    for number in 1.. {
        for line in app.round(number) {
            println!("{line}");
        }
        sleep(EVERY);
    }
    Ok(())
}
