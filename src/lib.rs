//! tailcast: a realtime broadcast relay over Redis Streams.

pub mod relay;
pub mod store;
