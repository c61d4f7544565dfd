//! The machine: the only doors to the outside.
//!
//! Each file here is one door (`http` for the network, `process` and `dialog` for children, `workspace` for files that a model names,
//! `sys` for the kernel, `stop` for signals, `log` for the log) and knows nothing of agents, models or tools.

pub mod dialog;
pub mod http;
pub mod log;
pub mod process;
pub mod stop;
pub mod sys;
pub mod workspace;

use std::time::{Duration, Instant};

/// The point in time at which a blocking call must be over. Every door that can block takes one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `length` from now.
    pub fn after(length: Duration) -> Deadline {
        Deadline(Instant::now() + length)
    }

    /// The time that is left; zero once the deadline has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the deadline has passed.
    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}
