//! Tests from outside: they run the built executable against a scripted server, and hold the house's rules.
//!
//! In reading order: the harness, what the runtime is told, what it does, what comes out, and the tidy rules.
#![allow(clippy::unwrap_used)]

mod chat;
mod dialects;
mod mcp_server;
mod mcp_transports;
mod runtime;
mod server;
mod tls;
mod trace;

mod agent;
mod analyzer;
mod commands;
mod config;
mod context;
mod crash;
mod formats;
mod git;
mod http_tool;
mod limits;
mod mcp;
mod mcp_calls;
mod mcp_list;
mod mcp_start;
mod network;
mod output;
mod prompt;
mod providers;
mod resume;
mod stop;
mod tools;
mod vendors;
mod verdicts;
mod verifier;
mod wall;

mod tidy;
