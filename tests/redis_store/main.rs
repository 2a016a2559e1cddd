//! The Redis store against real servers, each started and killed by its test.

// A failure here is a failed test, and that is what a panic says.
#![allow(clippy::unwrap_used)]

mod append;
mod harness;
mod order;
mod tail;
