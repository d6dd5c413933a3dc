//! Submissions.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Bench;
use super::scene::{Scene, submission};
use crate::event::kind;
use crate::id::{EventId, Owner};
use crate::spec::Program;
use crate::state::State;
use crate::store::{Submission, Submitted};

pub async fn a_submission_is_stored_as_it_was_given(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let given = Submission {
        owner: Owner::named("somebody {else}"),
        ..submission("a.b_c:D-1", |spec| {
            spec.tasks = vec![Program::Argv(vec![
                "printf".to_owned(),
                "\u{1f600}\n\"".to_owned(),
            ])];
            spec.env = BTreeMap::from([("A".to_owned(), "\u{e9}".to_owned())]);
            spec.stdin = Some("\u{0}\r\n".to_owned());
            spec.stall_timeout_ms = Some(u64::from(u32::MAX));
            spec.max_attempts = 100;
        })
    };
    let Submitted::Created(record) = scene.store.submit(&given).await.expect("submits") else {
        panic!("it is new");
    };
    assert_eq!(record, scene.load(&given.id).await);
    assert_eq!((&record.owner, &record.spec), (&given.owner, &given.spec));
    assert_eq!(record.fingerprint, given.fingerprint);
    assert_eq!((&record.state, record.revision), (&State::new(), 1));
    let log = scene.lines(&given.id).await;
    assert_eq!(log.len(), 1);
    assert_eq!(
        (log[0].id, kind(&log[0].json)),
        (EventId::QUEUED, Some("queued"))
    );
    let claimed = scene.claim("w").await;
    assert_eq!(claimed.spec, given.spec, "a worker gets it as it was given");
}

pub async fn a_submission_of_a_known_id_changes_nothing(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let again = submission("x", |spec| spec.priority = 9);
    let mut record = scene.submit("x", |_| {}).await;
    for _ in 0..2 {
        let answer = scene.store.submit(&again).await.expect("answers");
        assert_eq!(answer, Submitted::Existing(record));
        record = match scene.try_claim("w", &[]).await {
            Some(claimed) => claimed,
            None => scene.load(&again.id).await,
        };
    }
    scene.finish(&record, 0).await.expect("finishes");
    let answer = scene.store.submit(&again).await.expect("answers");
    assert_eq!(answer, Submitted::Existing(scene.load(&again.id).await));
    assert_eq!(scene.log(&again.id).await, ["0-1 queued", "1-1 complete"]);
    assert!(
        scene.try_claim("w", &[]).await.is_none(),
        "it waits no more"
    );
}

pub async fn an_id_that_many_submit_at_once_is_created_once(bench: &dyn Bench) {
    let scene = Arc::new(Scene::new(bench).await);
    let mut submitters = JoinSet::new();
    for _ in 0..16 {
        let scene = Arc::clone(&scene);
        submitters.spawn(async move {
            let answer = scene.store.submit(&submission("x", |_| {})).await;
            matches!(answer.expect("submits"), Submitted::Created(_))
        });
    }
    let created = submitters.join_all().await;
    assert_eq!(created.into_iter().filter(|created| *created).count(), 1);
    scene.claim("w").await;
    assert!(scene.try_claim("w", &[]).await.is_none());
}
