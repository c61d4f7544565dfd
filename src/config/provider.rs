//! Who serves a model: each provider's names, variables and default URL. Data; what is sent where, `model/endpoint.rs` knows.

/// Who serves the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Provider {
    OpenAi,
    Anthropic,
    Ollama,
    Vertex,
    AzureOpenAi,
    Mistral,
    Gemini,
    OpenAiCompatible,
    Replay,
}

/// How a key is handed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyForm {
    /// As the provider wants its own keys.
    Key,
    /// As a bearer token.
    Token,
}

/// Which of OpenAI's two formats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Api {
    Chat,
    Responses,
}

impl Provider {
    /// Every accepted word; the first one of each provider is its name. The first six are the controller's.
    pub const WORDS: [(&'static str, Provider); 11] = [
        ("openai", Provider::OpenAi),
        ("anthropic", Provider::Anthropic),
        ("ollama", Provider::Ollama),
        ("vertex", Provider::Vertex),
        ("azure-openai", Provider::AzureOpenAi),
        ("azure", Provider::AzureOpenAi),
        ("mistral", Provider::Mistral),
        ("gemini", Provider::Gemini),
        ("google", Provider::Gemini),
        ("openai-compatible", Provider::OpenAiCompatible),
        ("replay", Provider::Replay),
    ];

    pub fn from_word(word: &str) -> Option<Provider> {
        let word = word.to_ascii_lowercase();
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, provider)| *provider)
    }

    /// The provider's name as the configuration has it.
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, provider)| *provider == self).map_or("?", |(word, _)| word)
    }

    /// The variables that may hold the key, the first one first. The names are those of the providers' own libraries
    /// (their sources, read 2026-11); `GOOGLE_OAUTH_ACCESS_TOKEN` is the one of Google's Terraform provider.
    pub fn key_variables(self) -> &'static [(&'static str, KeyForm)] {
        match self {
            Provider::OpenAi | Provider::OpenAiCompatible => &[("OPENAI_API_KEY", KeyForm::Key)],
            Provider::Anthropic => &[("ANTHROPIC_API_KEY", KeyForm::Key), ("ANTHROPIC_AUTH_TOKEN", KeyForm::Token)],
            Provider::Ollama => &[("OLLAMA_API_KEY", KeyForm::Token)],
            Provider::Vertex => &[("GOOGLE_OAUTH_ACCESS_TOKEN", KeyForm::Token), ("GOOGLE_API_KEY", KeyForm::Key)],
            Provider::AzureOpenAi => {
                &[("AZURE_OPENAI_API_KEY", KeyForm::Key), ("AZURE_OPENAI_AD_TOKEN", KeyForm::Token)]
            }
            Provider::Mistral => &[("MISTRAL_API_KEY", KeyForm::Key)],
            Provider::Gemini => &[("GOOGLE_API_KEY", KeyForm::Key), ("GEMINI_API_KEY", KeyForm::Key)],
            Provider::Replay => &[],
        }
    }

    /// The variable that may hold the base URL.
    pub fn url_variable(self) -> Option<&'static str> {
        match self {
            Provider::OpenAi | Provider::OpenAiCompatible => Some("OPENAI_BASE_URL"),
            Provider::Anthropic => Some("ANTHROPIC_BASE_URL"),
            Provider::Ollama => Some("OLLAMA_HOST"),
            Provider::AzureOpenAi => Some("AZURE_OPENAI_ENDPOINT"),
            Provider::Gemini => Some("GOOGLE_GEMINI_BASE_URL"),
            Provider::Vertex => Some("GOOGLE_VERTEX_BASE_URL"),
            Provider::Mistral | Provider::Replay => None,
        }
    }

    /// The base URL when nobody says otherwise, as the providers' API references have it (read 2026-11). That of Vertex
    /// depends on the location.
    pub fn default_endpoint(self, location: &str) -> Option<String> {
        let url = match self {
            Provider::OpenAi => "https://api.openai.com/v1",
            Provider::Anthropic => "https://api.anthropic.com",
            Provider::Ollama => "http://127.0.0.1:11434",
            Provider::Mistral => "https://api.mistral.ai",
            Provider::Gemini => "https://generativelanguage.googleapis.com",
            Provider::Replay => "",
            Provider::AzureOpenAi | Provider::OpenAiCompatible => return None,
            Provider::Vertex => {
                return Some(match location {
                    "global" => "https://aiplatform.googleapis.com".to_owned(),
                    "us" | "eu" => format!("https://aiplatform.{location}.rep.googleapis.com"),
                    _ => format!("https://{location}-aiplatform.googleapis.com"),
                });
            }
        };
        Some(url.to_owned())
    }

    /// Whether the provider's own servers want a key. Servers at another URL may want none.
    pub fn wants_key(self, is_default_endpoint: bool) -> bool {
        match self {
            Provider::OpenAi | Provider::Anthropic | Provider::Mistral | Provider::Gemini => is_default_endpoint,
            Provider::AzureOpenAi => true,
            // Vertex asks the metadata server where there is no key.
            Provider::Ollama | Provider::Vertex | Provider::OpenAiCompatible | Provider::Replay => false,
        }
    }
}
