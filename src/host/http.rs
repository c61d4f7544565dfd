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
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use ureq::http::HeaderValue;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

/// Limit on connecting, proxy and TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit on one write to the socket making no progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit on a whole body: a peer that sends one byte a minute is not silent, and must not hold the run for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(3600);
/// Idle connections older than this are not used again: uvicorn closes them after 5 s (its setting
/// `timeout_keep_alive`, read 2026-11).
const IDLE_AGE_MAX: Duration = Duration::from_secs(4);
const RESPONSE_HEADER_BYTES_MAX: usize = 64 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;

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
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect())
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
            HttpFault::Tls => "has a certificate that is not accepted",
            HttpFault::TooLarge => "sent more than is accepted",
            HttpFault::NotHttp => "does not speak HTTP",
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
        let with_private_roots = (!roots.0.is_empty()).then(|| agent(RootCerts::from(roots.0.iter().cloned())));
        Client { agent: agent(RootCerts::WebPki), with_private_roots, private_servers: RefCell::default() }
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
        Ok(Response::of(answer?, request.url))
    }
}

fn agent(roots: RootCerts) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
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
        .build();
    config.new_agent()
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
    fn of(response: ureq::http::Response<ureq::Body>, url: &str) -> Response {
        let (parts, body) = response.into_parts();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Response { status: parts.status.as_u16(), headers, body, url: url.to_owned() }
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
        Error::BodyExceedsLimit(_) => HttpFault::TooLarge,
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) => HttpFault::Tls,
        _ => HttpFault::BadRequest,
    }
}
