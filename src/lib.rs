//! tailcast: a realtime broadcast relay over Redis Streams.

pub mod bench;
pub mod cli;
pub mod config;
pub mod relay;
