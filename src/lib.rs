//! tailcast: a realtime broadcast relay over Redis Streams.
//!
//! A room is one Redis stream; every node tails the streams of the rooms its sockets are in and
//! rebroadcasts each entry to them; a subscriber is a cursor. In reading order: [`relay`] is the
//! relay itself, [`auth`] tells who may do what, [`store`] keeps the streams, [`frontend`] and [`api`]
//! speak with clients, and [`node`] puts a whole node together from a [`config::Config`].

pub mod relay;

pub mod accounts;
pub mod auth;
pub mod people;
pub mod store;

pub mod api;
pub mod frontend;
pub mod ops;

mod web;

pub mod bench;
pub mod cli;
pub mod config;
pub mod drain;
pub mod metrics;
pub mod node;
pub mod server;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
