//! The Redis store against real servers, each started and killed by its test.

mod append;
mod harness;
mod tail;
