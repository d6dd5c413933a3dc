//! A reader that loses its connection anywhere, and goes on at another server, misses nothing.

use harness::dice::Dice;
use harness::event::{Event, Log};
use serde_json::json;

const LINES: usize = 1_500;
const CUTS: usize = 100;

#[tokio::test]
async fn a_reader_cut_off_a_hundred_times_sees_every_line_once() {
    let mut dice = Dice::new();
    let site = crate::on_redis();
    let servers = [site.api().await, site.api().await];
    let _worker = site.worker("worker").await;
    let mut cuts = 0;
    while cuts < CUTS {
        let id = format!("cut-{cuts}");
        let job =
            json!({"argv": [crate::CHILD, "lines", LINES.to_string(), "1"], "execution_id": id});
        let mut seen: Vec<Event> = Vec::new();
        let mut stream = servers[0].execute(&job).await;
        loop {
            let wanted = dice.roll(0..=60);
            for _ in 0..wanted {
                let Some(event) = stream.next().await else {
                    break;
                };
                if event.kind() != "heartbeat" {
                    seen.push(event);
                }
            }
            if seen.last().is_some_and(|event| event.kind() == "complete") {
                break;
            }
            cuts += 1;
            let after = seen.last().map_or("0-0", Event::id).to_owned();
            stream = servers[cuts % 2].follow(&id, &after).await;
        }
        let log = Log::new(seen);
        log.assert_lines(LINES);
        assert_eq!(log, servers[1].log(&id).await);
    }
}
