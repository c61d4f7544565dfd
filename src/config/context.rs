//! Context: the variables of ConfigMaps and Secrets that the controller mixes into the environment.
//!
//! What is told to the model with its value, what by its name only, and what not at all (`contract.md`, Context).

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Names of the platform's own variables: of no use to the model, or telling it about the cluster.
const PLATFORM: [&str; 24] = [
    "PATH",
    "HOME",
    "HOSTNAME",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "TERM",
    "SHELL",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "container",
    "RUST_LOG",
    "RUST_LOG_STYLE",
    "RUST_BACKTRACE",
    "RUST_MIN_STACK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "DEBIAN_FRONTEND",
    "NODE_EXTRA_CA_CERTS",
];
/// `THOUGHTMESH_` is the runtime's own; what it does not know there, `config` warns about.
const PLATFORM_PREFIXES: [&str; 4] = ["KUBERNETES_", "OTEL_", "LC_", "THOUGHTMESH_"];
const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
/// The providers' own variables configure the runtime, they are not context.
const PROVIDER_PREFIXES: [&str; 5] = ["OPENAI_", "ANTHROPIC_", "AZURE_OPENAI_", "MISTRAL_", "OLLAMA_"];
const PROVIDER_VARIABLES: [&str; 9] = [
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_GENAI_API_VERSION",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_GENAI_USE_ENTERPRISE",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GCE_METADATA_HOST",
];

/// A variable that the model is told about.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextVariable {
    pub name: String,
    /// `None`: a secret, of which only the name is told.
    pub value: Option<String>,
}

/// The context among all variables, sorted by name, and a warning for each that cannot be told.
pub fn read(variables: &BTreeMap<String, OsString>) -> (Vec<ContextVariable>, Vec<String>) {
    let links = service_links(variables);
    let mut context = Vec::new();
    let mut warnings = Vec::new();
    for (name, value) in variables {
        if is_platform(name) || is_provider(name) || is_link(name, &links) {
            continue;
        }
        let is_secret_name = has_secret_name(name);
        match value.to_str() {
            _ if is_secret_name => context.push(ContextVariable { name: name.clone(), value: None }),
            Some(text) if has_secret_form(text) => context.push(ContextVariable { name: name.clone(), value: None }),
            Some(text) => context.push(ContextVariable { name: name.clone(), value: Some(text.to_owned()) }),
            None => warnings.push(format!("{name}: not UTF-8, the model is not told of it")),
        }
    }
    (context, warnings)
}

pub fn is_platform(name: &str) -> bool {
    PLATFORM.contains(&name)
        || PLATFORM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || PROXY_VARIABLES.contains(&name.to_ascii_uppercase().as_str())
}

fn is_provider(name: &str) -> bool {
    PROVIDER_VARIABLES.contains(&name) || PROVIDER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The Services whose addresses Kubernetes puts into the environment: each has a host and a port variable.
fn service_links(variables: &BTreeMap<String, OsString>) -> Vec<&str> {
    variables
        .keys()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .filter(|service| variables.contains_key(&format!("{service}_SERVICE_PORT")))
        .collect()
}

fn is_link(name: &str, services: &[&str]) -> bool {
    services.iter().any(|service| {
        name.strip_prefix(service).is_some_and(|rest| {
            rest == "_SERVICE_HOST"
                || rest == "_PORT"
                || rest.starts_with("_SERVICE_PORT")
                || rest.strip_prefix("_PORT_").is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()))
        })
    })
}

/// Whether the name says that the value is a secret. The name of a file that holds one is not.
pub fn has_secret_name(name: &str) -> bool {
    const ENDINGS: [&str; 18] = [
        "KEY",
        "KEYS",
        "TOKEN",
        "TOKENS",
        "SECRET",
        "SECRETS",
        "PASSWORD",
        "PASSWORDS",
        "PASSWD",
        "PASSPHRASE",
        "CREDENTIAL",
        "CREDENTIALS",
        "_PASS",
        "_PWD",
        "_PAT",
        "_AUTH",
        "COOKIE",
        "_DSN",
    ];
    const ANYWHERE: [&str; 7] = ["SECRET", "PASSWORD", "APIKEY", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "CREDENTIAL"];
    const PLACES: [&str; 5] = ["_FILE", "_PATH", "_DIR", "_NAME", "_URL"];
    let upper = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let stem = upper.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    if PLACES.iter().any(|place| upper.ends_with(place)) {
        return false;
    }
    ENDINGS.iter().any(|ending| stem.ends_with(ending))
        || ["PASS", "PWD", "PAT", "AUTH", "DSN"].contains(&stem)
        || ANYWHERE.iter().any(|word| upper.contains(word))
}

/// Whether the value has the form of a secret: a private key, a JWT, a URL with a password, a well-known kind of token.
pub fn has_secret_form(value: &str) -> bool {
    value.contains("PRIVATE KEY-----")
        || value.split_whitespace().any(|word| is_jwt(word) || is_token(word))
        || !passwords(value).is_empty()
}

/// The passwords of all URLs in the text.
pub fn passwords(value: &str) -> Vec<&str> {
    value
        .match_indices("://")
        .filter_map(|(start, mark)| {
            let rest = value.get(start + mark.len()..)?;
            let authority = rest.split(|c: char| "/?#\"'".contains(c) || c.is_whitespace()).next()?;
            let (user, _) = authority.rsplit_once('@')?;
            let (_, password) = user.split_once(':')?;
            (!password.is_empty()).then_some(password)
        })
        .collect()
}

/// RFC 7519: three parts of base64url; the first is a JSON object, so it begins with `{"`.
fn is_jwt(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    let is_base64url =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    word.contains("eyJ") && parts.len() == 3 && parts.iter().all(|part| is_base64url(part.trim_start_matches("Bearer")))
}

/// Prefixes that GitHub, GitLab, Slack, AWS, Google and the model providers give their tokens, so that scanners find them.
fn is_token(word: &str) -> bool {
    const TOKEN_BYTES_MIN: usize = 16;
    const PREFIXES: [&str; 14] = [
        "sk-",
        "ghp_",
        "gho_",
        "ghs_",
        "ghu_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "xoxp-",
        "xoxa-",
        "xapp-",
        "AKIA",
        "AIza",
        "hf_",
    ];
    word.len() >= TOKEN_BYTES_MIN
        && PREFIXES.iter().any(|prefix| word.starts_with(prefix))
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        read(&variables).0.into_iter().map(|v| (v.name, v.value)).collect()
    }

    #[test]
    fn plain_variables_are_told_with_their_value() {
        assert_eq!(told(&[("REPOSITORY", "a/b")]), [("REPOSITORY".to_owned(), Some("a/b".to_owned()))]);
    }

    #[test]
    fn secrets_are_told_by_name_only() {
        for (name, value) in [
            ("GITHUB_TOKEN", "x"),
            ("MY_API_KEY_2", "x"),
            ("DB_PASSWORD", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("DATABASE", "postgres://u:hunter2@db/x"),
            ("BLOB", "-----BEGIN RSA PRIVATE KEY-----\nMII"),
            ("SESSION", "eyJhbGciOi.eyJzdWIi.c2ln"),
            ("OTHER", "ghp_0123456789abcdef0123"),
        ] {
            assert_eq!(told(&[(name, value)]), [(name.to_owned(), None)], "{name}");
        }
    }

    #[test]
    fn the_name_of_a_file_is_no_secret() {
        assert!(!has_secret_name("DB_PASSWORD_FILE"));
    }

    #[test]
    fn platform_variables_are_left_out() {
        let names =
            ["PATH", "KUBERNETES_PORT", "OTEL_X", "https_proxy", "SSL_CERT_FILE", "RUST_LOG", "THOUGHTMESH_OBJECTIVE"];
        for name in names {
            assert_eq!(told(&[(name, "x")]), [], "{name}");
        }
    }

    #[test]
    fn service_links_are_left_out_and_their_likes_are_not() {
        let link = [
            ("DB_SERVICE_HOST", "10.0.0.1"),
            ("DB_SERVICE_PORT", "80"),
            ("DB_SERVICE_PORT_HTTP", "80"),
            ("DB_PORT", "tcp://10.0.0.1:80"),
            ("DB_PORT_80_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(told(&link), []);
        assert_eq!(told(&[("APP_PORT", "8080")]).len(), 1);
    }

    #[test]
    fn finds_the_passwords_of_urls() {
        assert_eq!(passwords("a https://u:p%40ss@h/x b http://h:80/ c"), ["p%40ss"]);
    }
}
