//! What every request has to pass: `Host` and `Origin` (against web pages that reach for the
//! loopback), the type of its body, and a key where there are any.

use std::net::IpAddr;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use sha2::{Digest, Sha256};
use shared::config::Secret;
use shared::id::Owner;
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::{Config, State};

/// Paths that need no key: they say nothing about anybody's jobs.
const PUBLIC_PATHS: [&str; 3] = ["/health", "/health/live", "/openapi.json"];

/// The keys, as their hashes, with the owner each of them stands for.
pub(crate) struct Keys(Vec<([u8; 32], Owner)>);

impl Keys {
    pub(crate) fn new(secrets: &[Secret]) -> Self {
        let key = |secret: &Secret| {
            let hash: [u8; 32] = Sha256::digest(secret.reveal()).into();
            let name = hash[..4].iter().map(|byte| format!("{byte:02x}"));
            (
                hash,
                Owner::named(format!("key-{}", name.collect::<String>())),
            )
        };
        Self(secrets.iter().map(key).collect())
    }

    /// Whom a request comes from; none if it has to have a key and has not.
    fn owner(&self, headers: &HeaderMap) -> Option<Owner> {
        if self.0.is_empty() {
            return Some(Owner::local());
        }
        let token = text(headers, &AUTHORIZATION)?
            .strip_prefix("Bearer ")?
            .trim();
        let hash: [u8; 32] = Sha256::digest(token).into();
        // All are compared, so that the time taken does not tell which one came near.
        let matches: Vec<&Owner> = self
            .0
            .iter()
            .filter_map(|(known, owner)| bool::from(known.ct_eq(&hash)).then_some(owner))
            .collect();
        matches.first().copied().cloned()
    }
}

/// The middleware.
pub(crate) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if let Some(state) = request.app_data::<web::Data<State>>() {
        let owner = admit(&request, state)?;
        request.extensions_mut().insert(owner);
    }
    next.call(request).await
}

fn admit(request: &ServiceRequest, state: &State) -> Result<Owner, ApiError> {
    let headers = request.headers();
    let host = text(headers, &HOST).unwrap_or_default();
    if !is_known_host(host, &state.config) {
        return Err(ApiError::UnknownHost);
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        if !is_known_origin(origin, host, &state.config) {
            return Err(ApiError::ForeignOrigin);
        }
    }
    let owner = match state.keys.owner(headers) {
        Some(owner) => owner,
        None if is_public(request.path()) => Owner::local(),
        None => return Err(ApiError::Unauthorized),
    };
    if request.method() == Method::POST && !is_json(headers) {
        return Err(ApiError::NotJson);
    }
    Ok(owner)
}

fn is_public(path: &str) -> bool {
    PUBLIC_PATHS.contains(&path) || path == "/docs" || path.starts_with("/docs/")
}

fn is_known_host(host: &str, config: &Config) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    // A page can make its own name resolve to us, but it cannot make the browser send an address.
    name == "localhost" || literal.parse::<IpAddr>().is_ok() || config.allowed_hosts.contains(&name)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() =>
        {
            name
        }
        _ => host,
    }
}

fn is_known_origin(origin: &str, host: &str, config: &Config) -> bool {
    let origin = origin.to_ascii_lowercase();
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    of_origin == Some(&host.to_ascii_lowercase()) || config.allowed_origins.contains(&origin)
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = text(headers, &CONTENT_TYPE).and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Source;

    fn config() -> Config {
        let source = Source::of([
            ("CC_ALLOWED_HOSTS", "Api.example.org"),
            ("CC_ALLOWED_ORIGINS", "https://tools.example.org"),
        ]);
        Config::read(&source).expect("is right")
    }

    #[test]
    fn names_that_anybody_can_register_are_not_ours() {
        let config = config();
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "[::1]:8000",
            "10.1.2.3",
            "api.example.org:443",
        ] {
            assert!(is_known_host(host, &config), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            ":8000",
        ] {
            assert!(!is_known_host(host, &config), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let config = config();
        for origin in ["http://localhost:8000", "https://tools.example.org"] {
            assert!(
                is_known_origin(origin, "localhost:8000", &config),
                "{origin}"
            );
        }
        for origin in [
            "null",
            "",
            "http://localhost:9000",
            "https://evil.example",
            "http://localhost:8000.evil.example",
        ] {
            assert!(
                !is_known_origin(origin, "localhost:8000", &config),
                "{origin}"
            );
        }
    }
}
