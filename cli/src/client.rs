//! Requests to the API server.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Response, redirect};
use serde::Serialize;
use shared::id::{EventId, ExecutionId};
use shared::request::Request;
use url::{Host, Url};

use crate::config::Config;
use crate::control::Action;
use crate::failure::{ClientError, Refusal};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// How long it may take to get a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence that counts as a broken connection; a server that lives sends heartbeats.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// A client of one API server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
}

impl Client {
    pub(crate) fn new(config: &Config) -> Result<Self, ClientError> {
        let mut headers = HeaderMap::new();
        let key = config.api_key.as_ref().map(shared::config::Secret::reveal);
        if let Some(mut value) =
            key.and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok())
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cc-executor/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            // The key is for this server and no other.
            .redirect(redirect::Policy::none());
        if is_loopback(&config.url) {
            builder = builder.no_proxy();
        }
        if config.url.scheme() == "http" {
            // Reading the certificates of the system takes longer than a whole request.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            http: builder
                .build()
                .map_err(|cause| ClientError::Setup { cause })?,
            url: config.url.clone(),
        })
    }

    /// Submits a job. The answer is a stream or a snapshot, as the request says.
    pub(crate) async fn submit(&self, request: &Request) -> Result<Response, ClientError> {
        let form = if request.stream == Some(false) {
            JSON
        } else {
            NDJSON
        };
        let post = self.http.post(self.at(&["execute"]));
        self.send(post.header(ACCEPT, form).json(request)).await
    }

    /// The log of an execution after a cursor, live until its end if it is to be followed.
    pub(crate) async fn log(
        &self,
        id: &ExecutionId,
        after: EventId,
        follow: bool,
    ) -> Result<Response, ClientError> {
        let mut url = self.at(&["executions", id.as_str()]);
        if after != EventId::START {
            url.query_pairs_mut()
                .append_pair("after", &after.to_string());
        }
        if !follow {
            url.query_pairs_mut().append_pair("follow", "false");
        }
        self.send(self.http.get(url).header(ACCEPT, NDJSON)).await
    }

    /// An execution as it stands, as JSON.
    pub(crate) async fn snapshot(&self, id: &ExecutionId) -> Result<String, ClientError> {
        let url = self.at(&["executions", id.as_str()]);
        self.json(self.http.get(url)).await
    }

    /// A page of the list of executions, as JSON.
    pub(crate) async fn list(&self, query: &[(&str, String)]) -> Result<String, ClientError> {
        let mut url = self.at(&["executions"]);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.json(self.http.get(url)).await
    }

    /// Asks an execution to do something; the answer is the execution as JSON.
    pub(crate) async fn control(
        &self,
        id: &ExecutionId,
        action: Action,
    ) -> Result<String, ClientError> {
        #[derive(Serialize)]
        struct Control {
            action: Action,
        }
        let url = self.at(&["executions", id.as_str(), "control"]);
        self.json(self.http.post(url).json(&Control { action }))
            .await
    }

    async fn json(&self, request: RequestBuilder) -> Result<String, ClientError> {
        let response = self.send(request.header(ACCEPT, JSON)).await?;
        self.text(response).await
    }

    /// The body of an answer that is not a stream.
    pub(crate) async fn text(&self, response: Response) -> Result<String, ClientError> {
        match tokio::time::timeout(SILENCE, response.text()).await {
            Ok(text) => text.map_err(|cause| self.broken(cause)),
            Err(_) => Err(self.silent()),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = match tokio::time::timeout(SILENCE, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(cause)) if cause.is_connect() => {
                let url = self.address();
                return Err(ClientError::Unreachable { url, cause });
            }
            Ok(Err(cause)) => return Err(self.broken(cause)),
            Err(_) => return Err(self.silent()),
        };
        if response.status().is_success() && is_ours(&response) {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let foreign = ClientError::Foreign {
            url: self.address(),
            status,
        };
        let Ok(text) = self.text(response).await else {
            return foreign;
        };
        Refusal::parse(status, &text).map_or(foreign, ClientError::Refused)
    }

    pub(crate) fn broken(&self, cause: reqwest::Error) -> ClientError {
        let url = self.address();
        ClientError::Broken { url, cause }
    }

    pub(crate) fn silent(&self) -> ClientError {
        let url = self.address();
        ClientError::Silent { url }
    }

    pub(crate) fn cut(&self) -> ClientError {
        let url = self.address();
        ClientError::Cut { url }
    }

    /// The server as a person writes it.
    fn address(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}

/// A proxy of the environment cannot reach what is on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_ours(response: &Response) -> bool {
    let media_type = response.headers().get(CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().split(';').next();
    matches!(
        media_type,
        Some("application/json" | "application/x-ndjson")
    )
}
