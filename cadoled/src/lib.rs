//! The daemon of Cadole, and the development cluster made of it.
//!
//! The binary is thin: it reads a [`config`], wires the real host of `os` to `meta` or `node`, and
//! runs until it is told to stop. [`dev`] starts a whole cluster of such daemons on loopback.

// The binaries are where the machine begins: files, processes and signals are theirs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod ca;
pub mod config;
pub mod daemon;
pub mod dev;
