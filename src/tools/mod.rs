//! What the model may do.
//!
//! [`Toolbox`] is the list that the model sees, and the one match that runs a call. Each tool's name, description, parameters
//! and code stand together in one file. A tool cannot end the run: whatever goes wrong becomes a [`ToolError`], which the
//! model reads as a tool result. Nothing here knows of models, the agent or the journal.

mod child;
mod code_analyzer;
mod code_metrics;
mod command;
pub mod excerpt;
mod files;
pub mod finish;
mod git;
mod glob;
mod ignore;
mod mcp;
mod mcp_desk;
mod mcp_fault;
mod mcp_http;
mod mcp_names;
mod mcp_server;
mod mcp_stdio;
pub mod schema;
mod search;
mod shell;
mod walk;
mod web;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use log::warn;
use serde_json::{Map, Value};

use self::child::Surroundings;
use self::code_analyzer::CodeAnalyzer;
use self::files::FileTool;
use self::git::Git;
use self::mcp::Servers;
use self::shell::Shell;
use self::web::{Bounds, Web};
use crate::config::options::{CommandOptions, GitOptions};
use crate::config::{Config, Network, ToolEntry, ToolKind};
use crate::conversation::{ToolCall, ToolSpec, Tools};
use crate::host::http::Roots;
use crate::host::workspace::Workspace;
use crate::secret::Secrets;

/// How much of a name that does not exist is told back.
const TOOL_NAME_BYTES_SHOWN: usize = 64;
/// Names of tools that a sentence lists; servers offer any number.
const NAMES_MAX: usize = 100;

/// Why a tool call did not do what was asked. Its reader is the model: it says what was refused or failed, and what to try
/// instead. It has no way of ending the run.
#[derive(Debug, PartialEq)]
pub enum ToolError {
    /// There is no tool of that name.
    Unknown(String),
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
            ToolError::Unknown(what) => formatter.write_str(what),
            ToolError::Arguments(what) => write!(formatter, "bad arguments: {what}"),
            ToolError::Refused(what) => write!(formatter, "refused: {what}"),
            ToolError::Failed(what) => write!(formatter, "failed: {what}"),
        }
    }
}

impl std::error::Error for ToolError {}

/// The tools of this run.
pub struct Toolbox {
    /// What the model sees, `finish` first, the tools of servers last: they may change.
    specs: Tools,
    specs_bytes: usize,
    tools: Vec<Tool>,
    servers: Servers,
    workspace: Workspace,
    workspace_path: PathBuf,
    child_environment: Vec<(OsString, OsString)>,
    secrets: Secrets,
}

struct Tool {
    entry: ToolEntry,
    code: Code,
}

enum Code {
    File(FileTool),
    Shell(Shell),
    Command(CommandOptions),
    Git(Git),
    Web(Web),
    CodeAnalyzer(CodeAnalyzer),
}

impl Toolbox {
    /// Opens the workspace and probes every tool. Declared means required: a tool that cannot work here is an error, unless
    /// its entry says otherwise; then it is left out with a warning. The error has one line for each such tool.
    pub fn open(config: &Config, roots: &Roots) -> Result<Toolbox, Vec<String>> {
        let workspace =
            Workspace::open(&config.workspace).map_err(|error| vec![format!("THOUGHTMESH_WORKSPACE: {error}")])?;
        let mut toolbox = Toolbox {
            specs: Tools::default(),
            // The brackets, less the comma that the last one lacks.
            specs_bytes: 1,
            tools: Vec::new(),
            servers: Servers::default(),
            workspace,
            workspace_path: config.workspace.clone(),
            child_environment: config.child_environment.clone(),
            secrets: config.secrets.clone(),
        };
        toolbox.offer(finish::spec(&config.key_results));
        let mut faults = Vec::new();
        let (servers, others): (Vec<_>, Vec<_>) =
            config.tools.iter().partition(|entry| matches!(entry.kind, ToolKind::Mcp(_)));
        for entry in others {
            match toolbox.add(entry, &config.network, roots) {
                Ok(()) => {}
                Err(what) if entry.is_required => faults.push(format!("{}: {}: {what}", entry.place, entry.name)),
                Err(what) => warn!("tool {}: not offered: {what}", entry.name),
            }
        }
        if faults.is_empty() {
            let servers = servers.into_iter().map(|entry| (entry, toolbox.surroundings(entry))).collect();
            (toolbox.servers, faults) = Servers::start(servers, &config.network, roots);
            toolbox.add_servers();
        }
        if faults.is_empty() { Ok(toolbox) } else { Err(faults) }
    }

    /// Puts the tools of the servers behind ours, whose place does not change.
    fn add_servers(&mut self) {
        let own = self.specs.iter().take(1 + self.tools.len()).cloned().collect::<Vec<_>>();
        let taken: Vec<&str> = own.iter().map(|spec| spec.name.as_str()).collect();
        let servers = self.servers.specs(&taken);
        (self.specs, self.specs_bytes) = (Tools::default(), 1);
        own.into_iter().chain(servers).for_each(|spec| self.offer(spec));
    }

    /// Looks whether servers offer other tools now. To be called before a turn.
    pub fn refresh(&mut self) {
        if self.servers.refresh() {
            self.add_servers();
        }
    }

    fn add(&mut self, entry: &ToolEntry, network: &Network, roots: &Roots) -> Result<(), String> {
        for code in self.codes(entry, network, roots)? {
            let tool = Tool { entry: entry.clone(), code };
            match self.tools.iter().find(|other| other.name() == tool.name()) {
                // A tool that `filesystem` has brought already is offered once.
                Some(Tool { code: Code::File(_), .. }) if matches!(tool.code, Code::File(_)) => {}
                Some(_) => {
                    return Err("another entry brings a tool of the same name, give one of them another".to_owned());
                }
                None => {
                    self.offer(tool.spec());
                    self.tools.push(tool);
                }
            }
        }
        Ok(())
    }

    fn offer(&mut self, spec: ToolSpec) {
        self.specs_bytes += serde_json::to_vec(&spec).map_or(0, |json| json.len() + 1);
        Rc::make_mut(&mut self.specs).push(spec);
    }

    /// What an entry offers, if it can work here.
    fn codes(&self, entry: &ToolEntry, network: &Network, roots: &Roots) -> Result<Vec<Code>, String> {
        let environment = [&self.child_environment[..], &entry.environment].concat();
        let path = environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let path = path.unwrap_or_default();
        Ok(match &entry.kind {
            ToolKind::Filesystem => FileTool::ALL.map(Code::File).into(),
            ToolKind::File => {
                let file_tool = FileTool::from_name(&entry.name).ok_or("not a file tool")?;
                vec![Code::File(file_tool)]
            }
            ToolKind::Shell => vec![Code::Shell(Shell::probe(path)?)],
            ToolKind::Command(options) => {
                command::probe(options, &self.workspace_path, path)?;
                vec![Code::Command(options.clone())]
            }
            ToolKind::Git(options) => vec![Code::Git(Git::probe(*options, path, &self.surroundings(entry))?)],
            // They are started together.
            ToolKind::Mcp(_) => Vec::new(),
            ToolKind::HttpRequest(options) => vec![Code::Web(Web::new(options.clone(), network.clone(), roots))],
            // Without git it tells everything but what changes often.
            ToolKind::CodeAnalyzer => {
                let git = Git::probe(GitOptions::default(), path, &self.surroundings(entry)).ok();
                vec![Code::CodeAnalyzer(CodeAnalyzer::new(git))]
            }
        })
    }

    /// What the model sees: the same from the first turn to the last.
    pub fn specs(&self) -> &Tools {
        &self.specs
    }

    /// The size of what the model sees of the tools, about as it is sent.
    pub fn specs_bytes(&self) -> usize {
        self.specs_bytes
    }

    /// The names of the tools on one line, of many the first ones.
    pub fn describe(&self) -> String {
        let names: Vec<&str> = self.specs.iter().take(NAMES_MAX).map(|spec| spec.name.as_str()).collect();
        let more = match self.specs.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        names.join(", ") + &more
    }

    /// Whether a call of this tool may simply be run again, because it changes nothing, or its server says that it does no
    /// harm. True when there is no such tool.
    pub fn is_repeatable(&self, name: &str) -> bool {
        if self.servers.has(name) {
            return self.servers.is_repeatable(name);
        }
        self.tools.iter().filter(|tool| tool.name() == name).all(|tool| match &tool.code {
            Code::File(file_tool) => file_tool.is_read_only(),
            Code::CodeAnalyzer(_) => true,
            Code::Command(_) | Code::Git(_) | Code::Shell(_) | Code::Web(_) => false,
        })
    }

    /// Runs a call. The arguments fit the tool's schema when its code sees them.
    pub fn run(&mut self, call: &ToolCall) -> Result<String, ToolError> {
        let Some(spec) = self.specs.iter().find(|spec| spec.name == call.name) else {
            let names = self.describe();
            let name = excerpt::beginning(&call.name, TOOL_NAME_BYTES_SHOWN);
            let why = if self.servers.had(&call.name) { ", its server does not offer it any more" } else { "" };
            return Err(ToolError::Unknown(format!("there is no tool {name}{why}; the tools are: {names}")));
        };
        let arguments = call.arguments_object().map_err(ToolError::Arguments)?;
        let Some(tool) = self.tools.iter().find(|tool| tool.name() == call.name) else {
            // A server knows more of JSON Schema than we do.
            return self.servers.call(&call.name, &arguments);
        };
        let mistakes = schema::mistakes(&spec.parameters, &arguments);
        if !mistakes.is_empty() {
            return Err(ToolError::Arguments(mistakes.join("; ")));
        }
        self.run_checked(tool, &arguments)
    }

    fn run_checked(&self, tool: &Tool, arguments: &Map<String, Value>) -> Result<String, ToolError> {
        match &tool.code {
            Code::File(file_tool) => {
                file_tool.run(&self.workspace, arguments, tool.entry.output_bytes_max, &self.secrets)
            }
            Code::Shell(shell) => shell.run(arguments, &self.surroundings(&tool.entry)),
            Code::Command(options) => command::run(options, arguments, &self.surroundings(&tool.entry)),
            Code::Web(web) => web.run(arguments, &self.bounds(&tool.entry)),
            Code::CodeAnalyzer(analyzer) => analyzer.run(arguments, &self.workspace, &self.surroundings(&tool.entry)),
            Code::Git(git) => git.run(arguments, &self.workspace, &self.surroundings(&tool.entry)),
        }
    }

    fn bounds(&self, entry: &ToolEntry) -> Bounds<'_> {
        Bounds { timeout: entry.timeout, output_bytes_max: entry.output_bytes_max, secrets: &self.secrets }
    }

    fn surroundings(&self, entry: &ToolEntry) -> Surroundings {
        Surroundings {
            directory: self.workspace_path.clone(),
            environment: [&self.child_environment[..], &entry.environment].concat(),
            timeout: entry.timeout,
            output_bytes_max: entry.output_bytes_max,
            secrets: self.secrets.clone(),
        }
    }
}

impl Tool {
    fn name(&self) -> &str {
        match &self.code {
            Code::File(file_tool) => file_tool.name(),
            Code::Shell(_) => shell::NAME,
            Code::Command(_) => &self.entry.name,
            Code::Git(_) => git::NAME,
            Code::CodeAnalyzer(_) => code_analyzer::NAME,
            Code::Web(_) => web::NAME,
        }
    }

    fn spec(&self) -> ToolSpec {
        match &self.code {
            Code::File(file_tool) => file_tool.spec(),
            Code::Shell(_) => Shell::spec(self.entry.timeout),
            Code::Command(options) => command::spec(&self.entry.name, options),
            Code::Git(git) => git.spec(),
            Code::CodeAnalyzer(_) => CodeAnalyzer::spec(),
            Code::Web(web) => web.spec(),
        }
    }
}
