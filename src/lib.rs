//! tailcast: a realtime broadcast relay over Redis Streams.

pub mod relay;
pub mod store;

pub mod api;
pub mod frontend;
pub mod ops;

pub mod bench;
pub mod drain;
pub mod metrics;
pub mod server;
