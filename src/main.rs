//! thoughtmesh-runtime.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod conversation;
mod host;
#[cfg(test)]
mod testing;
mod tools;

fn main() {}
