//! The network: the only user of ureq.
//!
//! One request, one answer. Any status is an answer, not an error; redirects are answers too, because ureq would carry keys
//! in headers other than `Authorization` to the new host. Nothing is left to ureq's defaults that can hang, leak or cut:
//! timeouts, size of the body, proxy and redirects are set here. It knows no JSON and no provider.
//!
//! Surprising: there is no limit on a whole exchange, only on silence (design: no deadline of our own), and name resolution
//! has the C library's own limit, because ureq would need a thread for another one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use log::warn;
use ureq::config::Config;
use ureq::http::{HeaderValue, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport, time,
};

/// Limit on connecting, proxy and TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit on one write to the socket making no progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit on a whole body: a peer that sends one byte a minute is not silent, and must not hold the run for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(3600);
/// Idle connections older than this are not used again: uvicorn closes them after 5 s (its setting
/// `timeout_keep_alive`, read 2026-11).
const IDLE_AGE_MAX: Duration = Duration::from_secs(4);
/// How long the end of a body is waited for when all that is wanted of it has come.
const END_WAIT: Duration = Duration::from_millis(50);
/// Bytes of such an end.
const END_BYTES_MAX: u64 = 4096;
const RESPONSE_HEADER_BYTES_MAX: usize = 64 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;

/// How ureq's message about a proxy begins; its status stands only there (ureq 3.5, `src/error.rs`).
const PROXY_FAILED: &str = "CONNECT proxy failed";

/// Bytes of a file of certificates; the largest bundles in use have a tenth of it.
const ROOTS_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Asks servers, and keeps connections between two questions.
///
/// Private roots are added to the built-in ones by asking twice: ureq takes one set or the other. A server whose issuer the
/// built-in roots do not know is asked again with the private ones, and that is remembered. No request is sent twice by
/// it, because the first try ends in the handshake.
pub struct Client {
    agent: ureq::Agent,
    with_private_roots: Option<ureq::Agent>,
    /// Servers (scheme, host and port) that the private roots vouch for.
    private_servers: RefCell<HashSet<String>>,
    pace: Arc<Pace>,
}

/// How long one read waits, whatever its request says. ureq takes a limit with a request and not with a read; but an event
/// stream is read for as long as there is something to wait for, and the end of a body is not worth a wait.
#[derive(Debug, Default)]
struct Pace {
    /// Milliseconds; 0 is no limit.
    wait_max: AtomicU64,
    /// The end of a body was not there in time once.
    was_late: AtomicBool,
}

impl Pace {
    fn during<T>(&self, wait_max: Duration, read: impl FnOnce() -> T) -> T {
        let milliseconds = u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX).max(1);
        self.wait_max.store(milliseconds, Ordering::Relaxed);
        let result = read();
        self.wait_max.store(0, Ordering::Relaxed);
        result
    }
}

/// Certificates that a person added to the built-in roots.
#[derive(Clone, Debug, Default)]
pub struct Roots(Vec<Certificate<'static>>);

impl Roots {
    /// Reads a file and the files of directories. A file that is missing or holds no certificate is an error, with the
    /// variable's name; what directories do not hold is passed over.
    pub fn load(file: Option<&Path>, directories: &[PathBuf]) -> Result<Roots, String> {
        let mut roots = Vec::new();
        if let Some(file) = file {
            let found = certificates(file).map_err(|error| format!("SSL_CERT_FILE: cannot be read ({error})"))?;
            if found.is_empty() {
                return Err(
                    "SSL_CERT_FILE: holds no certificate, accepted: a file of certificates in PEM form".to_owned()
                );
            }
            roots.extend(found);
        }
        for directory in directories {
            match fs::read_dir(directory) {
                Ok(entries) => {
                    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
                    roots.extend(files.filter_map(|file| certificates(&file).ok()).flatten());
                }
                Err(error) => warn!("SSL_CERT_DIR: {}: cannot be read ({error}), passed over", directory.display()),
            }
        }
        // Directories hold each certificate under several names.
        let mut seen = HashSet::new();
        roots.retain(|root| seen.insert(root.der().to_vec()));
        Ok(Roots(roots))
    }
}

fn certificates(file: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let mut pem = Vec::new();
    fs::File::open(file)?.take(ROOTS_BYTES_MAX).read_to_end(&mut pem)?;
    let items = ureq::tls::parse_pem(&pem).filter_map(Result::ok);
    Ok(items
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate).filter(|certificate| is_whole(certificate.der())),
            _ => None,
        })
        .collect())
}

/// Whether the bytes are one DER sequence from their beginning to their end. rustls passes over what it cannot read, and
/// then no server is trusted and nobody knows why. The shortest form of a length is left out: no certificate is so short.
fn is_whole(der: &[u8]) -> bool {
    match der {
        [0x30, 0x81, length, rest @ ..] => rest.len() == usize::from(*length),
        [0x30, 0x82, high, low, rest @ ..] => rest.len() == usize::from(*high) << 8 | usize::from(*low),
        _ => false,
    }
}

/// One question to a server.
pub struct Request<'a> {
    pub url: &'a str,
    /// In the order in which they are sent; values are kept out of every message.
    pub headers: &'a [(String, String)],
    /// Not sent with a GET.
    pub body: &'a [u8],
    /// Limit on the time without a byte from the server.
    pub silence: Duration,
    /// The URL of the proxy to go through.
    pub proxy: Option<&'a str>,
}

/// What a server answered, whatever the status.
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: ureq::Body,
    url: String,
    pace: Arc<Pace>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct HttpError {
    /// Without query: keys have been seen in one.
    url: String,
    fault: HttpFault,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HttpFault {
    /// No connection: the name is unknown, nobody listens, or not within the limit.
    NotConnected,
    /// The connection broke before the answer was whole.
    BrokenOff,
    /// The server was silent for longer than the limit.
    Silent,
    /// The certificate or the TLS handshake is not acceptable.
    Tls,
    /// The body is larger than the limit.
    TooLarge,
    /// What came is not HTTP.
    NotHttp,
    /// The name leads to an address that a guarded client does not ask.
    Refused,
    /// The request cannot be sent as it is.
    BadRequest,
}

impl HttpError {
    pub fn fault(&self) -> HttpFault {
        self.fault
    }

    fn says(&self, word: &str) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.to_string().contains(word))
    }

    fn new(url: &str, error: ureq::Error) -> HttpError {
        let url = without_query(url).to_owned();
        HttpError { url, fault: fault_of(&error), cause: Some(Box::new(error)) }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            HttpFault::NotConnected => "cannot be reached",
            HttpFault::BrokenOff => "broke off the connection",
            HttpFault::Silent => "was silent for too long",
            HttpFault::Tls if self.says("CaUsedAsEndEntity") => {
                "has a self-signed certificate that is marked as a CA; make one with CA:FALSE, or issue it from a CA of yours, \
                 and put that into SSL_CERT_FILE"
            }
            HttpFault::Tls if self.says("UnknownIssuer") => {
                "has a certificate from an issuer that is not known; put the issuer's certificate into SSL_CERT_FILE"
            }
            HttpFault::Tls if self.says("InvalidContentType") => "does not speak TLS there; is it an http:// URL?",
            HttpFault::Tls => "has a certificate that is not accepted",
            HttpFault::TooLarge => "sent more than is accepted",
            HttpFault::NotHttp => "does not speak HTTP",
            HttpFault::Refused => "is not asked",
            HttpFault::BadRequest if self.says(PROXY_FAILED) => {
                "is refused by the proxy of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY; look at its rules and its credentials, or put \
                 the host into NO_PROXY"
            }
            HttpFault::BadRequest => "cannot be asked, look at URL and headers",
        };
        write!(formatter, "{}: {what}", self.url)?;
        match &self.cause {
            Some(cause) => write!(formatter, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as &(dyn Error + 'static))
    }
}

impl Client {
    pub fn new(roots: &Roots) -> Client {
        Client::with_agents(roots, |roots, connector| {
            ureq::Agent::with_parts(config(roots), connector, DefaultResolver::default())
        })
    }

    /// A client for URLs that a model chose: it asks no link-local address and no metadata service, whatever name leads there.
    /// The address that was looked at is the one that is connected to. Behind a proxy, the proxy looks names up.
    pub fn guarded(roots: &Roots) -> Client {
        Client::with_agents(roots, |roots, connector| {
            ureq::Agent::with_parts(config(roots), connector, Guard::default())
        })
    }

    fn with_agents(roots: &Roots, agent: impl Fn(RootCerts, Connecting) -> ureq::Agent) -> Client {
        let pace = Arc::<Pace>::default();
        let agent = |roots| agent(roots, Connecting(DefaultConnector::new(), pace.clone()));
        let with_private_roots = (!roots.0.is_empty()).then(|| agent(RootCerts::from(roots.0.iter().cloned())));
        let agent = agent(RootCerts::WebPki);
        Client { agent, with_private_roots, private_servers: RefCell::default(), pace }
    }

    /// Asks with any method, and reads the head of the answer. The whole exchange, the body's end included, is over after
    /// `timeout`. An empty body is not sent.
    pub fn ask(&self, method: &str, request: &Request<'_>, timeout: Duration) -> Result<Response, HttpError> {
        self.send(request, |agent| {
            let mut builder = ureq::http::Request::builder().method(method).uri(request.url);
            for (name, value) in request.headers {
                let mut value = HeaderValue::from_str(value).map_err(|error| ureq::Error::Http(error.into()))?;
                value.set_sensitive(true);
                builder = builder.header(name, value);
            }
            let (limit, proxy) = (Some(timeout), proxy_of(request)?);
            match request.body {
                [] => {
                    let question = agent.configure_request(builder.body(())?);
                    agent.run(question.timeout_global(limit).proxy(proxy).build())
                }
                body => {
                    let question = agent.configure_request(builder.body(body)?);
                    agent.run(question.timeout_global(limit).proxy(proxy).build())
                }
            }
        })
    }

    /// POSTs the request and reads the head of the answer.
    pub fn post(&self, request: &Request<'_>) -> Result<Response, HttpError> {
        self.send(request, |agent| {
            let builder = with_headers(agent.post(request.url).content_type("application/json"), request)?;
            let proxy = proxy_of(request)?;
            builder.config().timeout_per_read(Some(request.silence)).proxy(proxy).build().send(request.body)
        })
    }

    /// GETs what is there and reads the head of the answer.
    pub fn get(&self, request: &Request<'_>) -> Result<Response, HttpError> {
        self.send(request, |agent| {
            let builder = with_headers(agent.get(request.url), request)?;
            let proxy = proxy_of(request)?;
            builder.config().timeout_per_read(Some(request.silence)).proxy(proxy).build().call()
        })
    }

    /// GETs an event stream, which may go on for as long as it likes, and reads the head of the answer.
    pub fn listen(&self, request: &Request<'_>) -> Result<Response, HttpError> {
        self.send(request, |agent| {
            let builder = with_headers(agent.get(request.url), request)?;
            let proxy = proxy_of(request)?;
            builder.config().timeout_recv_body(None).timeout_per_read(Some(request.silence)).proxy(proxy).build().call()
        })
    }

    /// DELETEs what is there: a goodbye, so connecting to a server that has gone takes no longer than an answer may.
    pub fn delete(&self, request: &Request<'_>) -> Result<Response, HttpError> {
        self.send(request, |agent| {
            let builder = with_headers(agent.delete(request.url), request)?;
            let (limit, proxy) = (Some(request.silence), proxy_of(request)?);
            builder.config().timeout_connect(limit).timeout_per_read(limit).proxy(proxy).build().call()
        })
    }

    fn send(
        &self,
        request: &Request<'_>,
        send: impl Fn(&ureq::Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response, HttpError> {
        let exchange = |agent| send(agent).map_err(|error| HttpError::new(request.url, error));
        let server = server_of(request.url);
        let is_private = self.private_servers.borrow().contains(server);
        let answer = match (&self.with_private_roots, is_private) {
            (Some(agent), true) => exchange(agent),
            (Some(agent), false) => match exchange(&self.agent) {
                Err(error) if error.fault == HttpFault::Tls && error.says("UnknownIssuer") => {
                    let answer = exchange(agent)?;
                    self.private_servers.borrow_mut().insert(server.to_owned());
                    Ok(answer)
                }
                result => result,
            },
            (None, _) => exchange(&self.agent),
        };
        Ok(Response::of(answer?, request.url, self.pace.clone()))
    }
}

fn config(roots: RootCerts) -> Config {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent(concat!("thoughtmesh-runtime/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_write(Some(WRITE_TIMEOUT))
        .timeout_recv_body(Some(BODY_TIMEOUT))
        .max_idle_age(IDLE_AGE_MAX)
        .max_idle_connections(1)
        .max_response_header_size(RESPONSE_HEADER_BYTES_MAX)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .build()
}

/// Connects as ureq does by default; what comes of it keeps to a pace.
#[derive(Debug)]
struct Connecting(DefaultConnector, Arc<Pace>);

impl Connector for Connecting {
    type Out = Connected;

    fn connect(&self, details: &ConnectionDetails<'_>, before: Option<()>) -> Result<Option<Connected>, ureq::Error> {
        Ok(self.0.connect(details, before)?.map(|connection| Connected(connection, self.1.clone())))
    }
}

#[derive(Debug)]
struct Connected(Box<dyn Transport>, Arc<Pace>);

impl Transport for Connected {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let milliseconds = self.1.wait_max.load(Ordering::Relaxed);
        if milliseconds > 0 {
            timeout.per_read = Some(Duration::from_millis(milliseconds).into());
        }
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// The server that a URL names.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub is_secure: bool,
    /// In lower case, without brackets and a dot at its end.
    pub host: String,
    pub port: u16,
}

impl Server {
    /// Of an absolute http or https URL without user and password; read by the same code that will connect to it.
    pub fn of(url: &str) -> Option<Server> {
        let uri: Uri = url.parse().ok()?;
        let is_secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok()?,
            None if is_secure => 443,
            None => 80,
        };
        (!host.is_empty()).then(|| Server { is_secure, host: host.to_ascii_lowercase(), port })
    }

    /// Whether the host is written as an address that a guarded client does not ask.
    pub fn is_refused(&self) -> bool {
        self.host.parse().is_ok_and(is_refused)
    }
}

/// Looks names up and refuses what must not be asked. ureq connects to what it returns, so nothing can change in between.
#[derive(Debug, Default)]
struct Guard(DefaultResolver);

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        // Without a limit of its own, which would take a thread.
        let timeout = NextTimeout { after: time::Duration::NotHappening, ..timeout };
        let found = self.0.resolve(uri, config, timeout)?;
        match found.iter().find(|address| is_refused(address.ip())) {
            Some(address) => Err(ureq::Error::Other(Box::new(RefusedAddress(address.ip())))),
            None => Ok(found),
        }
    }
}

#[derive(Debug)]
struct RefusedAddress(IpAddr);

impl fmt::Display for RefusedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} is a link-local address or a metadata service, which hands out the machine's keys",
            self.0
        )
    }
}

impl Error for RefusedAddress {}

/// Link-local addresses, and the metadata services that have another: Alibaba Cloud, Oracle Cloud, Azure's host, and over
/// IPv6 AWS, Google Cloud and Oracle Cloud (their documentation, read 2026-11).
fn is_refused(address: IpAddr) -> bool {
    const METADATA: [Ipv4Addr; 3] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
    match address {
        IpAddr::V4(address) => address.is_link_local() || METADATA.contains(&address),
        IpAddr::V6(address) => {
            let groups = address.segments();
            let is_metadata = matches!(groups, [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] | [0xfd00, 0xc1, ..]);
            is_metadata
                || address.is_unicast_link_local()
                || inner_address(address).is_some_and(|v4| is_refused(v4.into()))
        }
    }
}

/// The IPv4 address within an IPv6 one: mapped or compatible, by NAT64 (RFC 6052), by 6to4 (RFC 3056).
fn inner_address(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            Some(Ipv4Addr::new(a, b, c, d))
        }
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

fn with_headers<B>(
    mut builder: ureq::RequestBuilder<B>,
    request: &Request<'_>,
) -> Result<ureq::RequestBuilder<B>, ureq::Error> {
    for (name, value) in request.headers {
        let mut value = HeaderValue::from_str(value).map_err(|error| ureq::Error::Http(error.into()))?;
        value.set_sensitive(true);
        builder = builder.header(name, value);
    }
    Ok(builder)
}

fn proxy_of(request: &Request<'_>) -> Result<Option<ureq::Proxy>, ureq::Error> {
    request.proxy.map(ureq::Proxy::new).transpose()
}

/// Scheme, host and port of a URL.
fn server_of(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |mark| mark + 3);
    let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |length| authority + length);
    &url[..end]
}

impl Response {
    fn of(response: ureq::http::Response<ureq::Body>, url: &str, pace: Arc<Pace>) -> Response {
        let (parts, body) = response.into_parts();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Response { status: parts.status.as_u16(), headers, body, url: url.to_owned(), pace }
    }

    /// The first header of that name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The whole body, of at most `bytes_max` bytes. More is an error; the rest is not read.
    pub fn read_whole(&mut self, bytes_max: u64) -> Result<Vec<u8>, HttpError> {
        let mut whole = Vec::new();
        let mut reader = self.body.as_reader().take(bytes_max.saturating_add(1));
        reader.read_to_end(&mut whole).map_err(|error| HttpError::new(&self.url, ureq::Error::from(error)))?;
        if whole.len() as u64 > bytes_max {
            return Err(HttpError {
                url: without_query(&self.url).to_owned(),
                fault: HttpFault::TooLarge,
                cause: None,
            });
        }
        Ok(whole)
    }

    /// The next bytes of the body, as they come; 0 at its end.
    pub fn read_piece(&mut self, piece: &mut [u8]) -> Result<usize, HttpError> {
        self.body.as_reader().read(piece).map_err(|error| HttpError::new(&self.url, ureq::Error::from(error)))
    }

    /// Reads a body to its end of which all that is wanted has come: only then can the connection serve the next question.
    /// The end comes at once or is not waited for, and from a server that was late once, never again.
    pub fn skip_end(mut self) {
        if self.pace.was_late.load(Ordering::Relaxed) {
            return;
        }
        let mut rest = self.body.as_reader().take(END_BYTES_MAX);
        let skipped = self.pace.during(END_WAIT, || io::copy(&mut rest, &mut io::sink()));
        self.pace.was_late.store(skipped.is_err(), Ordering::Relaxed);
    }

    /// The next bytes of the body, waited for at most this long: `None` when there were none. The body can be read on.
    pub fn read_within(&mut self, wait: Duration, piece: &mut [u8]) -> Result<Option<usize>, HttpError> {
        let pace = self.pace.clone();
        match pace.during(wait, || self.read_piece(piece)) {
            Err(error) if error.fault == HttpFault::Silent => Ok(None),
            read => read.map(Some),
        }
    }

    /// As much of the body as comes, at most `bytes_max` bytes. For error pages: a piece is better than nothing.
    pub fn read_beginning(&mut self, bytes_max: u64) -> Vec<u8> {
        let mut beginning = Vec::new();
        // What was read before a failure stays in the vector.
        let _ = self.body.as_reader().take(bytes_max).read_to_end(&mut beginning);
        beginning
    }
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn fault_of(error: &ureq::Error) -> HttpFault {
    use io::ErrorKind;
    use ureq::{Error, Timeout};
    match error {
        Error::Timeout(Timeout::Connect | Timeout::Resolve) => HttpFault::NotConnected,
        Error::Timeout(_) => HttpFault::Silent,
        // What a proxy refuses, it refuses again; what it cannot reach, it may reach later.
        Error::ConnectProxyFailed(what) if what.contains("responded 4") => HttpFault::BadRequest,
        Error::HostNotFound | Error::ConnectionFailed | Error::ConnectProxyFailed(_) => HttpFault::NotConnected,
        Error::Io(error) => match error.kind() {
            ErrorKind::InvalidData | ErrorKind::InvalidInput => HttpFault::Tls,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotConnected
            | ErrorKind::Interrupted
            | ErrorKind::WriteZero => HttpFault::BrokenOff,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => HttpFault::Silent,
            // Refused, unreachable, and name resolution, which std gives no kind of its own.
            _ => HttpFault::NotConnected,
        },
        Error::Protocol(_) | Error::LargeResponseHeader(..) | Error::BodyStalled => HttpFault::NotHttp,
        Error::Other(error) if error.is::<RefusedAddress>() => HttpFault::Refused,
        Error::BodyExceedsLimit(_) => HttpFault::TooLarge,
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) => HttpFault::Tls,
        _ => HttpFault::BadRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_form() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::ffff:100.100.100.200",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
        ] {
            assert!(is_refused(text.parse().unwrap()), "{text}");
        }
        for text in
            ["127.0.0.1", "10.0.0.1", "169.253.1.1", "8.8.8.8", "::1", "fd00::1", "2606:4700::1111", "100.100.100.201"]
        {
            assert!(!is_refused(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_name_that_leads_to_a_refused_address_is_refused_when_it_is_looked_up() {
        // The C library reads a number as an address, so this is a name that leads there without any name server.
        let uri: Uri = "http://2852039166/latest/meta-data".parse().unwrap();
        let timeout = NextTimeout {
            after: time::Duration::NotHappening,
            reason: ureq::Timeout::Global,
            ..NextTimeout::default()
        };
        let error = Guard::default().resolve(&uri, &config(RootCerts::WebPki), timeout).unwrap_err();
        assert_eq!(fault_of(&error), HttpFault::Refused, "{error}");
    }

    #[test]
    fn a_server_is_what_would_be_connected_to() {
        let server = |is_secure, host: &str, port| Some(Server { is_secure, host: host.to_owned(), port });
        assert_eq!(Server::of("https://API.example.com./x?y"), server(true, "api.example.com", 443));
        assert_eq!(Server::of("http://[::1]:8080/"), server(false, "::1", 8080));
        for url in ["", "x", "/x", "//h/x", "ftp://h/", "http://u:p@h/", "http://h@g/", "http:///x", "http://a b/"] {
            assert_eq!(Server::of(url), None, "{url}");
        }
        // Where other readers of URLs have been led astray.
        assert_eq!(Server::of("http://good.example\\@bad.example/"), None);
        assert_eq!(
            Server::of("http://good.example#@bad.example/").map(|server| server.host),
            Some("good.example".to_owned())
        );
    }
}
