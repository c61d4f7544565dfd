//! Proxies and private roots: how to reach servers, the same for the model and for every tool. Pure but for the environment.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are read as curl reads them (its manual, "Environment", read 2026-11),
//! except that `HTTP_PROXY` counts in capitals too: there is no CGI here. `NO_PROXY` also takes networks such as 10.0.0.0/8.

use std::net::IpAddr;
use std::path::PathBuf;

use super::Environment;
use super::read::{At, Reader};
use crate::secret::Secret;

/// How to reach servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// A file of certificates in PEM form, added to the built-in roots.
    pub roots_file: Option<PathBuf>,
    /// Directories of such files.
    pub roots_directories: Vec<PathBuf>,
    http_proxy: Option<Secret>,
    https_proxy: Option<Secret>,
    /// Hosts that are reached without a proxy.
    direct: Vec<String>,
}

/// Reads the variables; mistakes are left in the reader.
pub fn read(reader: &mut Reader, environment: &Environment) -> Network {
    let all = read_proxy(reader, environment, ["all_proxy", "ALL_PROXY"]);
    let http_proxy = read_proxy(reader, environment, ["http_proxy", "HTTP_PROXY"]).or_else(|| all.clone());
    let https_proxy = read_proxy(reader, environment, ["https_proxy", "HTTPS_PROXY"]).or(all);
    let direct = environment.lossy("no_proxy").or_else(|| environment.lossy("NO_PROXY")).unwrap_or_default();
    let directories = environment.raw("SSL_CERT_DIR").map(|value| value.to_string_lossy().into_owned());
    Network {
        roots_file: environment.raw("SSL_CERT_FILE").map(PathBuf::from),
        roots_directories: directories
            .iter()
            .flat_map(|value| value.split(':'))
            .filter(|directory| !directory.is_empty())
            .map(PathBuf::from)
            .collect(),
        http_proxy,
        https_proxy,
        direct: direct
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|entry| !entry.is_empty())
            .map(str::to_ascii_lowercase)
            .collect(),
    }
}

/// The first of the names that is set. Without a scheme it is `http://`.
fn read_proxy(reader: &mut Reader, environment: &Environment, names: [&'static str; 2]) -> Option<Secret> {
    let (name, text) = names.iter().find_map(|name| Some((*name, environment.lossy(name)?)))?;
    let url = if text.contains("://") { text } else { format!("http://{text}") };
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_none_or(|host| host.trim_end_matches('/').is_empty()) || !is_plain {
        reader.error(&At::root(name), "not accepted, accepted: the URL of an http:// or https:// proxy");
        return None;
    }
    Some(Secret::new(url))
}

impl Network {
    /// The URL of the proxy for this URL; `None`: the server is reached directly.
    pub fn proxy_for(&self, url: &str) -> Option<&str> {
        let (scheme, rest) = url.split_once("://")?;
        let proxy = if scheme == "https" { &self.https_proxy } else { &self.http_proxy };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = host_and_port(authority.rsplit('@').next().unwrap_or_default());
        let is_direct = self.direct.iter().any(|entry| is_covered(entry, &host, port));
        proxy.as_ref().filter(|_| !is_direct).map(Secret::reveal)
    }
}

/// `host`, `host:8080`, `[::1]:8080`; the host in lower case, without brackets and a dot at its end.
fn host_and_port(authority: &str) -> (String, Option<&str>) {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None if authority.matches(':').count() == 1 => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
        None => (authority, None),
    };
    (host.trim_end_matches('.').to_ascii_lowercase(), port.filter(|port| !port.is_empty()))
}

/// Whether an entry of `NO_PROXY` covers the host: `*`, an address, a network, or a name, which covers its subdomains too.
fn is_covered(entry: &str, host: &str, port: Option<&str>) -> bool {
    if entry == "*" {
        return true;
    }
    let address = host.parse::<IpAddr>().ok();
    if let Some((network, length)) = entry.split_once('/') {
        return match (address, network.parse(), length.parse()) {
            (Some(address), Ok(network), Ok(length)) => is_in_network(address, network, length),
            _ => false,
        };
    }
    let (name, entry_port) = host_and_port(entry);
    if entry_port.is_some() && entry_port != port {
        return false;
    }
    if let (Some(address), Ok(other)) = (address, name.parse::<IpAddr>()) {
        return address == other;
    }
    let name = name.trim_start_matches('*').trim_start_matches('.');
    !name.is_empty() && (host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
}

fn is_in_network(address: IpAddr, network: IpAddr, length: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if length <= 32 => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if length <= 128 => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(pairs: &[(&str, &str)]) -> Network {
        let mut reader = Reader::default();
        let network = read(&mut reader, &Environment::of_pairs(pairs));
        assert!(reader.errors.is_empty());
        network
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let network = network(&[("https_proxy", "http://s:1"), ("HTTP_PROXY", "p:2")]);
        assert_eq!(network.proxy_for("https://h/x"), Some("http://s:1"));
        assert_eq!(network.proxy_for("http://h/x"), Some("http://p:2"));
    }

    #[test]
    fn all_proxy_stands_in_and_small_letters_win() {
        let network =
            network(&[("ALL_PROXY", "http://a:1"), ("HTTPS_PROXY", "http://b:2"), ("https_proxy", "http://c:3")]);
        assert_eq!(network.proxy_for("http://h"), Some("http://a:1"));
        assert_eq!(network.proxy_for("https://h"), Some("http://c:3"));
    }

    #[test]
    fn no_proxy_covers_names_addresses_and_networks() {
        let list = " example.com, .svc,*.local 10.0.0.0/8,fd00::/8 192.168.1.7, port.io:8443,::1";
        let network = network(&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", list)]);
        for url in [
            "http://example.com/",
            "https://a.Example.com:443/x",
            "http://vllm.models.svc:8000/v1",
            "http://svc",
            "http://x.local",
            "http://10.255.0.1:80",
            "http://[fd12::1]:80/",
            "http://192.168.1.7",
            "https://port.io:8443",
            "http://[::1]/",
        ] {
            assert_eq!(network.proxy_for(url), None, "{url}");
        }
        for url in ["http://notexample.com", "http://11.0.0.1", "http://[fe80::1]", "https://port.io", "http://svc.io"]
        {
            assert_eq!(network.proxy_for(url), Some("http://p:1"), "{url}");
        }
    }

    #[test]
    fn a_star_covers_everything_and_a_network_of_length_0_too() {
        for list in ["*", "0.0.0.0/0"] {
            assert_eq!(network(&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", list)]).proxy_for("http://1.2.3.4"), None);
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_a_mistake_without_its_value() {
        let mut reader = Reader::default();
        read(&mut reader, &Environment::of_pairs(&[("HTTPS_PROXY", "socks5://user:hunter2@p:1")]));
        let message = reader.errors[0].to_string();
        assert!(message.starts_with("HTTPS_PROXY: ") && !message.contains("hunter2"), "{message}");
    }
}
