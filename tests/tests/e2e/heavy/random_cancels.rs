//! A cancel may come at any moment.

use std::time::Duration;

use harness::dice::Dice;
use harness::event::Log;
use harness::process::with_word;
use harness::site::Site;
use serde_json::json;
use tokio::task::JoinSet;

const RUNS: usize = 250;
const AT_A_TIME: usize = 4;

crate::on_both_engines!(wherever_a_cancel_comes_there_is_one_end_and_nothing_left);

async fn wherever_a_cancel_comes_there_is_one_end_and_nothing_left(site: Site) {
    let mut dice = Dice::new();
    let site = site.with(&[("CC_SLOTS", "4"), ("CC_GRACE", "0.05")]);
    let server = std::sync::Arc::new(site.run().await);
    let mut runs = JoinSet::new();
    for number in 0..RUNS {
        if runs.len() == AT_A_TIME {
            runs.join_next()
                .await
                .expect("there are some")
                .expect("ends well");
        }
        let (server, delay_us) = (std::sync::Arc::clone(&server), dice.roll(0..=30_000));
        runs.spawn(async move {
            let id = format!("cancel-{number}-{}", std::process::id());
            // A daemon, output, an end of its own, and somebody who does not listen.
            let script = r#"setsid -f "$1" ignore-term "$2" > /dev/null; echo one; (trap '' TERM; sleep 0.02); echo two"#;
            let job = json!({"argv": ["/bin/sh", "-c", script, "sh", crate::CHILD, id], "execution_id": id});
            let stream = server.execute(&job).await;
            tokio::time::sleep(Duration::from_micros(delay_us)).await;
            let status = server.delete(&format!("/executions/{id}")).await.status;
            assert!([200, 202, 409].contains(&status), "{status}");
            let log: Log = stream.to_end().await;
            assert!(["cancelled", "succeeded"].contains(&log.status()), "{}", log.status());
            assert_eq!(log.of_kind("complete").len(), 1);
            assert_eq!(log.events().last().map(harness::event::Event::kind), Some("complete"));
            let left = with_word(&id);
            assert!(left.is_empty(), "left by {id}: {left:?}");
            assert_eq!(server.log(&id).await, log, "and nothing comes after it");
        });
    }
    while let Some(run) = runs.join_next().await {
        run.expect("ends well");
    }
}
