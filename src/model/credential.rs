//! What proves to a provider who we are: a key, or a Google access token that is renewed before it expires.
//!
//! Tokens come from the metadata server of Google Cloud ("Authenticate workloads", read 2026-11), which is asked without
//! a proxy. Key files are refused by `config`: they would need a signature that no dependency of ours makes.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::endpoint;
use crate::config::{ModelConfig, Provider};
use crate::host::http::{Client, HttpError, Request};

/// The metadata server is in the same host; it answers at once or not at all.
const METADATA_SILENCE: Duration = Duration::from_secs(5);
const METADATA_BYTES_MAX: u64 = 64 * 1024;
/// A token is renewed this long before it expires. The server hands out a new one from 5 minutes before.
const RENEWAL: Duration = Duration::from_secs(240);

/// A header, or where a token for it comes from.
pub enum Credential {
    None,
    Header(String, String),
    Metadata(Metadata),
}

/// The metadata server, and the token that it gave last.
pub struct Metadata {
    host: String,
    token: Option<(String, Instant)>,
}

/// Why there is no credential.
pub enum CredentialFault {
    Http(HttpError),
    /// The server cannot answer yet; GKE's lags behind the pod.
    NotReady(String),
    /// The server answered something else than what was asked for.
    Refused(String),
}

impl Credential {
    pub fn of(config: &ModelConfig) -> Credential {
        match endpoint::key_header(config) {
            Some((name, value)) => Credential::Header(name, value),
            None if config.provider == Provider::Vertex && config.api_key.is_none() => {
                Credential::Metadata(Metadata { host: config.google.metadata_host.clone(), token: None })
            }
            None => Credential::None,
        }
    }

    /// The header to send now.
    pub fn header(&mut self, client: &Client) -> Result<Option<(String, String)>, CredentialFault> {
        match self {
            Credential::None => Ok(None),
            Credential::Header(name, value) => Ok(Some((name.clone(), value.clone()))),
            Credential::Metadata(metadata) => {
                Ok(Some(("authorization".to_owned(), format!("Bearer {}", metadata.token(client)?))))
            }
        }
    }

    /// The project that this machine belongs to; `None` where there is no metadata server to ask.
    pub fn project(&self, client: &Client) -> Result<Option<String>, CredentialFault> {
        match self {
            Credential::None | Credential::Header(..) => Ok(None),
            Credential::Metadata(metadata) => {
                let project = metadata.get(client, "project/project-id")?;
                let is_plain = !project.is_empty()
                    && project.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte));
                if is_plain { Ok(Some(project)) } else { Err(CredentialFault::Refused("no project id".to_owned())) }
            }
        }
    }
}

impl Metadata {
    fn token(&mut self, client: &Client) -> Result<String, CredentialFault> {
        if let Some((token, expires)) = &self.token
            && Instant::now() + RENEWAL < *expires
        {
            return Ok(token.clone());
        }
        let text = self.get(client, "instance/service-accounts/default/token")?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let token = answer.get("access_token").and_then(Value::as_str);
        let Some(token) = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic())) else {
            return Err(CredentialFault::Refused("an answer without a token".to_owned()));
        };
        let seconds = answer.get("expires_in").and_then(Value::as_u64).unwrap_or(0);
        self.token = Some((token.to_owned(), Instant::now() + Duration::from_secs(seconds)));
        Ok(token.to_owned())
    }

    fn get(&self, client: &Client, path: &str) -> Result<String, CredentialFault> {
        let url = format!("http://{}/computeMetadata/v1/{path}", self.host);
        let headers = [("metadata-flavor".to_owned(), "Google".to_owned())];
        let request = Request { url: &url, headers: &headers, body: b"", silence: METADATA_SILENCE, proxy: None };
        let mut response = client.get(&request).map_err(CredentialFault::Http)?;
        let body = response.read_whole(METADATA_BYTES_MAX).map_err(CredentialFault::Http)?;
        match response.status {
            200 => Ok(String::from_utf8_lossy(&body).trim().to_owned()),
            status @ (408 | 429 | 500..=599) => Err(CredentialFault::NotReady(format!("status {status} for {path}"))),
            status => Err(CredentialFault::Refused(format!("status {status} for {path}"))),
        }
    }
}
