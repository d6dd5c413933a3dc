//! The client's settings: which server, and the key to it.

use reqwest::header::HeaderValue;
use shared::config::{ConfigError, Reader, Secret, Setting, Source};
use url::Url;

/// All settings of the client commands.
pub const SETTINGS: &[Setting] = &[URL, API_KEY];

const URL: Setting = Setting::new("CC_URL", "http://127.0.0.1:8000", "Where the API server is");
const API_KEY: Setting = Setting::secret(
    "CC_API_KEY",
    "",
    "The key that the API server asks for; better set in the environment, since others see flags",
);

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is.
    pub url: Url,
    /// The key to it.
    pub api_key: Option<Secret>,
}

impl Config {
    /// Reads the settings.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(source);
        let text: String = reader.value(&URL);
        let url = Url::parse(&text).ok().filter(is_http);
        match &url {
            None => reader.problem(format!(
                "CC_URL is a URL like http://127.0.0.1:8000, not {text:?}"
            )),
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                reader.problem(
                    "CC_URL has a name or a password in it; the key belongs in CC_API_KEY",
                );
            }
            Some(_) => {}
        }
        let api_key: Option<Secret> = reader.optional(&API_KEY);
        let is_unfit = |key: &Secret| HeaderValue::from_str(key.reveal()).is_err();
        if api_key.as_ref().is_some_and(is_unfit) {
            reader.problem("CC_API_KEY has characters in it that no key has (its value is hidden)");
        }
        let finished = reader.finish(());
        match url {
            Some(url) => finished.map(|()| Self { url, api_key }),
            None => Err(finished.err().unwrap_or(ConfigError(Vec::new()))),
        }
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(texts: &[(&str, &str)]) -> Vec<String> {
        let read = Config::read(&Source::of(texts.iter().copied()));
        read.err().map(|error| error.0).unwrap_or_default()
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        assert_eq!(problems(&[]).len(), 0);
        assert_eq!(problems(&[("CC_URL", "https://host/prefix")]).len(), 0);
        for bad in ["localhost:8000", "ftp://host", "http://", "8000"] {
            assert_eq!(problems(&[("CC_URL", bad)]).len(), 1, "{bad}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = problems(&[
            ("CC_URL", "http://me:hunter2@host"),
            ("CC_API_KEY", "hunter2\n"),
        ]);
        assert_eq!(shown.len(), 2);
        assert!(!shown.concat().contains("hunter2"), "{shown:?}");
    }
}
