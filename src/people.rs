//! People: who is here, who may speak, and what a moderator says about it.

pub mod board;
