//! The API server's settings.

use std::net::SocketAddr;
use std::time::Duration;

use shared::config::{Bytes, ConfigError, Reader, Secret, Setting, Source};
use shared::spec::Policy;

/// All settings of the API server.
pub const SETTINGS: &[Setting] = &[
    BIND,
    API_KEYS,
    INSECURE_NO_AUTH,
    ALLOWED_HOSTS,
    ALLOWED_ORIGINS,
    HEARTBEAT,
    DEFAULT_TIMEOUT,
    MAX_TIMEOUT,
    OUTPUT_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_BODY_BYTES,
];

const BIND: Setting = Setting::new("CC_BIND", "127.0.0.1:8000", "The address to listen on");
const API_KEYS: Setting = Setting::secret(
    "CC_API_KEYS",
    "",
    "Keys that clients send as `Authorization: Bearer …`, separated by commas; without any, only loopback may be bound",
);
const INSECURE_NO_AUTH: Setting = Setting::new(
    "CC_INSECURE_NO_AUTH",
    "0",
    "1 allows other addresses than loopback without any keys: whoever reaches the port runs commands",
);
const ALLOWED_HOSTS: Setting = Setting::new(
    "CC_ALLOWED_HOSTS",
    "",
    "Host names under which clients reach this server, besides localhost and IP addresses, separated by commas",
);
const ALLOWED_ORIGINS: Setting = Setting::new(
    "CC_ALLOWED_ORIGINS",
    "",
    "Origins of web pages that may call this server, besides its own, like https://tools.example.org, separated by commas",
);
const HEARTBEAT: Setting = Setting::new(
    "CC_HEARTBEAT",
    "5",
    "Seconds of silence after which a stream carries a heartbeat",
);
const DEFAULT_TIMEOUT: Setting = Setting::new(
    "CC_DEFAULT_TIMEOUT",
    "3600",
    "Seconds that an execution may take if it names no timeout",
);
const MAX_TIMEOUT: Setting = Setting::new(
    "CC_MAX_TIMEOUT",
    "86400",
    "The longest timeout, in seconds, that an execution may ask for",
);
const OUTPUT_BYTES: Setting = Setting::new(
    "CC_OUTPUT_BYTES",
    "64MiB",
    "How much output is kept of an execution that names no limit",
);
const MAX_OUTPUT_BYTES: Setting = Setting::new(
    "CC_MAX_OUTPUT_BYTES",
    "1GiB",
    "The largest output limit that an execution may ask for",
);
const MAX_BODY_BYTES: Setting =
    Setting::new("CC_MAX_BODY_BYTES", "1MiB", "The largest request body");

/// How an API server works.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on.
    pub bind: SocketAddr,
    /// The keys that open it; none means that it is open.
    pub keys: Vec<Secret>,
    /// Host names besides localhost and IP addresses, in lower case.
    pub allowed_hosts: Vec<String>,
    /// Origins besides its own.
    pub allowed_origins: Vec<String>,
    /// Silence before a heartbeat.
    pub heartbeat: Duration,
    /// Defaults and ceilings for jobs.
    pub policy: Policy,
    /// The largest request body.
    pub max_body_bytes: usize,
}

impl Config {
    /// Reads the settings.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(source);
        let bind: SocketAddr = reader.value(&BIND);
        let keys = keys(source);
        let is_open: bool = reader.value(&INSECURE_NO_AUTH);
        if keys.is_empty() && !bind.ip().is_loopback() && !is_open {
            reader.problem(format!(
                "CC_BIND is {bind}, which others can reach, and there are no CC_API_KEYS: \
                 set keys, bind 127.0.0.1, or set CC_INSECURE_NO_AUTH=1 to let anybody run commands"
            ));
        }
        for key in keys.iter().filter(|key| key.reveal().len() < 16) {
            let length = key.reveal().len();
            reader.problem(format!("CC_API_KEYS has a key of {length} characters; 16 is the least (try: openssl rand -hex 32)"));
        }
        let lower =
            |names: Vec<String>| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let config = Self {
            bind,
            keys,
            allowed_hosts: lower(reader.value(&ALLOWED_HOSTS)),
            allowed_origins: lower(reader.value(&ALLOWED_ORIGINS)),
            heartbeat: reader.value(&HEARTBEAT),
            policy: policy(&mut reader),
            max_body_bytes: usize::try_from(reader.value::<Bytes>(&MAX_BODY_BYTES).0)
                .unwrap_or(usize::MAX),
        };
        reader.finish(config)
    }
}

fn keys(source: &Source) -> Vec<Secret> {
    use shared::config::FromSetting;
    let texts = source.get(API_KEYS.name).unwrap_or_default().split(',');
    let texts = texts.map(str::trim).filter(|text| !text.is_empty());
    texts
        .filter_map(|text| Secret::from_setting(text).ok())
        .collect()
}

fn policy(reader: &mut Reader<'_>) -> Policy {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let policy = Policy {
        default_timeout_ms: millis(reader.value(&DEFAULT_TIMEOUT)),
        max_timeout_ms: millis(reader.value(&MAX_TIMEOUT)),
        output_bytes: reader.value::<Bytes>(&OUTPUT_BYTES).0,
        max_output_bytes: reader.value::<Bytes>(&MAX_OUTPUT_BYTES).0,
    };
    if policy.default_timeout_ms > policy.max_timeout_ms {
        reader.problem("CC_DEFAULT_TIMEOUT is larger than CC_MAX_TIMEOUT");
    }
    if policy.output_bytes > policy.max_output_bytes {
        reader.problem("CC_OUTPUT_BYTES is larger than CC_MAX_OUTPUT_BYTES");
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(texts: &[(&str, &str)]) -> Vec<String> {
        let read = Config::read(&Source::of(texts.iter().copied()));
        read.err().map(|error| error.0).unwrap_or_default()
    }

    #[test]
    fn without_keys_only_loopback_may_be_bound() {
        assert_eq!(problems(&[]).len(), 0);
        assert_eq!(problems(&[("CC_BIND", "[::1]:1")]).len(), 0);
        assert!(problems(&[("CC_BIND", "0.0.0.0:8000")])[0].contains("CC_API_KEYS"));
        let key = ("CC_API_KEYS", "0123456789abcdef");
        assert_eq!(problems(&[("CC_BIND", "0.0.0.0:8000"), key]).len(), 0);
        let open = ("CC_INSECURE_NO_AUTH", "1");
        assert_eq!(problems(&[("CC_BIND", "0.0.0.0:8000"), open]).len(), 0);
    }

    #[test]
    fn every_problem_is_reported_and_no_key_is_shown() {
        let texts = [
            ("CC_API_KEYS", "hunter2"),
            ("CC_HEARTBEAT", "0"),
            ("CC_MAX_TIMEOUT", "1"),
            ("CC_BIND", "here"),
        ];
        let problems = problems(&texts);
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(!problems.concat().contains("hunter2"));
    }
}
