//! What the model may do.
//!
//! Each tool's name, description, parameters and code stand together in one file. A tool cannot end the run: whatever goes
//! wrong becomes a [`ToolError`], which the model reads as a tool result. Nothing here knows of models, the agent or the
//! journal.

pub mod excerpt;
pub mod files;
pub mod glob;
pub mod schema;
pub mod search;
pub mod shell;
pub mod walk;

use std::fmt;

/// Why a tool call did not do what was asked. Its reader is the model: it says what was refused or failed, and what to try
/// instead. It has no way of ending the run.
#[derive(Debug, PartialEq)]
pub enum ToolError {
    /// The arguments do not fit the tool's parameters.
    Arguments(String),
    /// The call was understood and is not allowed.
    Refused(String),
    /// The call was tried and failed.
    Failed(String),
}

impl fmt::Display for ToolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolError::Arguments(what) => write!(formatter, "bad arguments: {what}"),
            ToolError::Refused(what) => write!(formatter, "refused: {what}"),
            ToolError::Failed(what) => write!(formatter, "failed: {what}"),
        }
    }
}

impl std::error::Error for ToolError {}
