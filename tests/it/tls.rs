//! TLS for the tests: a certificate authority of our own, the certificates it signs, and a door that speaks TLS in front of
//! the scripted server. Also a CONNECT proxy, which sees where a client wants to go.
//!
//! Certificates are written as X.509 has them (RFC 5280, section 4.1): version 3, P-256, with the two extensions that rustls
//! looks at. They are made anew in each test, so that no key lies in the repository.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::ScriptedServer;

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];

/// What a certificate says of itself.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Authority,
    /// For 127.0.0.1.
    Server,
    /// As `Server`, but its time is over.
    Expired,
    /// For 127.0.0.1 and marked as an authority, as `openssl req -x509` makes it.
    ServerMarkedAsAuthority,
}

/// A certificate with its key.
pub struct Certificate {
    der: Vec<u8>,
    key_der: Vec<u8>,
    key: EcdsaKeyPair,
    name: &'static str,
}

impl Certificate {
    pub fn self_signed(kind: Kind) -> Certificate {
        Certificate::new(kind, "test root", None)
    }

    pub fn signs(&self, kind: Kind) -> Certificate {
        Certificate::new(kind, "test server", Some(self))
    }

    fn new(kind: Kind, name: &'static str, issuer: Option<&Certificate>) -> Certificate {
        let random = SystemRandom::new();
        let key_der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key_der.as_ref(), &random).unwrap();
        let algorithm = sequence(&[object_id(ECDSA_WITH_SHA256)]);
        let body = sequence(&[
            der(0xa0, &integer(2)),
            integer(1),
            algorithm.clone(),
            named(issuer.map_or(name, |issuer| issuer.name)),
            validity(kind),
            named(name),
            public_key(key.public_key().as_ref()),
            der(0xa3, &extensions(kind)),
        ]);
        let signature = issuer.map_or(&key, |issuer| &issuer.key).sign(&random, &body).unwrap();
        let whole = sequence(&[body, algorithm, bits(signature.as_ref())]);
        Certificate { der: whole, key_der: key_der.as_ref().to_vec(), key, name }
    }

    pub fn pem(&self) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(&self.der))
    }

    /// A server that shows this certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let chain = vec![CertificateDer::from(self.der.clone())];
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut whole = vec![tag];
    match length {
        0..128 => whole.push(length as u8),
        128..256 => whole.extend([0x81, length as u8]),
        _ => whole.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    whole.extend_from_slice(content);
    whole
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

fn integer(small: u8) -> Vec<u8> {
    der(2, &[small])
}

fn object_id(bytes: &[u8]) -> Vec<u8> {
    der(6, bytes)
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    der(3, &[&[0], bytes].concat())
}

fn named(name: &str) -> Vec<u8> {
    let attribute = sequence(&[object_id(COMMON_NAME), der(0x0c, name.as_bytes())]);
    sequence(&[der(0x31, &attribute)])
}

/// Two digits for the year are all that this form has; 49 is 2049.
fn validity(kind: Kind) -> Vec<u8> {
    let end = if kind == Kind::Expired { "210101000000Z" } else { "491231235959Z" };
    sequence(&["200101000000Z", end].map(|time| der(0x17, time.as_bytes())))
}

fn public_key(point: &[u8]) -> Vec<u8> {
    sequence(&[sequence(&[object_id(EC_PUBLIC_KEY), object_id(PRIME256V1)]), bits(point)])
}

fn extensions(kind: Kind) -> Vec<u8> {
    let is_authority = matches!(kind, Kind::Authority | Kind::ServerMarkedAsAuthority);
    let constraints = if is_authority { sequence(&[der(1, &[0xff])]) } else { sequence(&[]) };
    let mut list = vec![sequence(&[object_id(BASIC_CONSTRAINTS), der(1, &[0xff]), der(4, &constraints)])];
    if kind != Kind::Authority {
        let address = sequence(&[der(0x87, &[127, 0, 0, 1])]);
        list.push(sequence(&[object_id(SUBJECT_ALT_NAME), der(4, &address)]));
    }
    sequence(&list)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |sum, place| sum << 8 | usize::from(*group.get(place).unwrap_or(&0)));
        for place in 0..4 {
            let letter = char::from(LETTERS[number >> (18 - 6 * place) & 63]);
            text.push(if place <= group.len() { letter } else { '=' });
        }
        if text.len() % 65 == 64 {
            text.push('\n');
        }
    }
    text
}

/// A listener whose connections are each served by a thread; it ends when it is dropped.
struct Listening {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, is_over) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let (serve, is_over_there) = (Arc::new(serve), is_over.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over_there.load(Ordering::SeqCst) {
                    return;
                }
                let (serve, stream) = (serve.clone(), stream.unwrap());
                std::thread::spawn(move || serve(stream));
            }
        });
        Listening { address, is_over, thread: Some(thread) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Speaks TLS in front of a scripted server, one request a connection.
pub struct TlsDoor(Listening);

impl TlsDoor {
    pub fn before(server: &ScriptedServer, certificate: &Certificate) -> TlsDoor {
        let (config, behind) = (certificate.server_config(), server.url().trim_start_matches("http://").to_owned());
        // An error is the client's: it did not like the certificate.
        TlsDoor(Listening::start(move |stream| drop(relay_one(stream, config.clone(), &behind))))
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn url(&self) -> String {
        format!("https://{}", self.0.address)
    }
}

fn relay_one(stream: TcpStream, config: Arc<ServerConfig>, behind: &str) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut client = BufReader::new(StreamOwned::new(connection, stream));
    let request = read_message(&mut client)?;
    let mut server = TcpStream::connect(behind)?;
    server.write_all(&request)?;
    server.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let client = client.get_mut();
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()
}

/// A head, and as many bytes as it says.
fn read_message(stream: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut message = read_head(stream)?;
    let head = String::from_utf8_lossy(&message).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    stream.take(length).read_to_end(&mut message)?;
    Ok(message)
}

fn read_head(stream: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// A CONNECT proxy that leads wherever it is asked to, or refuses.
pub struct Proxy {
    listening: Listening,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn open() -> Proxy {
        Proxy::answering(200)
    }

    /// Answers every request with this status; with 200 it leads on.
    pub fn answering(status: u16) -> Proxy {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = heads.clone();
        let listening = Listening::start(move |stream| drop(lead(stream, status, &seen)));
        Proxy { listening, heads }
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.listening.address.to_string()
    }

    /// The heads of the requests that it saw.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn lead(stream: TcpStream, status: u16, heads: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let head = String::from_utf8_lossy(&read_head(&mut client)?).into_owned();
    heads.lock().unwrap().push(head.clone());
    client.get_mut().write_all(format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    if status != 200 {
        return Ok(());
    }
    let target = TcpStream::connect(head.split(' ').nth(1).unwrap_or_default())?;
    let (mut up, mut down) = (target.try_clone()?, client.get_ref().try_clone()?);
    let mut target = target;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut target, &mut down);
        let _ = down.shutdown(Shutdown::Both);
    });
    std::io::copy(&mut client, &mut up)?;
    up.shutdown(Shutdown::Write)
}
