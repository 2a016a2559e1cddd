//! The applications that tailcast grew from, with the clients they had, and the examples that are them.

mod broadcast;
mod devices;
mod scripts;
mod stomp_chat;
