//! Lists.

use std::collections::{BTreeMap, BTreeSet};

use super::Bench;
use super::scene::{Scene, submission};
use crate::id::Owner;
use crate::record::Record;
use crate::state::{Event, Status};
use crate::store::{Filter, Submission};

async fn pages(scene: &Scene, filter: &Filter, limit: usize) -> Vec<Vec<Record>> {
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let page = scene
            .store
            .list(filter, cursor.as_ref(), limit)
            .await
            .expect("lists");
        assert!(page.records.len() <= limit, "no more than asked for");
        pages.push(page.records);
        // As a client gives it back.
        cursor = page
            .next
            .map(|next| next.to_string().parse().expect("is a cursor"));
        if cursor.is_none() {
            return pages;
        }
    }
}

fn names(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.id.to_string()).collect()
}

pub async fn lists_begin_with_the_newest(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let everything = Filter::default();
    assert_eq!(pages(&scene, &everything, 5).await, [[]]);
    for number in 0..9 {
        scene
            .submit(&format!("x{number}"), |spec| spec.priority = number)
            .await;
    }
    let claimed = scene.claim("w").await;
    let listed = pages(&scene, &everything, 100).await.concat();
    let newest_first: Vec<String> = (0..9).rev().map(|number| format!("x{number}")).collect();
    assert_eq!(names(&listed), newest_first);
    assert!(listed.contains(&claimed), "they are shown as they are now");
    for limit in 1..=10 {
        let pages = pages(&scene, &everything, limit).await;
        assert_eq!(pages.concat(), listed, "in pages of {limit}");
        assert_eq!(pages.len(), 9_usize.div_ceil(limit), "no page is needless");
    }
}

pub async fn pages_are_whole_while_others_submit(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    for number in 0..10 {
        scene.submit(&format!("old{number}"), |_| {}).await;
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    for number in 0.. {
        let page = scene
            .store
            .list(&Filter::default(), cursor.as_ref(), 3)
            .await
            .expect("lists");
        seen.extend(names(&page.records));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        scene.submit(&format!("new{number}"), |_| {}).await;
        scene.claim("w").await;
    }
    let expected: Vec<String> = (0..10).rev().map(|number| format!("old{number}")).collect();
    assert_eq!(seen, expected);
}

pub async fn a_list_is_filtered_by_everything_at_once(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let labels = [
        ("team".to_owned(), "a".to_owned()),
        ("env".to_owned(), "test".to_owned()),
    ];
    for number in 0..16_usize {
        let is = |bit: usize| number & (1 << bit) != 0;
        let given = submission(&format!("x{number:02}"), |spec| {
            spec.queue = String::from(if is(0) { "red" } else { "green" });
            spec.labels = BTreeMap::from(labels.clone());
            if is(1) {
                spec.labels.insert("env".to_owned(), "live".to_owned());
            }
        });
        let owner = Owner::named(if is(2) { "ann" } else { "bob" });
        let given = Submission { owner, ..given };
        scene.store.submit(&given).await.expect("submits");
        if is(3) {
            scene
                .change(&given.id, &Event::RequestCancel)
                .await
                .expect("is cancelled");
        }
    }
    let filter = Filter {
        owner: Some(Owner::named("ann")),
        status: Some(Status::Cancelled),
        queue: Some("green".to_owned()),
        labels: labels.to_vec(),
    };
    let listed = async |filter: Filter| names(&pages(&scene, &filter, 3).await.concat());
    assert_eq!(listed(filter.clone()).await, ["x12"]);
    for (wider, expected) in [
        (
            Filter {
                owner: None,
                ..filter.clone()
            },
            ["x12", "x08"],
        ),
        (
            Filter {
                status: None,
                ..filter.clone()
            },
            ["x12", "x04"],
        ),
        (
            Filter {
                queue: None,
                ..filter.clone()
            },
            ["x13", "x12"],
        ),
        (
            Filter {
                labels: labels[..1].to_vec(),
                ..filter.clone()
            },
            ["x14", "x12"],
        ),
    ] {
        assert_eq!(listed(wider).await, expected);
    }
    let nobody = Filter {
        labels: vec![("team".to_owned(), String::new())],
        ..Filter::default()
    };
    assert!(listed(nobody).await.is_empty());
}

pub async fn filtered_pages_leave_nothing_out(bench: &dyn Bench) {
    const EXECUTIONS: usize = 450;
    let scene = Scene::new(bench).await;
    let mut expected = BTreeSet::new();
    for number in 0..EXECUTIONS {
        let id = format!("x{number}");
        let queue = if number % 45 == 7 { "rare" } else { "common" };
        scene.submit(&id, |spec| spec.queue = queue.into()).await;
        if queue == "rare" {
            expected.insert(id);
        }
    }
    let filter = Filter {
        queue: Some("rare".to_owned()),
        ..Filter::default()
    };
    for limit in [1, 4, 10, 1000] {
        let listed = pages(&scene, &filter, limit).await.concat();
        assert!(listed.is_sorted_by(|newer, older| newer.rank >= older.rank));
        assert_eq!(listed.len(), expected.len());
        assert_eq!(
            names(&listed).into_iter().collect::<BTreeSet<_>>(),
            expected
        );
    }
}
