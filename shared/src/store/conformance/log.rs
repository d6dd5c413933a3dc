//! Logs: what is appended is read, once, whole, and in order.

use super::Bench;
use super::scene::{Scene, event_id, lease, output, soon};
use crate::event::{Head, Line, Stream};
use crate::id::{EventId, ExecutionId};
use crate::output::{MAX_LINE_BYTES, OutputLine, Piece};
use crate::state::Event;

pub async fn lines_are_read_back_byte_for_byte(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 1).await;
    let text = "\u{1f600} \"quoted\" \u{0}\r\n".repeat(100);
    let binary: Vec<u8> = (0..=u8::MAX).cycle().take(40_000).collect();
    let long = "x".repeat(MAX_LINE_BYTES - 300);
    let pieces = [
        Piece::Text(&text),
        Piece::Binary(&binary),
        Piece::Text(&long),
        Piece::Text(""),
    ];
    let lines: Vec<Line> = (1..)
        .zip(pieces)
        .map(|(sequence, piece)| {
            Head::now(event_id(1, sequence)).output(Stream::Stderr, Some(3), piece)
        })
        .collect();
    scene
        .store
        .append(&lease(&held), &lines)
        .await
        .expect("appends");
    let read = scene.lines(&held.id).await;
    assert_eq!(read[1..], lines);
    let written = OutputLine::parse(&read[2].json).expect("is output");
    assert_eq!(*written.bytes(), *binary);
}

pub async fn an_append_that_is_repeated_adds_nothing(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 1).await;
    let lines = output(1, 1..=6);
    for batch in [
        &lines[..2],
        &lines[..2],
        &lines[2..4],
        &lines[..4],
        &lines[..],
        &lines[5..],
    ] {
        scene
            .store
            .append(&lease(&held), batch)
            .await
            .expect("appends");
    }
    assert_eq!(scene.lines(&held.id).await[1..], lines);
}

pub async fn an_append_that_was_written_in_part_is_completed(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let lines = output(1, 1..=20);
    for written in [1, 7, 19] {
        let held = scene.start(&format!("x{written}"), "w", 1).await;
        scene
            .store
            .append(&lease(&held), &lines[..written])
            .await
            .expect("appends");
        scene
            .store
            .append(&lease(&held), &lines)
            .await
            .expect("appends");
        assert_eq!(scene.lines(&held.id).await[1..], lines);
    }
}

pub async fn a_reader_goes_on_from_every_cursor(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 2).await;
    scene
        .store
        .append(&lease(&held), &output(1, 1..=12))
        .await
        .expect("appends");
    scene.reclaim(&held).await;
    let held = scene.claim("w").await;
    scene
        .store
        .append(&lease(&held), &output(2, 1..=3))
        .await
        .expect("appends");
    scene.finish(&held, 3).await.expect("finishes");
    let all = scene.lines(&held.id).await;
    assert_eq!(all.len(), 18);
    for step in [1, 5, 100] {
        for (seen, line) in (1..).zip(&all) {
            assert_eq!(
                scene.lines_after(&held.id, line.id, step).await,
                all[seen..]
            );
        }
        assert_eq!(scene.lines_after(&held.id, EventId::START, step).await, all);
    }
    let last = scene.store.last_event(&held.id).await.expect("looks");
    assert_eq!(Some(last), all.last().map(|line| line.id));
    assert!(all.last().expect("has lines").is_complete());
}

pub async fn a_cursor_that_nobody_gave_out_is_no_error(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 2).await;
    scene
        .store
        .append(&lease(&held), &output(1, 1..=2))
        .await
        .expect("appends");
    scene.reclaim(&held).await;
    let held = scene.claim("w").await;
    scene
        .store
        .append(&lease(&held), &output(2, 1..=1))
        .await
        .expect("appends");
    let all = scene.lines(&held.id).await;
    for (cursor, rest) in [
        (event_id(0, 7), 1),
        (event_id(1, 0), 1),
        (event_id(1, 900), 4),
        (event_id(1, u64::MAX), 4),
        (event_id(2, 0), 4),
        (event_id(2, u64::MAX), 5),
        (event_id(u32::MAX, u64::MAX), 5),
    ] {
        assert_eq!(
            scene.lines_after(&held.id, cursor, 100).await,
            all[rest..],
            "{cursor}"
        );
    }
}

pub async fn the_log_of_an_unknown_execution_is_empty(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let unknown: ExecutionId = "unknown".parse().expect("is an id");
    assert_eq!(scene.lines(&unknown).await, []);
    assert_eq!(
        scene.store.last_event(&unknown).await.expect("looks"),
        EventId::START
    );
    assert_eq!(scene.store.load(&unknown).await.expect("loads"), None);
}

pub async fn a_watch_wakes_after_an_append(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 1).await;
    let mut watches = [
        scene.store.watch(&held.id).await,
        scene.store.watch(&held.id).await,
    ];
    for sequence in 1..=3 {
        let read = |line: &Line| line.id == event_id(1, sequence);
        let wait = async {
            for watch in &mut watches {
                while !scene.lines(&held.id).await.iter().any(read) {
                    watch.changed().await;
                }
            }
        };
        let append = async {
            let lines = output(1, sequence..=sequence);
            scene
                .store
                .append(&lease(&held), &lines)
                .await
                .expect("appends");
        };
        soon("waking", async { tokio::join!(wait, append) }).await;
    }
}

pub async fn a_watch_wakes_after_a_change(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let queued = scene.submit("queued", |_| {}).await;
    let mut watch = scene.store.watch(&queued.id).await;
    scene
        .change(&queued.id, &Event::RequestCancel)
        .await
        .expect("is cancelled");
    soon("waking", watch.changed()).await;
    let held = scene.start("running", "w", 1).await;
    let mut watch = scene.store.watch(&held.id).await;
    scene.finish(&held, 0).await.expect("finishes");
    soon("waking", watch.changed()).await;
    assert_eq!(scene.log(&held.id).await, ["0-1 queued", "1-1 complete"]);
}

pub async fn lines_that_come_between_the_watch_and_the_read_are_not_missed(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 1).await;
    for sequence in 1..=10 {
        let mut watch = scene.store.watch(&held.id).await;
        let lines = output(1, sequence..=sequence);
        scene
            .store
            .append(&lease(&held), &lines)
            .await
            .expect("appends");
        soon("waking", watch.changed()).await;
        let last = scene.store.last_event(&held.id).await.expect("looks");
        assert_eq!(last, event_id(1, sequence));
    }
}

pub async fn a_watch_is_not_woken_by_other_executions(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let watched = scene.start("x", "w", 1).await;
    let other = scene.start("x-2", "w", 1).await;
    let mut watch = scene.store.watch(&watched.id).await;
    let mut others_watch = scene.store.watch(&other.id).await;
    // Whatever there was to wake up for before the watch.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(20), watch.changed()).await;
    scene
        .store
        .append(&lease(&other), &output(1, 1..=1))
        .await
        .expect("appends");
    soon("waking", others_watch.changed()).await;
    scene
        .store
        .append(&lease(&watched), &output(1, 1..=1))
        .await
        .expect("appends");
    tokio::select! {
        biased;
        () = watch.changed() => {}
        () = others_watch.changed() => panic!("woken by somebody else's line"),
    }
}
