//! What keeps the streams: each module here implements [`crate::relay::log::Log`], or starts
//! what does.

pub mod local;
