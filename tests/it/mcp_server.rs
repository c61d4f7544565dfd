//! MCP servers, std only: what they answer follows from the method that is asked, in whatever order.
//!
//! A [`Manner`] says what a server is like, [`McpServer`] is one at work, over any of the transports (`mcp_transports.rs`).
//! Servers are as strict as the specification lets them be: what a client must not send is refused, and is a problem that
//! fails the test. What may surprise: a handler answers with [`Act`]s, which are played in a thread of their own, so that a
//! server can ask its client something in the middle of an answer.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mcp_transports::{self, Voice};
use crate::server::{Exchange, Request};

/// The revisions that begin with `initialize`, the newest first.
pub const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
pub const MODERN: &str = "2026-07-28";
/// Where the fields of a modern request stand in its `_meta`.
const META: &str = "io.modelcontextprotocol/";
/// The longest that a server waits for its client.
const AWAIT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transport {
    Stdio,
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE of 2024-11-05.
    EventStream,
}

/// What a server does when it is asked.
#[derive(Clone)]
pub enum Act {
    /// Sends a message.
    Send(Value),
    /// Sends these bytes, on stdout or in an event stream.
    Raw(Vec<u8>),
    Stderr(String),
    /// Waits for something that the client sends.
    Await(Arc<dyn Fn(&Seen) -> bool + Send + Sync>),
    Pause(Duration),
    ForgetSessions,
    /// This HTTP answer, in place of any other.
    Http(Exchange),
    /// Breaks the connection off, or ends the process with code 3.
    HangUp,
    /// Says nothing more and keeps the connection open.
    Silence,
}

impl Act {
    /// A notification of the server's.
    pub fn notify(method: &str, params: Value) -> Act {
        Act::Send(json!({"jsonrpc": "2.0", "method": method, "params": params}))
    }

    /// A request of the server's, and the wait for its answer.
    pub fn ask(id: Value, method: &str, params: Value) -> [Act; 2] {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        [Act::Send(request), Act::until(move |seen| seen.message["method"].is_null() && seen.message["id"] == id)]
    }

    pub fn until(is_it: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Act {
        Act::Await(Arc::new(is_it))
    }

    pub fn raw(text: &str) -> Act {
        Act::Raw(text.as_bytes().to_owned())
    }
}

/// Something that came from the client.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `null` for a request without a body.
    pub message: Value,
    /// The HTTP request; nothing over stdio.
    pub http: Option<Request>,
    /// Which connection, or which life of the child, from 0.
    pub connection: usize,
}

impl Seen {
    pub fn is(&self, method: &str) -> bool {
        self.message["method"] == method
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.http.as_ref()?.header(name)
    }
}

/// A request that a handler answers.
pub struct Call {
    pub message: Value,
    /// How many of this method there have been, this one included.
    pub count: usize,
    is_modern: bool,
}

impl Call {
    pub fn id(&self) -> Value {
        self.message["id"].clone()
    }

    pub fn params(&self) -> &Value {
        &self.message["params"]
    }

    /// The name of the tool that is called.
    pub fn tool(&self) -> &str {
        self.params()["name"].as_str().unwrap_or_default()
    }

    pub fn result(&self, mut result: Value) -> Act {
        if self.is_modern && result.is_object() {
            result["resultType"] = json!("complete");
        }
        Act::Send(json!({"jsonrpc": "2.0", "id": self.id(), "result": result}))
    }

    pub fn error(&self, code: i64, message: &str) -> Act {
        Act::Send(json!({"jsonrpc": "2.0", "id": self.id(), "error": {"code": code, "message": message}}))
    }

    /// A result of one text.
    pub fn text(&self, text: &str) -> Act {
        self.result(json!({"content": [{"type": "text", "text": text}]}))
    }
}

pub type Handler = Arc<dyn Fn(&Call) -> Vec<Act> + Send + Sync>;

/// What a server is like.
pub struct Manner {
    pub transport: Transport,
    /// Of [`LEGACY`]; it answers with the first one when it does not know what it is asked for.
    versions: Vec<&'static str>,
    is_modern: bool,
    has_sessions: bool,
    pub answers_json: bool,
    /// It says that its list may change.
    list_changes: bool,
    tools: Vec<Value>,
    handlers: BTreeMap<String, Handler>,
    pub greeting: Vec<Act>,
    /// A header that every request must have.
    demand: Option<(String, String)>,
    /// What the endpoint event says; `{url}` is the server's own.
    pub endpoint: String,
    pub ignores_end_of_input: bool,
    /// A shell script that starts the child, which is `"$@"`.
    wrapper: Option<String>,
}

impl Manner {
    fn new(transport: Transport, versions: &[&'static str]) -> Manner {
        Manner {
            transport,
            versions: versions.to_vec(),
            is_modern: false,
            has_sessions: true,
            answers_json: false,
            list_changes: false,
            tools: vec![tool("echo")],
            handlers: BTreeMap::new(),
            greeting: Vec::new(),
            demand: None,
            endpoint: "/messages?session_id=5f".to_owned(),
            ignores_end_of_input: false,
            wrapper: None,
        }
    }

    /// A child process.
    pub fn stdio() -> Manner {
        Manner::new(Transport::Stdio, &LEGACY)
    }

    /// Streamable HTTP with sessions, answering with event streams.
    pub fn http() -> Manner {
        Manner::new(Transport::Http, &LEGACY[..3])
    }

    /// The older HTTP+SSE.
    pub fn event_stream() -> Manner {
        Manner::new(Transport::EventStream, &LEGACY[3..])
    }

    /// One legacy server for each transport.
    pub fn each() -> [Manner; 3] {
        [Manner::stdio(), Manner::http(), Manner::event_stream()]
    }

    /// It speaks these versions of the older kind and no other.
    pub fn versions(self, versions: &[&'static str]) -> Manner {
        Manner { versions: versions.to_vec(), ..self }
    }

    /// It speaks the newest revision as well.
    pub fn and_modern(self) -> Manner {
        Manner { is_modern: true, ..self }
    }

    /// It speaks the newest revision and no other.
    pub fn modern(self) -> Manner {
        Manner { is_modern: true, versions: Vec::new(), ..self }
    }

    pub fn without_sessions(self) -> Manner {
        Manner { has_sessions: false, ..self }
    }

    pub fn answers_json(self) -> Manner {
        Manner { answers_json: true, ..self }
    }

    pub fn list_changes(self) -> Manner {
        Manner { list_changes: true, ..self }
    }

    pub fn tools(self, tools: impl IntoIterator<Item = Value>) -> Manner {
        Manner { tools: tools.into_iter().collect(), ..self }
    }

    /// Answers a method in this way; `GET` and `DELETE` are methods too.
    pub fn on(mut self, method: &str, handler: impl Fn(&Call) -> Vec<Act> + Send + Sync + 'static) -> Manner {
        self.handlers.insert(method.to_owned(), Arc::new(handler));
        self
    }

    /// Each call gets this result.
    pub fn results_in(self, result: Value) -> Manner {
        self.on("tools/call", move |call| vec![call.result(result.clone())])
    }

    /// The child does this before it is asked anything.
    pub fn greets(self, greeting: impl IntoIterator<Item = Act>) -> Manner {
        Manner { greeting: greeting.into_iter().collect(), ..self }
    }

    pub fn demands(self, header: &str, value: &str) -> Manner {
        Manner { demand: Some((header.to_owned(), value.to_owned())), ..self }
    }

    pub fn endpoint(self, endpoint: &str) -> Manner {
        Manner { endpoint: endpoint.to_owned(), ..self }
    }

    /// The child goes on when its stdin is closed.
    pub fn ignores_end_of_input(self) -> Manner {
        Manner { ignores_end_of_input: true, ..self }
    }

    /// The child is started by a shell, with this script.
    pub fn wrapped(self, script: &str) -> Manner {
        Manner { wrapper: Some(script.to_owned()), ..self }
    }

    pub fn start(self) -> McpServer {
        self.start_at(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn start_at(self, listener: TcpListener) -> McpServer {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { manner: self, state: Mutex::default(), changed: Condvar::new() });
        let listening = std::thread::spawn({
            let shared = shared.clone();
            move || mcp_transports::listen(&listener, &shared)
        });
        McpServer { address, shared, listening: Some(listening) }
    }
}

/// A tool that takes a text, or whatever it is given.
pub fn tool(name: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    json!({"name": name, "description": format!("The tool {name}."), "inputSchema": schema})
}

/// The same with these annotations.
pub fn annotated(name: &str, annotations: Value) -> Value {
    let mut tool = tool(name);
    tool["annotations"] = annotations;
    tool
}

/// What the threads of a server share.
pub struct Shared {
    pub manner: Manner,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub struct State {
    pub seen: Vec<Seen>,
    problems: Vec<String>,
    pub streams: Vec<TcpStream>,
    counts: BTreeMap<String, usize>,
    sessions: Vec<String>,
    sessions_begun: usize,
    version: String,
    is_initialized: bool,
    /// The stream of the older HTTP+SSE that is open.
    pub events: Option<Voice>,
    /// What each life of the child said of itself.
    pub hellos: Vec<String>,
    pub inputs_closed: usize,
    pub is_over: bool,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn problem(&self, what: String) {
        self.state().problems.push(what);
    }

    pub fn record(&self, seen: Seen) {
        self.state().seen.push(seen);
        self.changed.notify_all();
    }

    pub fn changed(&self) {
        self.changed.notify_all();
    }

    /// Waits for something to come from the client; says whether it came before the server's end.
    fn waits_for(&self, is_it: &dyn Fn(&Seen) -> bool) -> bool {
        let is_there = |state: &State| state.seen.iter().any(is_it);
        let timeout = AWAIT_TIMEOUT;
        let waiting = |state: &mut State| !state.is_over && !is_there(state);
        let (state, _) = self.changed.wait_timeout_while(self.state(), timeout, waiting).unwrap();
        is_there(&state) || state.is_over
    }

    /// Plays what stands before the end, which is the last act if it is one.
    pub fn play(&self, acts: &[Act], voice: &Voice) -> std::io::Result<()> {
        for act in acts {
            match act {
                Act::Send(message) => voice.message(message)?,
                Act::Raw(bytes) => voice.raw(bytes)?,
                Act::Stderr(text) => voice.stderr(text)?,
                Act::Await(is_it) if !self.waits_for(is_it.as_ref()) => {
                    self.problem(format!("waited {AWAIT_TIMEOUT:?} in vain for the client"));
                }
                Act::Await(_) => {}
                Act::Pause(time) => std::thread::sleep(*time),
                Act::ForgetSessions => self.state().sessions.clear(),
                Act::Http(_) => self.problem("an HTTP answer where there is none to give".to_owned()),
                Act::HangUp => {
                    self.state().events = None;
                    voice.hang_up();
                }
                Act::Silence => {}
            }
        }
        Ok(())
    }

    /// What a request is answered with.
    pub fn acts(&self, message: &Value) -> Vec<Act> {
        let method = message["method"].as_str().unwrap_or_default();
        let count = {
            let mut state = self.state();
            let count = state.counts.entry(method.to_owned()).or_default();
            *count += 1;
            *count
        };
        let call = Call { message: message.clone(), count, is_modern: is_modern(message) };
        self.note_handshake(&call, method);
        match self.manner.handlers.get(method) {
            Some(handler) => handler(&call),
            None => vec![self.answer(&call, method)],
        }
    }

    pub fn handles(&self, method: &str) -> bool {
        self.manner.handlers.contains_key(method)
    }

    /// Whether its errors have HTTP statuses of their own, as in the newest revision.
    pub fn has_statuses(&self, message: &Value) -> bool {
        is_modern(message) || self.manner.versions.is_empty()
    }

    fn answer(&self, call: &Call, method: &str) -> Act {
        let mut capabilities = json!({"tools": {}});
        if self.manner.list_changes {
            capabilities["tools"]["listChanged"] = json!(true);
        }
        let server = json!({"name": "test-server", "version": "1.0"});
        let all_versions = [&[MODERN], &self.manner.versions[..]].concat();
        match method {
            "initialize" if !self.manner.versions.is_empty() => {
                let version = self.version_for(call);
                call.result(json!({"protocolVersion": version, "capabilities": capabilities, "serverInfo": server}))
            }
            "server/discover" if call.is_modern && self.manner.is_modern => call.result(json!({
                "supportedVersions": all_versions, "capabilities": capabilities,
                "ttlMs": 60000, "cacheScope": "private", "_meta": {format!("{META}serverInfo"): server},
            })),
            _ if !call.is_modern && self.manner.versions.is_empty() => unsupported(call, &json!(null)),
            "tools/list" if call.is_modern => {
                call.result(json!({"tools": self.manner.tools, "ttlMs": 60000, "cacheScope": "private"}))
            }
            "tools/list" => call.result(json!({"tools": self.manner.tools})),
            "tools/call" if self.manner.tools.iter().any(|tool| tool["name"] == call.params()["name"]) => {
                call.text(&format!("{} was called with {}", call.tool(), call.params()["arguments"]))
            }
            "tools/call" => call.error(-32602, "Unknown tool"),
            "ping" if !call.is_modern => call.result(json!({})),
            _ => call.error(-32601, "Method not found"),
        }
    }

    fn version_for(&self, call: &Call) -> &'static str {
        let asked = &call.params()["protocolVersion"];
        let version = self.manner.versions.iter().find(|version| *version == asked);
        version.unwrap_or(&self.manner.versions[0])
    }

    fn note_handshake(&self, call: &Call, method: &str) {
        if call.is_modern || self.manner.versions.is_empty() {
            return;
        }
        let version = self.version_for(call);
        let mut state = self.state();
        match method {
            "initialize" => (state.version, state.is_initialized) = (version.to_owned(), false),
            "notifications/initialized" => state.is_initialized = true,
            "ping" | "server/discover" | "GET" | "POST" | "DELETE" => {}
            _ if !state.is_initialized => state.problems.push(format!("{method} before it was initialized")),
            _ => {}
        }
    }

    /// The session that begins with the answer to `initialize`.
    pub fn new_session(&self) -> Option<String> {
        let mut state = self.state();
        state.sessions_begun += 1;
        let session = format!("session-{}", state.sessions_begun);
        state.sessions.push(session.clone());
        self.manner.has_sessions.then_some(session)
    }

    /// Holds a request of streamable HTTP to the specification; what it is refused with.
    pub fn refusal(&self, request: &Request) -> Option<Exchange> {
        let message = request.json();
        let is_modern = is_modern(&message);
        if request.method == "POST" {
            self.check_post(request, &message);
        }
        match (is_modern, self.manner.is_modern) {
            (true, true) => self.check_modern(request, &message),
            // As official servers refuse what has no session.
            (true, false) => Some(bad_request("Bad Request: Server not initialized")),
            (false, _) if self.manner.versions.is_empty() => None,
            (false, _) => self.check_session(request, &message),
        }
    }

    fn check_post(&self, request: &Request, message: &Value) {
        let header = |name: &str| request.header(name).unwrap_or_default();
        let accepts = ["application/json", "text/event-stream"].iter().all(|kind| header("accept").contains(kind));
        let mut flaws = flaws(message);
        for (is_wrong, what) in [
            (!accepts, "Accept must name both types"),
            (!header("content-type").starts_with("application/json"), "Content-Type"),
            (request.header("origin").is_some(), "Origin was sent"),
            (request.path.contains('?') && self.manner.transport == Transport::Http, "a query was added"),
        ] {
            if is_wrong {
                flaws.push(what.to_owned());
            }
        }
        flaws.into_iter().for_each(|flaw| self.problem(format!("{flaw}: {}", request.text())));
    }

    fn check_modern(&self, request: &Request, message: &Value) -> Option<Exchange> {
        let meta = |name: &str| &message["params"]["_meta"][format!("{META}{name}")];
        let header = |name: &str| request.header(name).map(|value| json!(value)).unwrap_or_default();
        let name = &message["params"]["name"];
        if meta("protocolVersion") != MODERN {
            let call = Call { message: message.clone(), count: 0, is_modern: true };
            let Act::Send(error) = unsupported(&call, meta("protocolVersion")) else { return None };
            return Some(Exchange::json(400, &error));
        }
        for (is_wrong, what) in [
            (!meta("clientCapabilities").is_object(), "no clientCapabilities"),
            (header("mcp-protocol-version") != *meta("protocolVersion"), "MCP-Protocol-Version is not that of _meta"),
            (header("mcp-method") != message["method"], "Mcp-Method is not the method"),
            (message["method"] == "tools/call" && name.is_string() && header("mcp-name").is_null(), "no Mcp-Name"),
            (header("mcp-session-id") != Value::Null, "a session where there is none"),
        ] {
            if is_wrong {
                self.problem(format!("{what}: {}", request.text()));
                return Some(bad_request(what));
            }
        }
        None
    }

    fn check_session(&self, request: &Request, message: &Value) -> Option<Exchange> {
        let session = request.header("mcp-session-id");
        let version = request.header("mcp-protocol-version");
        let state = self.state();
        let (spoken, is_initialized) = (state.version.clone(), state.is_initialized);
        let is_known = state.sessions.iter().any(|known| Some(known.as_str()) == session);
        drop(state);
        if message["method"] == "initialize" {
            if session.is_some() {
                self.problem("initialize with a session".to_owned());
            }
            return None;
        }
        if self.manner.has_sessions && session.is_some() && !is_known {
            return Some(Exchange::json(404, &jsonrpc_error(-32001, "Session not found")));
        }
        // A client that is asked something before the handshake is over knows neither.
        if message["method"].is_null() && !message.is_null() && !is_initialized {
            return None;
        }
        let needs_version = spoken.as_str() >= "2025-06-18";
        for (is_wrong, what) in [
            (self.manner.has_sessions != session.is_some(), "Bad Request: Mcp-Session-Id header"),
            (needs_version && version.is_none(), "Bad Request: MCP-Protocol-Version header is required"),
            (version.is_some_and(|version| version != spoken), "Bad Request: MCP-Protocol-Version is another"),
        ] {
            if is_wrong {
                self.problem(format!("{what}: {}", request.text()));
                return Some(bad_request(what));
            }
        }
        None
    }

    /// What a request without the right header is refused with.
    pub fn unauthorized(&self, request: &Request) -> Option<Exchange> {
        let (name, value) = self.manner.demand.as_ref()?;
        let challenge = "Bearer resource_metadata=\"https://auth.invalid/\", scope=\"tools\"";
        (request.header(name) != Some(value))
            .then(|| Exchange::json(401, &json!({"error": "invalid_token"})).header("WWW-Authenticate", challenge))
    }
}

fn is_modern(message: &Value) -> bool {
    message["params"]["_meta"].get(format!("{META}protocolVersion")).is_some()
}

fn unsupported(call: &Call, requested: &Value) -> Act {
    let data = json!({"supported": [MODERN], "requested": requested});
    let error = json!({"code": -32022, "message": "Unsupported protocol version", "data": data});
    Act::Send(json!({"jsonrpc": "2.0", "id": call.id(), "error": error}))
}

fn jsonrpc_error(code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}})
}

fn bad_request(message: &str) -> Exchange {
    Exchange::json(400, &jsonrpc_error(-32000, message))
}

/// What is wrong with a message of a client's.
pub fn flaws(message: &Value) -> Vec<String> {
    let (id, params) = (message.get("id"), &message["params"]);
    let is_id = |id: &Value| id.is_string() || id.is_i64() || id.is_u64();
    let is_answer = message.get("result").is_some() != message.get("error").is_some();
    let client = &params["clientInfo"];
    let mut flaws = Vec::new();
    for (is_wrong, what) in [
        (message["jsonrpc"] != "2.0", "not a message of JSON-RPC 2.0"),
        (id.is_some_and(|id| !is_id(id)), "an id that is none"),
        (message.get("params").is_some_and(|params| !params.is_object()), "params are not an object"),
        (message["method"].is_null() && (!is_answer || id.is_none()), "neither a request nor an answer"),
    ] {
        if is_wrong {
            flaws.push(what.to_owned());
        }
    }
    let is_sound = match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let names = [&params["protocolVersion"], &client["name"], &client["version"]];
            names.iter().all(|name| name.is_string())
                && [json!({}), json!({"roots": {}})].contains(&params["capabilities"])
        }
        "tools/list" => params.get("cursor").is_none_or(Value::is_string),
        "tools/call" => params["name"].is_string() && params["arguments"].is_object(),
        method => method.starts_with("notifications/") != id.is_some() || method.is_empty(),
    };
    if !is_sound {
        flaws.push(format!("a {} that is not as it must be", message["method"]));
    }
    flaws
}

/// A server at work; it ends when it is dropped, and fails the test if its client did what it must not.
pub struct McpServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl McpServer {
    pub fn url(&self) -> String {
        let path = if self.shared.manner.transport == Transport::EventStream { "sse" } else { "mcp" };
        format!("http://{}/{path}", self.address)
    }

    /// Its entry in `THOUGHTMESH_TOOLS`.
    pub fn entry(&self, name: &str) -> Value {
        self.entry_with(name, json!({}))
    }

    pub fn entry_with(&self, name: &str, mut config: Value) -> Value {
        if self.shared.manner.transport != Transport::Stdio {
            return json!({"name": name, "type": "mcp", "url": self.url(), "config": config});
        }
        let mut command = vec![mcp_transports::relay(), self.address.to_string()];
        if let Some(script) = &self.shared.manner.wrapper {
            command = [["/bin/sh", "-c", script, "sh"].map(str::to_owned).to_vec(), command].concat();
        }
        config["command"] = json!(command);
        json!({"name": name, "type": "mcp", "config": config})
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// The messages of a method.
    pub fn asked(&self, method: &str) -> Vec<Value> {
        self.seen().into_iter().filter(|seen| seen.is(method)).map(|seen| seen.message).collect()
    }

    /// The names and arguments of the calls.
    pub fn calls(&self) -> Vec<(String, Value)> {
        let calls = self.asked("tools/call").into_iter().map(|message| message["params"].clone());
        calls
            .map(|params| (params["name"].as_str().unwrap_or_default().to_owned(), params["arguments"].clone()))
            .collect()
    }

    /// The client's answer to a request of the server's.
    pub fn answer_to(&self, id: &Value) -> Value {
        let mut seen = self.seen().into_iter().map(|seen| seen.message);
        seen.find(|message| message.is_object() && message["method"].is_null() && message["id"] == *id)
            .unwrap_or_default()
    }

    /// The HTTP requests of a method.
    pub fn http(&self, method: &str) -> Vec<Request> {
        self.seen().into_iter().filter_map(|seen| seen.http).filter(|request| request.method == method).collect()
    }

    /// Waits until a message of this method has come.
    #[track_caller]
    pub fn wait_for(&self, method: &str) {
        assert!(self.shared.waits_for(&|seen| seen.is(method)), "{method} never came");
    }

    /// What the child of this number, from 0, said of itself: `id=`, `directory=`, and its environment, one a line.
    #[track_caller]
    pub fn hello(&self, life: usize) -> Vec<String> {
        let hellos = self.shared.state().hellos.clone();
        hellos.get(life).expect("such a child").lines().map(str::to_owned).collect()
    }

    /// A field of [`McpServer::hello`].
    #[track_caller]
    pub fn of_child(&self, life: usize, name: &str) -> Option<String> {
        let start = format!("{name}=");
        self.hello(life).iter().find_map(|line| line.strip_prefix(&start).map(str::to_owned))
    }

    /// How many children have been started.
    pub fn lives(&self) -> usize {
        self.shared.state().hellos.len()
    }

    /// Whether the stream of the older HTTP+SSE is open.
    pub fn has_stream(&self) -> bool {
        self.shared.state().events.is_some()
    }

    /// How many children saw their stdin closed.
    pub fn inputs_closed(&self) -> usize {
        self.shared.state().inputs_closed
    }
}

impl Drop for McpServer {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed();
        // A connection of our own wakes the listener, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
        for stream in std::mem::take(&mut self.shared.state().streams) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let problems = self.shared.state().problems.join("; ");
        if !std::thread::panicking() {
            assert!(problems.is_empty(), "the MCP server: {problems}");
            return;
        }
        eprintln!("--- the MCP server, problems: {problems}");
        for seen in self.seen() {
            let head = seen.http.map(|request| format!("{} {} {:?} ", request.method, request.path, request.headers));
            eprintln!("{}: {}{:.1000}", seen.connection, head.unwrap_or_default(), seen.message.to_string());
        }
    }
}
