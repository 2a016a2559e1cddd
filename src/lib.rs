//! tailcast: a realtime broadcast relay over Redis Streams.

pub mod bench;
pub mod relay;
pub mod store;
