//! A stub of the Messages API, on loopback: it answers as a test has written it down, and remembers what it
//! was asked.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;
use actix_web::http::Method;
use actix_web::rt::System;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, text};

/// More than the program ever sends.
const LONGEST_BODY: usize = 64 << 20;

/// A running stub, gone when it is dropped.
pub struct Stub {
    address: SocketAddr,
    state: Arc<State>,
    server: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

/// What the program has asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST`, `HEAD` and the like.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body; null if it is not JSON.
    pub body: Value,
}

struct State {
    answers: Vec<Answer>,
    /// How many of the answers each session has had.
    given: Mutex<BTreeMap<String, usize>>,
    requests: Mutex<Vec<Request>>,
}

impl Stub {
    /// Gives these answers, one after the other, to each session for itself; the last one again and again.
    pub fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let state = Arc::new(State {
            answers: answers.into_iter().collect(),
            given: Mutex::default(),
            requests: Mutex::default(),
        });
        assert!(!state.answers.is_empty(), "a stub has an answer");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds to any port");
        let address = listener.local_addr().expect("has an address");
        let (tell, told) = std::sync::mpsc::channel();
        let for_app = web::Data::from(Arc::clone(&state));
        // A thread of its own, because a test may block in the meantime.
        let thread = std::thread::spawn(move || {
            System::new().block_on(async move {
                let app = move || {
                    App::new()
                        .app_data(for_app.clone())
                        .app_data(web::PayloadConfig::new(LONGEST_BODY))
                        .default_service(web::to(answer))
                };
                let server = HttpServer::new(app)
                    .workers(1)
                    .disable_signals()
                    .listen(listener)
                    .expect("it listens already")
                    .run();
                tell.send(server.handle()).expect("somebody waits for it");
                server.await.expect("the stub works");
            });
        });
        Self {
            address,
            state,
            server: told.recv().expect("the stub starts"),
            thread: Some(thread),
        }
    }

    /// Where it is, for `ANTHROPIC_BASE_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    /// The requests that belong to a conversation, and so have had one of the answers.
    pub fn conversation(&self) -> Vec<Request> {
        let requests = self.requests().into_iter();
        requests.filter(Request::is_conversation).collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // The word is sent at once; only the wait for the end is left out.
        drop(self.server.stop(false));
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

impl Request {
    /// Whether this belongs to a conversation. The program asks more than that: it warms up its agents,
    /// and has a small model find titles and paths.
    pub fn is_conversation(&self) -> bool {
        let first = &self.body["messages"][0]["content"];
        // Text alone, or in a list of blocks.
        let is_warm_up = [first, &first[0]["text"]].contains(&&json!("Warmup"));
        let has_tools = (self.body["tools"].as_array()).is_some_and(|tools| !tools.is_empty());
        let is_small = (self.body["model"].as_str()).is_some_and(|model| model.contains("haiku"));
        self.path == "/v1/messages" && !is_warm_up && (has_tools || !is_small)
    }

    /// Which session asks: the UUID at the end of what it says about its user.
    fn session(&self) -> String {
        let user = self.body["metadata"]["user_id"].as_str();
        let user = user.unwrap_or_default().trim_end_matches(['"', '}']);
        user[user.len().saturating_sub(36)..].to_owned()
    }
}

impl State {
    fn next_answer(&self, request: &Request) -> Answer {
        let mut given = lock(&self.given);
        let given = given.entry(request.session()).or_default();
        let index = (*given).min(self.answers.len() - 1);
        *given += 1;
        self.answers[index].clone()
    }
}

async fn answer(request: HttpRequest, body: Bytes, state: web::Data<State>) -> HttpResponse {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.as_str().to_owned(), value.into_owned())
    });
    let asked = Request {
        method: request.method().to_string(),
        path: request.path().to_owned(),
        headers: headers.collect(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let number = {
        let mut requests = lock(&state.requests);
        requests.push(asked.clone());
        requests.len()
    };
    match (request.method(), asked.path.as_str()) {
        (&Method::POST, "/v1/messages") => {
            let answer = if asked.is_conversation() {
                state.next_answer(&asked)
            } else {
                text("nothing")
            };
            let streams = asked.body["stream"] == true;
            answer.reply(&asked.body["model"], streams, number).await
        }
        (&Method::POST, "/v1/messages/count_tokens") => {
            HttpResponse::Ok().json(json!({"input_tokens": 10}))
        }
        _ => HttpResponse::NotFound().finish(),
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
