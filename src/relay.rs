//! The relay itself: rooms, cursors, replay, fan-out. It knows no sockets and no Redis.
//!
//! Read on in this order: [`entry`] and [`log`] say what everything is made of; `window` and
//! `follower` keep one stream's newest part in step with it; `room` puts them together;
//! `batch` and `page` turn a cursor into bytes; [`outlet`] and `fanout` write them; [`hub`]
//! and [`connection`] are what front ends call. [`listener`] is a subscriber inside this process,
//! and [`aside`] is what a room is told beside its stream.

pub mod aside;
pub mod entry;
pub mod format;
pub mod log;
pub mod position;

mod batch;
mod cursor;
mod fanout;
mod flight;
mod follower;
mod page;
mod registry;
mod room;
mod window;

pub mod close;
pub mod connection;
pub mod hub;
pub mod listener;
pub mod outlet;
pub mod stats;

pub use window::WindowLimits;

#[cfg(test)]
mod slow_log;
