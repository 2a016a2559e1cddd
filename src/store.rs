//! What keeps the streams: implementations of [`crate::relay::log::Log`].

pub mod redis;
