//! A small HTTP client, as strict as the clients that exist: no line may be longer than 64 KiB.

use std::net::SocketAddr;
use std::sync::Once;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::event::{Event, Log};

/// What a line reader of existing clients takes at most.
const LONGEST_LINE: usize = 64 * 1024;
/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// Talks to one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// A reply that has been read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// A client of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Somebody else may have installed it, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client can be made");
        Self {
            http,
            base: format!("http://{address}"),
            key: None,
        }
    }

    /// The same with an API key.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// A request that the caller completes.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// `GET`, for JSON.
    pub async fn get(&self, path: &str) -> Reply {
        let request = self.request(Method::GET, path);
        Reply::of(request.header(ACCEPT, "application/json")).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.request(Method::POST, path).json(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::DELETE, path)).await
    }

    /// Runs a job and streams its log.
    pub async fn execute(&self, job: &Value) -> Lines {
        Lines::of(self.request(Method::POST, "/execute").json(job)).await
    }

    /// Runs a job to its end.
    pub async fn run(&self, job: &Value) -> Log {
        self.execute(job).await.to_end().await
    }

    /// Queues a job without waiting for anything, and returns its id.
    pub async fn submit(&self, job: &Value) -> String {
        let mut job = job.clone();
        job["stream"] = json!(false);
        let reply = self.post("/execute", &job).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        let id = reply.json()["execution_id"].as_str().map(str::to_owned);
        id.expect("a snapshot has an id")
    }

    /// Streams a log after a cursor.
    pub async fn follow(&self, id: &str, after: &str) -> Lines {
        let path = format!("/executions/{id}?after={after}");
        Lines::of(self.request(Method::GET, &path)).await
    }

    /// The whole log of an execution, once that has ended.
    pub async fn log(&self, id: &str) -> Log {
        self.follow(id, "0-0").await.to_end().await
    }

    /// An execution as it stands.
    pub async fn snapshot(&self, id: &str) -> Value {
        let reply = self.get(&format!("/executions/{id}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// The snapshot of an execution, once it has this status.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let snapshot = self.snapshot(id).await;
            if snapshot["status"] == status {
                return snapshot;
            }
            assert!(
                Instant::now() < deadline && snapshot["ended_at"].is_null(),
                "it is never {status}: {snapshot}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the server says that it is well.
    pub async fn until_healthy(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.get("/health").await;
            if reply.status == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "it does not recover: {reply:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Reply {
    /// Sends a request and reads the whole reply.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("the whole reply arrives");
        Self {
            status,
            headers,
            body,
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// A header's text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// Asserts that this is a well-formed problem, and returns its code and its field.
    pub fn problem(&self) -> (String, Option<String>) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        assert!(
            body["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{body}"
        );
        let code = body["code"].as_str().expect("a problem has a code");
        (code.to_owned(), body["field"].as_str().map(str::to_owned))
    }
}

/// A log that is being streamed as NDJSON, line by line.
pub struct Lines {
    response: reqwest::Response,
    buffer: BytesMut,
}

/// The connection broke in the middle of a stream.
#[derive(Debug)]
pub struct Broken;

impl Lines {
    /// Sends a request that is answered by a stream.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        if response.status() != StatusCode::OK {
            let body = response.text().await;
            panic!("this is no stream: {body:?}");
        }
        Self {
            response,
            buffer: BytesMut::new(),
        }
    }

    /// A header of the reply.
    pub fn header(&self, name: &str) -> &str {
        let value = self.response.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The next line; none at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        self.try_next().await.expect("the connection holds")
    }

    /// The next line; none at the end of the stream.
    pub async fn try_next(&mut self) -> Result<Option<Event>, Broken> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                assert!(line.len() <= LONGEST_LINE, "a line of {} bytes", line.len());
                let json = serde_json::from_slice(&line).expect("every line is JSON");
                return Ok(Some(Event(json)));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("heartbeats break every silence");
            match chunk {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) => {
                    assert!(self.buffer.is_empty(), "a stream ends with a whole line");
                    return Ok(None);
                }
                Err(_) => return Err(Broken),
            }
        }
    }

    /// Reads up to the first line for which `is_wanted` holds.
    pub async fn until(&mut self, mut is_wanted: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            let found = is_wanted(&event);
            events.push(event);
            if found {
                return events;
            }
        }
        panic!("the stream ended without it: {events:?}");
    }

    /// Reads up to the first line of this type and returns that.
    pub async fn until_kind(&mut self, kind: &str) -> Event {
        let mut events = self.until(|event| event.kind() == kind).await;
        events.pop().expect("it ends with the one that was wanted")
    }

    /// Reads what there is until the server closes the stream.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// The rest of a log that is read to its end.
    pub async fn to_end(mut self) -> Log {
        Log::new(self.rest().await)
    }
}
