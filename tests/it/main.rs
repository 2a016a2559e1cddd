//! The integration tests: one binary, so that the crate is linked once.

// A test that can't go on panics and says where; that is what these are for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod apps;
mod bench;
mod board;
mod checker;
mod closing;
mod conformance;
mod contract;
mod examples;
mod faults;
mod harness;
mod homepage;
mod imports;
mod js_client;
mod operators;
mod page;
mod people;
mod presence_sim;
mod simulation;
mod socketio;
mod sockjs;
mod status_page;
mod stomp;
mod structure;
mod tls;
mod together;
