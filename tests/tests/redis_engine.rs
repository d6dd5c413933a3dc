//! What only Redis can do to its clients: go away, come back, run out of memory, and connect many
//! processes.

use std::process::Command;
use std::time::{Duration, Instant};

use harness::certificate::Authority;
use harness::redis::RedisServer;
use harness::submissions::{LONG, claimant, lease, output, submission};
use harness::wait::eventually;
use shared::config::Source;
use shared::entry::chain;
use shared::event::Line;
use shared::id::{EventId, ExecutionId};
use shared::life::{cancel, change, change_as_holder};
use shared::outcome::{Ending, Failure, Outcome};
use shared::record::Record;
use shared::state::{Cause, Event, Progress, Status};
use shared::store::redis::{Options, RedisStore};
use shared::store::{AppendError, Claim, Claimant, Lease, Store, Submitted};

/// Longer than Redis takes to come back.
const DEADLINE: Duration = Duration::from_secs(20);

fn open(url: String, shards: usize, retention: Duration) -> RedisStore {
    let options = Options {
        url,
        shards,
        retention,
    };
    RedisStore::open(&options).expect("opens")
}

async fn start(store: &RedisStore, id: &str) -> Record {
    store
        .submit(&submission(id, |_| {}))
        .await
        .expect("submits");
    match store.claim(&claimant("w")).await.expect("claims") {
        Claim::Claimed(record) => *record,
        Claim::Nothing { .. } => panic!("{id} can be claimed"),
    }
}

async fn end(store: &RedisStore, held: &Record, next: u64) {
    let event = Event::Finish {
        attempt: 1,
        progress: Progress::default(),
        outcome: Outcome::unseen(Ending::Failed, 1, Failure::new("x", "x")),
    };
    let next = EventId {
        attempt: 1,
        sequence: next,
    };
    change_as_holder(store, held, &event, &[], next)
        .await
        .expect("ends");
}

async fn log(store: &RedisStore, id: &ExecutionId) -> Vec<Line> {
    let batch = store.read(id, EventId::START, 10_000).await;
    batch.expect("reads").lines
}

async fn until_it_answers(store: &RedisStore) {
    eventually(DEADLINE, "an answer", async || store.ping().await.ok()).await;
}

#[tokio::test]
async fn nothing_is_left_behind_once_everything_is_removed() {
    for shards in [1, 4] {
        let server = RedisServer::start();
        let store = open(server.url(), shards, Duration::ZERO);
        for number in 0..24 {
            let given = submission(&format!("x{number}"), |spec| {
                spec.queue = format!("queue-{}", number % 5);
                spec.delay_ms = [0, 3_600_000][number % 2];
                spec.max_attempts = 2;
            });
            store.submit(&given).await.expect("submits");
            if number % 2 == 1 {
                cancel(&store, &given.id).await.expect("is cancelled");
            }
        }
        let mut named = claimant("named");
        named.queues = vec!["queue-1".to_owned(), "queue-9".to_owned()];
        let mut claimed = 0;
        while let Claim::Claimed(held) = store.claim(&claimant("w")).await.expect("claims") {
            claimed += 1;
            if held.state.attempt() == 1 {
                let hand_back = Event::HandBack {
                    attempt: 1,
                    cause: Cause::Shutdown,
                };
                change(&store, &held.id, &hand_back)
                    .await
                    .expect("is handed back");
            } else {
                store
                    .append(&lease(&held), &output(2, 1..=3))
                    .await
                    .expect("appends");
                cancel(&store, &held.id).await.expect("is asked to end");
                store
                    .renew(&[lease(&held)], Duration::ZERO)
                    .await
                    .expect("renews");
                let lapse = Event::LapseLease { attempt: 2 };
                change(&store, &held.id, &lapse).await.expect("is lost");
            }
        }
        assert_eq!(claimed, 24, "twelve, two times each");
        store.claim(&named).await.expect("finds nothing");
        assert_eq!(store.sweep().await.expect("sweeps"), 24);
        let is_left = |key: &String| !key.ends_with(":clock") && !key.ends_with(":claim:w");
        let left: Vec<String> = server.keys().into_iter().filter(is_left).collect();
        assert_eq!(left, [""; 0]);
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let mut server = RedisServer::start();
    let store = open(server.url(), 4, LONG);
    let held = start(&store, "running").await;
    store
        .append(&lease(&held), &output(1, 1..=100))
        .await
        .expect("appends");
    let mut records = vec![held.clone()];
    for number in 0..20 {
        let given = submission(&format!("x{number}"), |spec| {
            spec.delay_ms = [0, 3_600_000][number % 2];
        });
        match store.submit(&given).await.expect("submits") {
            Submitted::Created(record) => records.push(record),
            Submitted::Existing(record) => panic!("{} is there already", record.id),
        }
    }
    let before = log(&store, &held.id).await;
    server.restart();
    until_it_answers(&store).await;
    for record in &records {
        assert_eq!(
            store.load(&record.id).await.expect("loads").as_ref(),
            Some(record)
        );
    }
    assert_eq!(log(&store, &held.id).await, before);
    store
        .append(&lease(&held), &output(1, 99..=102))
        .await
        .expect("appends");
    assert_eq!(log(&store, &held.id).await.len(), 103);
    let mut claimed = 0;
    while let Claim::Claimed(_) = store.claim(&claimant("w")).await.expect("claims") {
        claimed += 1;
    }
    assert_eq!(claimed, 10, "those without a delay");
}

#[tokio::test]
async fn appends_go_on_over_kills_without_loss_or_repetition() {
    const LINES: u64 = 3_000;
    let mut server = RedisServer::start();
    let store = open(server.url(), 1, LONG);
    let held = start(&store, "x").await;
    let restarts = async {
        for part in 1..=3 {
            let far_enough = part * LINES / 5;
            eventually(DEADLINE, "progress", async || {
                let last = store.last_event(&held.id).await.ok()?;
                (last.sequence >= far_enough).then_some(())
            })
            .await;
            server.restart();
        }
    };
    tokio::join!(
        write_all(&store, lease(&held), output(1, 1..=LINES)),
        restarts
    );
    end(&store, &held, LINES + 1).await;
    let ids: Vec<EventId> = log(&store, &held.id)
        .await
        .iter()
        .map(|line| line.id)
        .collect();
    let id = |attempt, sequence| EventId { attempt, sequence };
    let expected: Vec<EventId> = [EventId::QUEUED]
        .into_iter()
        .chain((1..=LINES + 2).map(|sequence| id(1, sequence)))
        .collect();
    assert_eq!(ids, expected);
}

/// Appends in batches as a worker does: the same lines again until the store has them.
async fn write_all(store: &RedisStore, lease: Lease, lines: Vec<Line>) {
    for batch in lines.chunks(7) {
        eventually(DEADLINE, "an append", async || {
            match store.append(&lease, batch).await {
                Ok(()) => Some(()),
                Err(AppendError::Store(_)) => None,
                Err(AppendError::Fenced) => panic!("nobody else has the execution"),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_at_once_and_no_more_once_it_is_back() {
    let mut server = RedisServer::start();
    let store = open(server.url(), 1, LONG);
    let other = open(server.url(), 1, LONG);
    store.ping().await.expect("answers");
    server.kill9();
    for store in [&store, &other] {
        for _ in 0..3 {
            let asked = Instant::now();
            store
                .submit(&submission("x", |_| {}))
                .await
                .expect_err("nobody is there");
            store
                .load(&"x".parse().expect("is an id"))
                .await
                .expect_err("nobody is there");
            assert!(
                asked.elapsed() < Duration::from_secs(3),
                "{:?}",
                asked.elapsed()
            );
        }
    }
    server.restart();
    for store in [&store, &other] {
        until_it_answers(store).await;
        store
            .submit(&submission("x", |_| {}))
            .await
            .expect("submits");
    }
}

#[tokio::test]
async fn a_wait_for_work_outlasts_an_outage() {
    let mut server = RedisServer::start();
    let store = open(server.url(), 1, LONG);
    let waiting = open(server.url(), 1, LONG);
    let work = eventually(DEADLINE, "work", async || {
        match waiting.claim(&claimant("w")).await {
            Ok(Claim::Claimed(record)) => Some(record),
            Ok(Claim::Nothing { .. }) => {
                waiting.wait_for_work(&claimant("w"), DEADLINE).await;
                None
            }
            Err(_) => None,
        }
    });
    let outage = async {
        until_it_waits(&server).await;
        server.restart();
        until_it_answers(&store).await;
        store
            .submit(&submission("x", |_| {}))
            .await
            .expect("submits");
    };
    let (claimed, ()) = tokio::join!(work, outage);
    assert_eq!(claimed.id.as_str(), "x");
}

/// Until somebody is in a blocking command.
async fn until_it_waits(server: &RedisServer) {
    eventually(DEADLINE, "somebody who waits", async || {
        let clients: String = command(server, &["INFO", "clients"]);
        clients.contains("blocked_clients:1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn subscriptions_come_back_after_an_outage() {
    let mut server = RedisServer::start();
    let (writer, reader) = (open(server.url(), 1, LONG), open(server.url(), 1, LONG));
    let held = start(&writer, "x").await;
    let mut watch = reader.watch(&held.id).await;
    let mut controls = reader.controls("w").await;
    server.restart();
    // Whoever was asleep is told to look for itself, since notices may have been lost.
    woken(watch.changed()).await;
    until_it_answers(&writer).await;
    writer
        .append(&lease(&held), &output(1, 1..=1))
        .await
        .expect("appends");
    woken(watch.changed()).await;
    cancel(&writer, &held.id).await.expect("is asked to end");
    let control = woken(controls.recv()).await.expect("is told");
    assert_eq!(control.id, held.id);
}

#[tokio::test]
async fn processes_hear_of_each_other() {
    let server = RedisServer::start();
    let (api, worker) = (open(server.url(), 4, LONG), open(server.url(), 4, LONG));
    let mut controls = worker.controls("w").await;
    for (number, queues) in [(0, vec![]), (1, vec!["default".to_owned()])] {
        let mut claimant = claimant("w");
        claimant.queues = queues;
        let nothing = worker.claim(&claimant).await.expect("answers");
        assert!(matches!(nothing, Claim::Nothing { next_due: None }));
        let given = submission(&format!("x{number}"), |_| {});
        let (submitted, ()) = woken(async {
            tokio::join!(api.submit(&given), worker.wait_for_work(&claimant, LONG))
        })
        .await;
        submitted.expect("submits");
        let mut watch = api.watch(&given.id).await;
        let Claim::Claimed(held) = worker.claim(&claimant).await.expect("claims") else {
            panic!("it waits");
        };
        worker
            .append(&lease(&held), &output(1, 1..=1))
            .await
            .expect("appends");
        woken(watch.changed()).await;
        cancel(&api, &given.id).await.expect("is asked to end");
        assert_eq!(
            woken(controls.recv()).await.map(|control| control.id),
            Some(held.id.clone())
        );
        end(&worker, &held, 2).await;
        woken(watch.changed()).await;
        let record = api.load(&given.id).await.expect("loads").expect("is there");
        assert_eq!(record.state.status(), Status::Failed);
    }
}

async fn woken<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait)
        .await
        .expect("is woken")
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_answered_again() {
    let server = RedisServer::start();
    for shards in [1, 4] {
        let store = open(server.url(), shards, LONG);
        for number in 0..8 {
            let given = submission(&format!("x{shards}-{number}"), |spec| spec.max_attempts = 2);
            store.submit(&given).await.expect("submits");
        }
        let claim = async |claimant: Claimant| match store.claim(&claimant).await.expect("claims") {
            Claim::Claimed(record) => Some(*record),
            Claim::Nothing { .. } => None,
        };
        let question = claimant("w");
        let first = claim(question.clone()).await.expect("something waits");
        assert_eq!(claim(question.clone()).await, Some(first.clone()));
        let mut of_another = question.clone();
        of_another.worker = "v".to_owned();
        let others = claim(of_another).await.expect("something waits");
        assert_ne!(others.id, first.id, "tickets are a worker's own");
        let hand_back = Event::HandBack {
            attempt: 1,
            cause: Cause::Shutdown,
        };
        change(&store, &first.id, &hand_back)
            .await
            .expect("is handed back");
        let next = claim(question.clone()).await.expect("something waits");
        assert_eq!(
            next.state.attempt(),
            if next.id == first.id { 2 } else { 1 }
        );
        while claim(claimant("w")).await.is_some() {}
    }
}

#[tokio::test]
async fn a_line_that_finds_no_memory_leaves_no_hole() {
    let server = RedisServer::start();
    let store = open(server.url(), 1, LONG);
    let mut lines = output(1, 1..=6);
    lines[1].json = [b"x".repeat(60_000), b"\n".to_vec()].concat().into();
    let mut refusals = 0;
    // With some of these, the long line does not fit and the short ones before and after it do.
    for room in (10_000..120_000).step_by(10_000) {
        let held = start(&store, &format!("x{room}")).await;
        let memory: String = command(&server, &["INFO", "memory"]);
        let used = memory
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        let used: u64 = used.and_then(|used| used.parse().ok()).expect("is told");
        limit_memory(&server, used + room);
        match store.append(&lease(&held), &lines).await {
            Ok(()) => {}
            Err(AppendError::Store(_)) => refusals += 1,
            Err(AppendError::Fenced) => panic!("nobody else has the execution"),
        }
        limit_memory(&server, 0);
        store.append(&lease(&held), &lines).await.expect("appends");
        assert_eq!(
            log(&store, &held.id).await[1..],
            lines,
            "with room for {room} bytes"
        );
    }
    assert!(refusals > 0);
}

/// Lets the server refuse what needs more memory than this; 0 is no limit.
fn limit_memory(server: &RedisServer, bytes: u64) {
    command::<()>(server, &["CONFIG", "SET", "maxmemory", &bytes.to_string()]);
}

fn command<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut command = redis::Cmd::new();
    let answer = command.arg(words).query(&mut server.connect());
    answer.expect("answers")
}

#[tokio::test]
async fn an_authority_that_nobody_knows_is_not_trusted() {
    let server = RedisServer::start_with_tls(&Authority::create());
    let store = open(server.tls_url(), 1, LONG);
    let error = store.ping().await.expect_err("is refused");
    assert!(chain(&error).contains("UnknownIssuer"), "{}", chain(&error));
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the environment of this very process cannot be changed safely"
)]
fn a_private_authority_is_trusted_by_its_file() {
    let authority = Authority::create();
    let server = RedisServer::start_with_tls(&authority);
    let this_program = std::env::current_exe().expect("has a path");
    let run = Command::new(this_program)
        .args([
            "--exact",
            "everything_works_over_tls",
            "--ignored",
            "--nocapture",
        ])
        .env("REDIS_URL", server.tls_url())
        .env("SSL_CERT_FILE", authority.certificate())
        .output()
        .expect("starts");
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{output}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(output.contains("1 passed"), "{output}");
    assert!(server.keys().iter().any(|key| key.ends_with(":x:over-tls")));
}

#[tokio::test]
#[ignore = "run by a_private_authority_is_trusted_by_its_file, with its environment"]
async fn everything_works_over_tls() {
    let source = Source::environment();
    let url = source.get("REDIS_URL").expect("is set").to_owned();
    let store = open(url, 1, LONG);
    let held = start(&store, "over-tls").await;
    let mut watch = store.watch(&held.id).await;
    store
        .append(&lease(&held), &output(1, 1..=3))
        .await
        .expect("appends");
    woken(watch.changed()).await;
    store
        .wait_for_work(&claimant("w"), Duration::from_millis(1))
        .await;
    assert_eq!(log(&store, &held.id).await.len(), 4);
    end(&store, &held, 4).await;
}
