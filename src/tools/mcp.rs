//! MCP servers as sources of tools: all of those that the configuration names, and their tools under one list of names.
//!
//! What one server is and how it is spoken with is in `mcp_server.rs`. A server's words are data: they reach the model as a
//! description or a result, and the log, and change nothing.

use std::time::{Duration, Instant};

use log::warn;
use serde_json::{Map, Value};

use super::ToolError;
use super::child::Surroundings;
use super::excerpt::excerpt;
use super::mcp_names::Given;
use super::mcp_server::{Server, Transport};
use crate::config::{Network, ToolEntry};
use crate::conversation::ToolSpec;
use crate::host::http::Roots;
use crate::host::{Deadline, stop};

/// Of the description of a tool.
const DESCRIPTION_BYTES_MAX: usize = 4096;
/// How long a child may take to end when its input is closed, and again when it is asked to; also how long all goodbyes over
/// HTTP may take together.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);
const CLOSE_CHECK_WAIT: Duration = Duration::from_millis(5);

/// All servers, and their tools under the names that the model sees.
#[derive(Default)]
pub struct Servers {
    all: Vec<Server>,
    offers: Vec<Offer>,
    /// Names that were offered before the list changed.
    gone: Vec<String>,
}

/// A tool of a server's, by its name there.
struct Offer {
    name: String,
    /// Its place among all.
    server: usize,
    tool: String,
}

impl Servers {
    /// Starts the servers of these entries, all of them before the first is waited for. Gives one line for each that is required
    /// and does not work, worded for the person.
    pub fn start(entries: Vec<(&ToolEntry, Surroundings)>, network: &Network, roots: &Roots) -> (Servers, Vec<String>) {
        let mut servers = Servers::default();
        let mut faults = Vec::new();
        let begun: Vec<_> = entries
            .into_iter()
            .map(|(entry, surroundings)| (entry, Server::begin(entry, surroundings, network, roots)))
            .collect();
        let now = Instant::now();
        for (entry, server) in begun {
            let started = server.and_then(|mut server| {
                // All of them are waited for at the same time.
                let patience = server.options.start_timeout.saturating_sub(now.elapsed());
                server.start(patience).map(|()| server)
            });
            match started {
                Ok(server) => servers.all.push(server),
                Err(what) if entry.is_required => faults.push(format!("{}: {}: {what}", entry.place, entry.name)),
                Err(what) => warn!("tool {}: not offered: {what}", entry.name),
            }
        }
        (servers, faults)
    }

    /// What the model sees. `taken` are names that it must not see twice.
    pub fn specs(&mut self, taken: &[&str]) -> Vec<ToolSpec> {
        let before = std::mem::take(&mut self.offers);
        let mut specs = Vec::new();
        let mut given = Given::new(taken);
        for (at, server) in self.all.iter().enumerate() {
            for tool in &server.tools {
                let Some(name) = given.name(&server.entry.name, &tool.name) else {
                    warn!("tool {}: {} is there twice, offered once", server.entry.name, server.desk.shown(&tool.name));
                    continue;
                };
                specs.push(ToolSpec {
                    name: name.clone(),
                    description: excerpt(&tool.description, DESCRIPTION_BYTES_MAX, ""),
                    parameters: tool.parameters.clone(),
                });
                self.offers.push(Offer { name, server: at, tool: tool.name.clone() });
            }
        }
        for Offer { name, .. } in before {
            if !self.had(&name) {
                self.gone.push(name);
            }
        }
        specs
    }

    /// Takes what the servers have said since the last turn. True when their tools are others now.
    pub fn refresh(&mut self) -> bool {
        let changed = self.all.iter_mut().filter_map(|server| server.refresh().then_some(()));
        changed.count() > 0
    }

    pub fn has(&self, name: &str) -> bool {
        self.offers.iter().any(|offer| offer.name == name)
    }

    /// Whether a tool was offered once and is not any more.
    pub fn had(&self, name: &str) -> bool {
        self.gone.iter().any(|gone| gone == name)
    }

    /// Whether calling this tool twice does no harm.
    pub fn is_repeatable(&self, name: &str) -> bool {
        let offer = self.offers.iter().find(|offer| offer.name == name);
        let tool =
            offer.and_then(|offer| self.all.get(offer.server)?.tools.iter().find(|tool| tool.name == offer.tool));
        tool.is_some_and(|tool| tool.is_repeatable)
    }

    /// Calls a tool.
    pub fn call(&mut self, name: &str, arguments: &Map<String, Value>) -> Result<String, ToolError> {
        let offer = self.offers.iter().find(|offer| offer.name == name);
        let found = offer.and_then(|offer| {
            let server = self.all.get_mut(offer.server)?;
            // It may be another one than when the model was told of it.
            let tool = server.tools.iter().find(|tool| tool.name == offer.tool)?.clone();
            Some((server, tool))
        });
        match found {
            Some((server, tool)) => server.call(&tool, arguments),
            None => Err(ToolError::Unknown(format!("there is no tool {name} any more"))),
        }
    }
}

impl Drop for Servers {
    /// Children are told by the end of their input, all at once; who does not end is asked to, then killed. A stop that comes
    /// meanwhile cuts this short.
    fn drop(&mut self) {
        let (mut children, mut peers) = (Vec::new(), Vec::new());
        for server in &mut self.all {
            match &mut server.transport {
                Transport::Stdio(stdio) => {
                    stdio.close();
                    children.push(stdio);
                }
                Transport::Http(http) => peers.push(http),
            }
        }
        let goodbyes = Deadline::after(CLOSE_WAIT_MAX);
        for http in peers {
            if !goodbyes.has_passed() && !stop::is_asked() {
                http.close();
            }
        }
        for is_last in [false, true] {
            let deadline = Deadline::after(CLOSE_WAIT_MAX);
            loop {
                children.retain_mut(|child| child.is_alive());
                if children.is_empty() || deadline.has_passed() || stop::is_asked() {
                    break;
                }
                std::thread::sleep(CLOSE_CHECK_WAIT);
            }
            if !is_last {
                children.iter().for_each(|child| child.ask_to_end());
            }
        }
        // Whoever is left is killed when it is dropped.
    }
}
