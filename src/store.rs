//! What keeps the streams: each module here implements [`crate::relay::log::Log`], but for
//! [`local`], which starts a Redis where there is none.

pub mod local;
pub mod memory;
mod rate;
pub mod redis;
