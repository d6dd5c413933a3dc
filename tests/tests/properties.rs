//! What holds for all inputs: cutting output, reading cursors and ids, refusing requests.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use shared::event::{Head, Stream, kind};
use shared::id::{EventId, ExecutionId};
use shared::output::{Cutter, MAX_LINE_BYTES, More, OutputLine, Piece};
use shared::request::{Problem, Request};
use shared::spec::{Policy, Spec};
use shared::store::ListCursor;

/// The same inputs in every run, unless `PROPTEST_RNG_SEED` asks for others.
fn config(cases: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(20_261_121),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    ProptestConfig {
        cases,
        rng_seed,
        failure_persistence: None,
        ..config
    }
}

/// What is left of a line for data, once the fields around it are written.
const MAX_DATA_BYTES: usize = MAX_LINE_BYTES - 256;

/// A piece as its own.
#[derive(Debug)]
enum Cut {
    Text(String),
    Binary(Vec<u8>),
}

impl Cut {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    fn piece(&self) -> Piece<'_> {
        match self {
            Self::Text(text) => Piece::Text(text),
            Self::Binary(bytes) => Piece::Binary(bytes),
        }
    }
}

/// Cuts reads as a worker does.
fn cut<'a>(reads: impl IntoIterator<Item = (&'a [u8], More)>) -> Vec<Cut> {
    let mut cutter = Cutter::default();
    let mut pieces = Vec::new();
    let mut keep = |piece: Piece<'_>| {
        pieces.push(match piece {
            Piece::Text(text) => Cut::Text(text.to_owned()),
            Piece::Binary(bytes) => Cut::Binary(bytes.to_vec()),
        });
    };
    for (bytes, more) in reads {
        cutter.push(bytes);
        cutter.drain(more, &mut keep);
    }
    cutter.drain(More::Never, &mut keep);
    pieces
}

/// Output as processes write it, and as they do not.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => "[ -~]{0,40}\n".prop_map(String::into_bytes),
        4 => "\\PC{0,20}".prop_map(String::into_bytes),
        2 => Just(b"\n".to_vec()),
        2 => vec(any::<u8>(), 0..20),
        1 => vec(Just(0), 0..20_000),
        1 => (1..50_000_usize).prop_map(|count| "\u{20ac}".repeat(count).into_bytes()),
        1 => (1..100_000_usize).prop_map(|count| vec![b'x'; count]),
        1 => (1..100_000_usize).prop_map(|count| vec![0xff; count]),
        1 => (1..30_000_usize).prop_map(|count| b"\xfe\n".repeat(count)),
        1 => (1..30_000_usize).prop_map(|count| b"\"\\\n".repeat(count)),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// The same output in reads of any size, with whatever is known of what follows.
fn reads() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, More)>)> {
    let more = prop_oneof![Just(More::AtOnce), Just(More::Perhaps)];
    let size = prop_oneof![1..5_usize, 1..10_000_usize, Just(65_536)];
    (output(), vec((size, more), 1..60))
}

fn split<'a>(mut bytes: &'a [u8], sizes: &[(usize, More)]) -> Vec<(&'a [u8], More)> {
    let mut reads = Vec::new();
    for &(size, more) in sizes {
        let (read, rest) = bytes.split_at(size.min(bytes.len()));
        reads.push((read, more));
        bytes = rest;
    }
    reads.push((bytes, More::Never));
    reads
}

/// How long a text is between the quotes of JSON.
fn encoded_length(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::to_string(text).expect("serializes").len() - 2,
        Err(_) => bytes.len().div_ceil(3) * 4,
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn pieces_of_output_put_together_are_the_output((bytes, sizes) in reads()) {
        let head = Head::now(EventId { attempt: u32::MAX, sequence: u64::MAX });
        let mut read_back = Vec::with_capacity(bytes.len());
        for cut in cut(split(&bytes, &sizes)) {
            prop_assert!(!cut.bytes().is_empty(), "no line without data");
            let line = head.output(Stream::Stderr, Some(usize::MAX), cut.piece());
            prop_assert!(line.json.len() <= MAX_LINE_BYTES, "{} bytes", line.json.len());
            prop_assert_eq!(kind(&line.json), Some("output"));
            let newline = line.json.iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(newline, Some(line.json.len() - 1), "one line");
            let parsed = OutputLine::parse(&line.json).expect("is output");
            read_back.extend_from_slice(&parsed.bytes());
        }
        prop_assert!(read_back == bytes, "{} bytes became {}", bytes.len(), read_back.len());
    }

    #[test]
    fn characters_are_never_cut_wherever_the_reads_end(
        text in "\\PC{0,200}",
        sizes in vec((1..4_usize, prop_oneof![Just(More::AtOnce), Just(More::Perhaps)]), 0..80),
    ) {
        for cut in cut(split(text.as_bytes(), &sizes)) {
            prop_assert!(matches!(cut, Cut::Text(_)), "{cut:?}");
        }
    }

    #[test]
    fn a_line_that_arrives_whole_is_split_only_if_it_is_too_long(bytes in output()) {
        let mut at = 0;
        for cut in cut([(bytes.as_slice(), More::Perhaps)]) {
            at += cut.bytes().len();
            let is_between_lines = at == bytes.len() || bytes[at - 1] == b'\n';
            if !is_between_lines {
                let start = bytes[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                let end = bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |more| at + more + 1);
                let length = encoded_length(&bytes[start..end]);
                // The last line has not arrived whole: half a character of it may have to wait.
                prop_assert!(length > MAX_DATA_BYTES || end == bytes.len(), "cut at {at} of {start}..{end}");
            }
        }
    }

    #[test]
    fn what_is_utf_8_is_never_sent_as_base64(lines in vec("\\PC{0,30}\n", 0..20), split_at in 0..600_usize) {
        let bytes = lines.concat().into_bytes();
        let sizes = [(split_at, More::Perhaps)];
        let is_text = |cut: &Cut| matches!(cut, Cut::Text(_));
        prop_assert!(cut(split(&bytes, &sizes)).iter().all(is_text));
    }
}

fn event_id() -> impl Strategy<Value = EventId> {
    let attempt = prop_oneof![any::<u32>(), 0..3_u32];
    let sequence = prop_oneof![any::<u64>(), 0..12_u64, Just(u64::MAX)];
    (attempt, sequence).prop_map(|(attempt, sequence)| EventId { attempt, sequence })
}

fn execution_id() -> impl Strategy<Value = ExecutionId> {
    "[A-Za-z0-9._:-]{1,128}".prop_map(|text| text.parse().expect("is an id"))
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn cursors_are_read_as_they_are_written(id in event_id()) {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let json = serde_json::to_string(&id).expect("serializes");
        prop_assert_eq!(serde_json::from_str::<EventId>(&json).ok(), Some(id));
    }

    #[test]
    fn cursors_are_ordered_by_attempt_and_then_by_sequence(one in event_id(), other in event_id()) {
        let parts = |id: EventId| (id.attempt, id.sequence);
        prop_assert_eq!(one.cmp(&other), parts(one).cmp(&parts(other)));
        prop_assert!(one.next() >= one);
        prop_assert_eq!(one.next().attempt, one.attempt);
    }

    #[test]
    fn any_text_is_a_cursor_or_is_refused(text in "\\PC{0,30}|[0-9]{0,22}-[0-9+ ]{0,22}") {
        if let Ok(id) = text.parse::<EventId>() {
            let without_zeros = |part: &str| match part.trim_start_matches('0') {
                "" => "0".to_owned(),
                part => part.to_owned(),
            };
            let (attempt, sequence) = text.split_once('-').expect("has two parts");
            let plain = format!("{}-{}", without_zeros(attempt), without_zeros(sequence));
            prop_assert_eq!(id.to_string(), plain);
        }
    }

    #[test]
    fn an_execution_id_is_short_and_plain_or_refused(text in "[A-Za-z0-9._:-]{0,140}|\\PC{0,20}|[a-z/ ~\u{0}]{0,9}") {
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "._:-".contains(char);
        let is_id = (1..=128).contains(&text.len()) && text.chars().all(is_plain);
        match text.parse::<ExecutionId>() {
            Ok(id) => {
                prop_assert!(is_id);
                prop_assert_eq!(id.as_str(), text);
            }
            Err(_) => prop_assert!(!is_id),
        }
    }

    #[test]
    fn list_cursors_are_read_as_they_are_written(rank in any::<u64>(), id in execution_id()) {
        let cursor = ListCursor { rank, id };
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn any_text_is_a_list_cursor_or_is_refused(text in "\\PC{0,30}|[0-9]{0,22}~[a-z~]{0,9}") {
        if let Ok(cursor) = text.parse::<ListCursor>() {
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
}

/// JSON of any form.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        Just("\u{0}".into()),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Into::into),
            btree_map("\\PC{0,6}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Something like a request: known and unknown fields with values of the right and the wrong form.
fn body() -> impl Strategy<Value = serde_json::Value> {
    let name = prop_oneof![
        8 => proptest::sample::select(vec![
            "command", "argv", "prompt", "claude", "tasks", "stop_on_failure", "timeout_per_task",
            "execution_id", "stream", "wait", "timeout", "stall_timeout", "queue", "priority", "delay",
            "max_attempts", "cwd", "env", "stdin", "limits", "on_output_limit", "grace", "tty",
            "labels", "webhook",
        ]).prop_map(str::to_owned),
        1 => "[a-z_]{0,10}",
    ];
    let value = prop_oneof![
        json(),
        "[ -~]{0,12}".prop_map(Into::into),
        vec("[ -~]{0,12}", 0..4).prop_map(Into::into),
        (-2..12_i64).prop_map(Into::into),
        (-1e6..1e6_f64).prop_map(Into::into),
        btree_map("[A-Z=]{0,3}", "[ -~]{0,6}", 0..4).prop_map(|map| serde_json::json!(map)),
        vec(
            btree_map("command|argv|prompt|other", "[ -~]{0,6}", 0..3),
            0..3
        )
        .prop_map(|tasks| serde_json::json!(tasks)),
        btree_map(
            "(output|memory|file)_bytes|cpu_seconds|processes|open_files|other",
            any::<i64>(),
            0..3
        )
        .prop_map(|map| serde_json::json!(map)),
        btree_map("rows|cols|other", -1..1_002_i64, 0..3).prop_map(|map| serde_json::json!(map)),
        "truncate|kill|stop".prop_map(Into::into),
    ];
    btree_map(name, value, 0..5)
        .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
}

fn assert_is_told(problem: &Problem) -> Result<(), TestCaseError> {
    let is_stable = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    prop_assert!(
        !problem.code.is_empty() && problem.code.bytes().all(is_stable),
        "{problem:?}"
    );
    prop_assert!(!problem.detail.is_empty(), "{problem:?}");
    // Only a client's own field may have no name at all.
    let is_named = problem.field.as_ref().is_none_or(|field| !field.is_empty());
    prop_assert!(is_named || problem.code == "unknown_field", "{problem:?}");
    Ok(())
}

fn assert_is_run_or_refused(body: &[u8]) -> Result<(), TestCaseError> {
    let request = match Request::parse(body) {
        Ok(request) => request,
        Err(problem) => return assert_is_told(&problem),
    };
    prop_assert_eq!(request.fingerprint().len(), 64);
    let written = serde_json::to_vec(&request).expect("serializes");
    prop_assert_eq!(Request::parse(&written), Ok(request.clone()));
    match Spec::check(request, &Policy::default()) {
        Ok(spec) => {
            prop_assert!(!spec.tasks.is_empty());
            let written = serde_json::to_vec(&spec).expect("serializes");
            prop_assert_eq!(serde_json::from_slice::<Spec>(&written).ok(), Some(spec));
        }
        Err(problems) => {
            prop_assert!(!problems.is_empty());
            for problem in &problems {
                assert_is_told(problem)?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn any_bytes_are_a_request_or_are_refused_with_a_code(body in vec(any::<u8>(), 0..200)) {
        assert_is_run_or_refused(&body)?;
    }

    #[test]
    fn any_json_is_a_request_or_is_refused_with_a_code(body in json()) {
        assert_is_run_or_refused(body.to_string().as_bytes())?;
    }

    #[test]
    fn anything_like_a_request_is_one_or_is_refused_with_a_code(body in body(), end in any::<proptest::sample::Index>()) {
        let text = body.to_string();
        assert_is_run_or_refused(text.as_bytes())?;
        assert_is_run_or_refused(&text.as_bytes()[..end.index(text.len())])?;
    }
}
