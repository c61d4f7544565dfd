//! How servers are reached: private roots, certificates that are not accepted, proxies.
//!
//! `src/config/network.rs` tests which hosts `NO_PROXY` covers, names and their suffixes included; here is that it is obeyed.

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use serde_json::json;

use crate::chat;
use crate::runtime::{API_KEY, Ended, Runtime};
use crate::server::{Exchange, ScriptedServer};
use crate::tls::{Certificate, Kind, Proxy, TlsDoor};

/// Runs that take no longer than they must: what does not pass is told at once.
fn asks_at(url: &str) -> Runtime {
    let config =
        json!({"provider": "openai-compatible", "name": "m", "endpoint": format!("{url}/v1"), "api_key": API_KEY});
    Runtime::new().env("THOUGHTMESH_EXIT_CODES", "detailed").env("THOUGHTMESH_MODEL_CONFIG", &config.to_string())
}

// Private roots.

/// A run against a server with this certificate, with this file as `SSL_CERT_FILE`.
fn with_root_file(certificate: &Certificate, pem: &str, script: Vec<Exchange>) -> Ended {
    let server = ScriptedServer::plays(script);
    let door = TlsDoor::before(&server, certificate);
    let runtime = asks_at(&door.url()).file_outside("ca.crt", pem);
    let path = runtime.path_outside("ca.crt");
    runtime.env_raw("SSL_CERT_FILE", path).run()
}

#[test]
fn a_server_is_trusted_by_the_root_in_ssl_cert_file() {
    let root = Certificate::self_signed(Kind::Authority);
    with_root_file(&root.signs(Kind::Server), &root.pem(), vec![chat::achieved(0)]).exits(0);
}

#[test]
fn a_file_of_roots_may_hold_several_and_words_between_them() {
    let (other, root) = (Certificate::self_signed(Kind::Authority), Certificate::self_signed(Kind::Authority));
    let pem = format!("# Ours\n{}\nand the other one:\r\n{}", other.pem(), root.pem());
    with_root_file(&root.signs(Kind::Server), &pem, vec![chat::achieved(0)]).exits(0);
}

#[test]
fn a_server_is_trusted_by_a_root_in_one_of_the_directories_of_ssl_cert_dir() {
    let root = Certificate::self_signed(Kind::Authority);
    let server = ScriptedServer::plays([chat::achieved(0)]);
    let door = TlsDoor::before(&server, &root.signs(Kind::Server));
    let runtime =
        asks_at(&door.url()).file_outside("some/readme.txt", "none").file_outside("more/ours.pem", root.pem());
    let directories = ["missing", "some", "more"].map(|name| runtime.path_outside(name).display().to_string());
    runtime.env("SSL_CERT_DIR", &directories.join(":")).run().exits(0);
}

#[test]
fn a_root_is_trusted_in_every_turn() {
    let root = Certificate::self_signed(Kind::Authority);
    let script = vec![chat::text("Hm."), chat::text("Hm."), chat::achieved(0)];
    with_root_file(&root.signs(Kind::Server), &root.pem(), script).exits(0).counts("turns", 3);
}

#[test]
fn an_issuer_that_is_not_known_ends_the_run_and_names_ssl_cert_file() {
    let root = Certificate::self_signed(Kind::Authority);
    let server = ScriptedServer::plays([]);
    let door = TlsDoor::before(&server, &root.signs(Kind::Server));
    asks_at(&door.url()).run().exits(69).reason("model_unavailable").tells("issuer").tells("SSL_CERT_FILE");
}

#[test]
fn the_root_of_somebody_else_does_not_help() {
    let (root, other) = (Certificate::self_signed(Kind::Authority), Certificate::self_signed(Kind::Authority));
    with_root_file(&root.signs(Kind::Server), &other.pem(), Vec::new()).exits(69).reason("model_unavailable");
}

#[test]
fn an_expired_certificate_ends_the_run() {
    let root = Certificate::self_signed(Kind::Authority);
    let ended = with_root_file(&root.signs(Kind::Expired), &root.pem(), Vec::new());
    ended.exits(69).reason("model_unavailable").tells("expired");
}

#[test]
fn a_self_signed_certificate_that_is_marked_as_an_authority_is_told_how_to_be_made() {
    let certificate = Certificate::self_signed(Kind::ServerMarkedAsAuthority);
    let ended = with_root_file(&certificate, &certificate.pem(), Vec::new());
    ended.exits(69).reason("model_unavailable").tells("self-signed").tells("CA:FALSE");
}

#[test]
fn a_self_signed_certificate_that_is_no_authority_is_its_own_root() {
    let certificate = Certificate::self_signed(Kind::Server);
    with_root_file(&certificate, &certificate.pem(), vec![chat::achieved(0)]).exits(0);
}

#[test]
fn a_port_that_speaks_plain_http_is_told_from_a_bad_certificate() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
        // Until the client has left: closing with its hello unread would reset the connection.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    asks_at(&url).run().exits(69).reason("model_unavailable").counts("llmCallsUsed", 1).tells("is it an http:// URL?");
    server.join().unwrap();
}

#[test]
fn a_certificate_for_another_name_ends_the_run() {
    let root = Certificate::self_signed(Kind::Authority);
    let server = ScriptedServer::plays([]);
    let door = TlsDoor::before(&server, &root.signs(Kind::Server));
    let runtime = asks_at(&door.url().replace("127.0.0.1", "localhost")).file_outside("ca.crt", root.pem());
    let path = runtime.path_outside("ca.crt");
    runtime.env_raw("SSL_CERT_FILE", path).run().exits(69).reason("model_unavailable").tells("certificate");
}

#[test]
fn a_file_of_roots_that_is_missing_ends_the_run_before_the_first_call() {
    let server = ScriptedServer::plays([]);
    let runtime = asks_at(&server.url()).env("SSL_CERT_FILE", "/no/such/ca.crt");
    runtime.run().exits(78).reason("config_invalid").tells("SSL_CERT_FILE");
}

#[test]
fn a_file_of_roots_without_a_certificate_ends_the_run_before_the_first_call() {
    for content in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n"] {
        let server = ScriptedServer::plays([]);
        let runtime = asks_at(&server.url()).file_outside("ca.crt", content);
        let path = runtime.path_outside("ca.crt");
        let ended = runtime.env_raw("SSL_CERT_FILE", path).run();
        ended.exits(78).reason("config_invalid").tells("SSL_CERT_FILE").tells("no certificate");
    }
}

// Proxies.

fn through(proxy: &Proxy, script: Vec<Exchange>, environment: &[(&str, &str)]) -> Ended {
    let server = ScriptedServer::plays(script);
    let runtime = asks_at(&server.url()).env("HTTP_PROXY", &format!("http://{}", proxy.address()));
    environment.iter().fold(runtime, |runtime, (name, value)| runtime.env(name, value)).run()
}

#[test]
fn a_server_is_asked_through_the_proxy() {
    let proxy = Proxy::open();
    through(&proxy, vec![chat::achieved(0)], &[]).exits(0);
    assert!(proxy.heads()[0].starts_with("CONNECT 127.0.0.1:"), "{:?}", proxy.heads());
}

#[test]
fn a_server_with_tls_is_asked_through_the_proxy_for_https() {
    let root = Certificate::self_signed(Kind::Authority);
    let server = ScriptedServer::plays([chat::achieved(0)]);
    let door = TlsDoor::before(&server, &root.signs(Kind::Server));
    let (proxy, other) = (Proxy::open(), Proxy::answering(500));
    let runtime = asks_at(&door.url()).file_outside("ca.crt", root.pem());
    let path = runtime.path_outside("ca.crt");
    let runtime = runtime.env_raw("SSL_CERT_FILE", path).env("HTTP_PROXY", &format!("http://{}", other.address()));
    runtime.env("https_proxy", &proxy.address()).run().exits(0);
    assert!(!proxy.heads().is_empty() && other.heads().is_empty());
}

#[test]
fn the_key_is_not_told_to_the_proxy() {
    let proxy = Proxy::open();
    through(&proxy, vec![chat::achieved(0)], &[]).exits(0);
    assert!(!proxy.heads()[0].contains(API_KEY));
}

#[test]
fn a_server_that_no_proxy_covers_is_asked_directly() {
    for list in
        ["127.0.0.1", "example.com, 127.0.0.1 ,.svc", "127.0.0.0/8", "10.0.0.0/8 127.0.0.1/32", "*", "0.0.0.0/0"]
    {
        let proxy = Proxy::open();
        through(&proxy, vec![chat::achieved(0)], &[("NO_PROXY", list)]).exits(0);
        assert!(proxy.heads().is_empty(), "{list:?}: {:?}", proxy.heads());
    }
}

#[test]
fn a_name_is_covered_by_no_proxy_with_a_leading_dot_and_without() {
    for list in ["localhost", ".localhost", "*.localhost", "LOCALHOST"] {
        let proxy = Proxy::open();
        let server = ScriptedServer::plays([chat::achieved(0)]);
        let runtime = asks_at(&server.url().replace("127.0.0.1", "localhost"));
        let runtime = runtime.env("HTTP_PROXY", &format!("http://{}", proxy.address()));
        runtime.env("NO_PROXY", list).run().exits(0);
        assert!(proxy.heads().is_empty(), "{list:?}: {:?}", proxy.heads());
    }
}

#[test]
fn a_server_that_no_proxy_does_not_cover_is_asked_through_the_proxy() {
    for list in ["10.0.0.0/8,.svc,example.com", "127.0.0.2", "127.0.0.1:1", "27.0.0.1"] {
        let proxy = Proxy::open();
        through(&proxy, vec![chat::achieved(0)], &[("NO_PROXY", list)]).exits(0);
        assert_eq!(proxy.heads().len(), 1, "{list:?}");
    }
}

#[test]
fn credentials_of_the_proxy_are_sent_to_it_and_never_logged() {
    let proxy = Proxy::open();
    let url = format!("http://ops:hunter2-9f3a@{}", proxy.address());
    let ended = through(&proxy, vec![chat::achieved(0)], &[("HTTP_PROXY", &url), ("RUST_LOG", "trace")]);
    ended.exits(0).never_says("hunter2-9f3a").never_says("b3BzOmh1bnRlcjItOWYzYQ==");
    // The Base64 of user and password (RFC 7617).
    assert!(proxy.heads()[0].contains("b3BzOmh1bnRlcjItOWYzYQ=="), "{}", proxy.heads()[0]);
}

#[test]
fn a_proxy_that_refuses_ends_the_run_and_its_variables_are_named() {
    for status in [403, 407] {
        let proxy = Proxy::answering(status);
        let url = format!("http://ops:hunter2-9f3a@{}", proxy.address());
        let ended = through(&proxy, Vec::new(), &[("HTTP_PROXY", &url)]);
        ended.exits(69).reason("model_unavailable").tells("NO_PROXY").tells(&status.to_string());
        ended.never_says("hunter2-9f3a");
        assert_eq!(proxy.heads().len(), 1);
    }
}

#[test]
fn a_proxy_that_is_no_url_is_a_mistake_whose_value_is_not_told() {
    let server = ScriptedServer::plays([]);
    let runtime = asks_at(&server.url()).env("HTTP_PROXY", "socks5://ops:hunter2-9f3a@h:1");
    let ended = runtime.run();
    ended.exits(78).reason("config_invalid").tells("HTTP_PROXY").never_says("hunter2-9f3a");
}
