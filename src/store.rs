//! What keeps the streams: each module here implements [`crate::relay::log::Log`].

pub mod memory;
pub mod redis;
