//! What only the embedded engine does: keep its data in a directory that one process uses.

use std::path::Path;

use harness::submissions::{LONG, claimant, lease, output, submission};
use rusqlite::{Connection, OpenFlags};
use shared::id::EventId;
use shared::life::{cancel, change};
use shared::state::{Event, State};
use shared::store::embedded::{EmbeddedStore, Options};
use shared::store::{Claim, Filter, Renewal, Store, StoreError};
use std::time::Duration;
use tempfile::TempDir;

fn open(directory: &Path, retention: Duration) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(&Options {
        directory: directory.to_owned(),
        retention,
    })
}

async fn submit(store: &EmbeddedStore, id: &str) {
    let given = submission(id, |spec| spec.max_attempts = 2);
    store.submit(&given).await.expect("submits");
}

async fn start(store: &EmbeddedStore, id: &str) -> shared::record::Record {
    submit(store, id).await;
    match store.claim(&claimant("w")).await.expect("claims") {
        Claim::Claimed(record) => *record,
        Claim::Nothing { .. } => panic!("{id} can be claimed"),
    }
}

#[tokio::test]
async fn everything_is_there_when_it_is_opened_again() {
    let directory = TempDir::new().expect("makes a directory");
    let inner = directory.path().join("made/when/needed");
    let store = open(&inner, LONG).expect("opens");
    let running = start(&store, "running").await;
    store
        .append(&lease(&running), &output(1, 1..=5))
        .await
        .expect("appends");
    submit(&store, "queued").await;
    submit(&store, "cancelled").await;
    cancel(&store, &"cancelled".parse().expect("is an id"))
        .await
        .expect("is cancelled");
    let listed = store
        .list(&Filter::default(), None, 10)
        .await
        .expect("lists")
        .records;
    assert_eq!(listed.len(), 3);
    let lines = store
        .read(&running.id, EventId::START, 10)
        .await
        .expect("reads")
        .lines;
    drop(store);
    let store = open(&inner, LONG).expect("opens again");
    let listed_again = store
        .list(&Filter::default(), None, 10)
        .await
        .expect("lists")
        .records;
    assert_eq!(listed_again, listed);
    let read_again = store
        .read(&running.id, EventId::START, 10)
        .await
        .expect("reads")
        .lines;
    assert_eq!(read_again, lines);
    let Claim::Claimed(claimed) = store.claim(&claimant("w")).await.expect("claims") else {
        panic!("one was waiting");
    };
    assert_eq!(claimed.id.as_str(), "queued");
    submit(&store, "later").await;
    let listed = store
        .list(&Filter::default(), None, 10)
        .await
        .expect("lists")
        .records;
    assert_eq!(listed[0].id.as_str(), "later", "the order goes on");
}

#[tokio::test]
async fn what_was_running_has_lapsed_when_it_is_opened_again() {
    let directory = TempDir::new().expect("makes a directory");
    let store = open(directory.path(), LONG).expect("opens");
    let held = start(&store, "x").await;
    store
        .append(&lease(&held), &output(1, 1..=5))
        .await
        .expect("appends");
    assert!(store.lapsed(10).await.expect("looks").is_empty());
    drop(store);
    let store = open(directory.path(), LONG).expect("opens again");
    assert_eq!(
        store.lapsed(10).await.expect("looks"),
        std::slice::from_ref(&held)
    );
    let event = Event::LapseLease { attempt: 1 };
    let waiting = change(&store, &held.id, &event).await.expect("reclaims");
    assert!(matches!(waiting.state, State::Queued(_)));
    let renewed = store.renew(&[lease(&held)], LONG).await.expect("answers");
    assert_eq!(renewed, [Renewal::Lost]);
    let last = store.last_event(&held.id).await.expect("looks");
    assert_eq!(last.to_string(), "1-6");
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_refused_until_it_is_not() {
    let directory = TempDir::new().expect("makes a directory");
    let store = open(directory.path(), LONG).expect("opens");
    for _ in 0..2 {
        let refused = open(directory.path(), LONG).err();
        assert!(
            matches!(refused, Some(StoreError::InUse { .. })),
            "{refused:?}"
        );
    }
    submit(&store, "x").await;
    drop(store);
    let store = open(directory.path(), LONG).expect("opens");
    assert!(
        store
            .load(&"x".parse().expect("is an id"))
            .await
            .expect("loads")
            .is_some()
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = TempDir::new().expect("makes a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("writes");
    let error = open(&file.join("below"), LONG).err().expect("is refused");
    assert!(error.to_string().contains("file/below"), "{error}");
}

#[tokio::test]
async fn space_is_given_back_once_executions_are_removed() {
    let directory = TempDir::new().expect("makes a directory");
    let store = open(directory.path(), Duration::ZERO).expect("opens");
    let held = start(&store, "x").await;
    store
        .append(&lease(&held), &output(1, 1..=5_000))
        .await
        .expect("appends");
    cancel(&store, &held.id).await.expect("is asked to end");
    store
        .renew(&[lease(&held)], Duration::ZERO)
        .await
        .expect("renews");
    let lapse = Event::LapseLease { attempt: 1 };
    change(&store, &held.id, &lapse).await.expect("is lost");
    let (pages, _) = space(directory.path());
    assert!(pages > 100, "{pages}");
    assert_eq!(store.sweep().await.expect("sweeps"), 1);
    let (pages, free) = space(directory.path());
    assert!(
        pages < 50 && free == 0,
        "{pages} pages, {free} of them free"
    );
}

/// How many pages the database has, and how many of them are free.
fn space(directory: &Path) -> (u64, u64) {
    let path = directory.join("cc-executor.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let database = database.expect("is a database");
    let count = |name| database.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let count = |name| count(name).ok().and_then(|count| u64::try_from(count).ok());
    count("page_count")
        .zip(count("freelist_count"))
        .expect("tells")
}
