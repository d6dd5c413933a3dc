//! Following an execution's log across broken connections and restarts of the server.

use bytes::Bytes;
use shared::event::kind;
use shared::id::{EventId, ExecutionId};
use shared::request::Request;
use tokio::time::timeout;

use crate::client::{Client, SILENCE};
use crate::failure::ClientError;
use crate::lines::Lines;
use crate::patience::Patience;

/// What comes next.
#[derive(Debug)]
pub(crate) enum News {
    /// A line of the log, or a `gap` line, which has no id.
    Line(Bytes),
    /// Something that the person who waits should know.
    Notice(String),
}

/// A reader of one log.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    client: &'a Client,
    id: ExecutionId,
    /// The job, until the server has acknowledged it. Sending it twice is as good as sending it once.
    submission: Option<Request>,
    cursor: EventId,
    /// Until `complete`, or up to what there is now.
    follow: bool,
    lines: Option<Lines>,
    patience: Patience,
    is_over: bool,
}

impl<'a> Follower<'a> {
    /// Reads an execution's log after a cursor.
    pub(crate) fn of(client: &'a Client, id: ExecutionId, after: EventId, follow: bool) -> Self {
        Self {
            client,
            id,
            submission: None,
            cursor: after,
            follow,
            lines: None,
            patience: Patience::new(),
            is_over: false,
        }
    }

    /// Submits a job and follows it.
    pub(crate) fn submit(client: &'a Client, id: ExecutionId, job: Request) -> Self {
        Self {
            submission: Some(job),
            ..Self::of(client, id, EventId::START, true)
        }
    }

    /// Whether the server is known to have the job.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.submission.is_none()
    }

    /// Whether the last line has been read.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What comes next; none at the end. Losing interest while it waits loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<News>, ClientError> {
        while !self.is_over {
            let error = match self.read().await {
                Ok(Some(line)) => match self.accept(line) {
                    Some(line) => return Ok(Some(News::Line(line))),
                    None => continue,
                },
                Ok(None) if !self.follow => {
                    self.is_over = true;
                    continue;
                }
                Ok(None) => self.client.cut(),
                Err(error) => error,
            };
            self.lines = None;
            if let Some(notice) = self.patience.failed(error)? {
                return Ok(Some(News::Notice(notice)));
            }
        }
        Ok(None)
    }

    /// The next line of the present connection, which is made if there is none.
    async fn read(&mut self) -> Result<Option<Bytes>, ClientError> {
        let client = self.client;
        if self.lines.is_none() {
            self.patience.pause().await;
            let response = match &self.submission {
                Some(job) => client.submit(job).await?,
                None => client.log(&self.id, self.cursor, self.follow).await?,
            };
            self.submission = None;
            self.lines = Some(Lines::of(response));
        }
        let Some(lines) = &mut self.lines else {
            return Ok(None);
        };
        match timeout(SILENCE, lines.next()).await {
            Ok(line) => line.map_err(|cause| client.broken(cause)),
            Err(_) => Err(client.silent()),
        }
    }

    /// The line, unless it is a heartbeat or has been seen already.
    fn accept(&mut self, line: Bytes) -> Option<Bytes> {
        self.patience.met();
        match position(&line) {
            Some(id) if id <= self.cursor => return None,
            Some(id) => self.cursor = id,
            None if line.starts_with(b"{\"type\":\"heartbeat\"") => return None,
            None => {}
        }
        self.is_over = kind(&line) == Some("complete");
        Some(line)
    }
}

/// The id of a line that has one, read from its beginning.
fn position(line: &[u8]) -> Option<EventId> {
    let rest = line.strip_prefix(b"{\"id\":\"")?;
    let length = rest.iter().take(40).position(|&byte| byte == b'"')?;
    std::str::from_utf8(&rest[..length]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Source;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const QUEUED: &str = "{\"id\":\"0-1\",\"type\":\"queued\"}\n";
    const STARTED: &str = "{\"id\":\"1-1\",\"type\":\"started\"}\n";
    const OUTPUT: &str = "{\"id\":\"1-2\",\"type\":\"output\"}\n";
    const COMPLETE: &str = "{\"id\":\"1-3\",\"type\":\"complete\"}\n";
    const HEARTBEAT: &str = "{\"type\":\"heartbeat\"}\n";

    /// Answers one request and hangs up; gives back the request's first line.
    async fn answer(listener: &TcpListener, status: &str, body: &str) -> String {
        let (mut connection, _) = listener.accept().await.expect("connects");
        let request = read_head(&mut connection).await;
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-ndjson\r\ncontent-length: 9999\r\n\r\n"
        );
        let answer = format!("{head}{body}");
        connection
            .write_all(answer.as_bytes())
            .await
            .expect("writes");
        request
    }

    async fn read_head(connection: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            head.push(connection.read_u8().await.expect("reads"));
        }
        let head = String::from_utf8(head).expect("is text");
        head.lines().next().unwrap_or_default().to_owned()
    }

    async fn lines(follower: &mut Follower<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(news) = follower.next().await.expect("goes on") {
            if let News::Line(line) = news {
                lines.push(String::from_utf8(line.to_vec()).expect("is text"));
            }
        }
        lines
    }

    #[tokio::test]
    async fn a_broken_stream_is_resumed_behind_the_last_whole_line() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address").to_string();
        let url = format!("http://{address}");
        let config = crate::config::Config::read(&Source::of([("CC_URL", url.as_str())]));
        let client = Client::new(&config.expect("is right")).expect("is made");
        let id: ExecutionId = "x".parse().expect("is an id");
        let mut follower = Follower::submit(&client, id, Request::default());

        let first = format!("{QUEUED}{HEARTBEAT}{STARTED}{}", &OUTPUT[..20]);
        let second = format!("{STARTED}{OUTPUT}{COMPLETE}");
        let server = async {
            [
                answer(&listener, "503 Service Unavailable", "").await,
                answer(&listener, "200 OK", &first).await,
                answer(&listener, "200 OK", &second).await,
            ]
        };
        let (requests, lines) = tokio::join!(server, lines(&mut follower));
        assert_eq!(
            requests,
            [
                "POST /execute HTTP/1.1",
                "POST /execute HTTP/1.1",
                "GET /executions/x?after=1-1 HTTP/1.1"
            ]
        );
        assert_eq!(lines, [QUEUED, STARTED, OUTPUT, COMPLETE]);
    }
}
