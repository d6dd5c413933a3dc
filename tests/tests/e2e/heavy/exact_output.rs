//! Whatever bytes a process writes, a client gets exactly these.

use harness::dice::Dice;
use harness::event::hex;
use harness::site::Site;
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

crate::on_both_engines!(sixty_four_mebibytes_of_anything_arrive_byte_by_byte);

const LENGTH: usize = 64 << 20;
const LONG_LINE: usize = 5 << 20;

async fn sixty_four_mebibytes_of_anything_arrive_byte_by_byte(site: Site) {
    let bytes = mixed(&mut Dice::new());
    let sha256 = hex(&Sha256::digest(&bytes));
    let file = site.path("bytes");
    std::fs::write(&file, &bytes).expect("there is room for it");
    let server = site.run().await;

    // The reader refuses lines above 64 KiB, and the log checks what was received against the hash
    // in `complete`.
    let job = json!({"argv": [crate::CHILD, "write-bytes", file], "execution_id": "x"});
    let log = server.run(&job).await;
    let complete = log.complete();
    assert_eq!(complete["output_sha256"], sha256);
    assert_eq!(
        (&complete["output_bytes"], &complete["truncated"]),
        (&json!(LENGTH), &json!(false))
    );
    assert!(log.output("stdout") == bytes, "the output differs");

    let raw = server.request(Method::GET, "/executions/x/output?stream=stdout");
    let raw = harness::client::Reply::of(raw).await;
    assert!(raw.body == bytes, "the raw output differs");
}

/// Lines of text in several scripts, of invalid bytes, with NULs, one of 5 MB, and no newline at the
/// end.
fn mixed(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH + LONG_LINE);
    let mut has_long_line = false;
    while bytes.len() < LENGTH {
        let piece = match dice.roll(0..=5) {
            0 => "plain text, nothing to see here\n".repeat(100).into_bytes(),
            1 => "žluťoučký 馬 🐎 \"quoted\" \\ \t\u{1b}[0m\r\n"
                .repeat(50)
                .into_bytes(),
            2 => (0..dice.roll(1..=3_000)).map(|_| byte(dice)).collect(),
            3 => b"\0\0\xff\xfe\xc3\x28\n\xed\xa0\x80".to_vec(),
            4 => [0xc3, 0xa9].repeat(1 << dice.roll(0..=16)),
            _ if !has_long_line && bytes.len() > LENGTH / 2 => {
                has_long_line = true;
                "0123456789 ünïcödé".repeat(LONG_LINE / 16).into_bytes()
            }
            _ => b"\n".to_vec(),
        };
        bytes.extend_from_slice(&piece);
    }
    bytes.truncate(LENGTH);
    assert!(has_long_line);
    *bytes.last_mut().expect("there are some") = 0xe9;
    bytes
}

fn byte(dice: &mut Dice) -> u8 {
    u8::try_from(dice.roll(0..=255)).unwrap_or_default()
}
