//! thoughtmesh-runtime.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod conversation;
mod host;
mod tools;

fn main() {}
