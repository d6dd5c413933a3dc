//! Bytes of a process ⇄ `data` of `output` lines.
//!
//! Cutting keeps three promises: text holds whole characters only; a line that has arrived whole is
//! not split unless it is longer than an NDJSON line may be; and the pieces put together are exactly
//! the bytes that went in. Runs of lines that are not UTF-8 travel as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::borrow::Cow;

/// The longest NDJSON line, its newline included.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// What is left of a line for the encoded data, once the fields around it are written.
const MAX_DATA_BYTES: usize = MAX_LINE_BYTES - 256;
/// As many bytes as base64 turns into at most `MAX_DATA_BYTES`.
const MAX_BINARY_BYTES: usize = MAX_DATA_BYTES / 4 * 3;

/// A piece of output that fits into one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Whole characters.
    Text(&'a str),
    /// Bytes that are not UTF-8.
    Binary(&'a [u8]),
}

/// Whether more bytes are known to be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// The last read filled its buffer: the rest of the line is in the pipe. Wait for it.
    AtOnce,
    /// Nobody knows. Show what there is, but for a character that is not complete.
    Perhaps,
    /// The stream is at its end. Show everything.
    Never,
}

/// Cuts one stream of bytes into pieces.
#[derive(Debug, Default)]
pub struct Cutter {
    pending: Vec<u8>,
}

impl Cutter {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Gives out what can be shown, piece by piece.
    pub fn drain(&mut self, more: More, mut emit: impl FnMut(Piece<'_>)) {
        let end = showable(&self.pending, more);
        cut(&self.pending[..end], &mut emit);
        self.pending.drain(..end);
        if self.pending.is_empty() && self.pending.capacity() > MAX_LINE_BYTES {
            self.pending = Vec::new();
        }
    }
}

fn showable(bytes: &[u8], more: More) -> usize {
    let whole_characters = bytes.len() - incomplete_tail(bytes);
    match more {
        More::Never => bytes.len(),
        More::Perhaps => whole_characters,
        More::AtOnce => match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            None if bytes.len() >= MAX_DATA_BYTES => whole_characters,
            None => 0,
        },
    }
}

/// How many bytes at the end begin a character that is not complete yet.
fn incomplete_tail(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let lead = bytes[bytes.len() - back];
        let length = match lead {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        let tail = &bytes[bytes.len() - back..];
        let could_become_valid =
            std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
        return if back < length && could_become_valid {
            back
        } else {
            0
        };
    }
    0
}

fn cut(mut bytes: &[u8], emit: &mut impl FnMut(Piece<'_>)) {
    while !bytes.is_empty() {
        let (text, rest) = split_text(bytes);
        cut_text(text, emit);
        let (binary, rest) = split_binary(rest);
        cut_binary(binary, emit);
        bytes = rest;
    }
}

/// The lines before the first one that is not UTF-8, and the rest.
fn split_text(bytes: &[u8]) -> (&str, &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text, &[]),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let line = valid
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            let text = std::str::from_utf8(&bytes[..line]).unwrap_or_default();
            (text, &bytes[line..])
        }
    }
}

/// The lines before the first one that is UTF-8, and the rest.
fn split_binary(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if std::str::from_utf8(line).is_ok() {
            break;
        }
        end += line.len();
    }
    bytes.split_at(end)
}

fn cut_text(mut text: &str, emit: &mut impl FnMut(Piece<'_>)) {
    while !text.is_empty() {
        let (piece, rest) = text.split_at(fitting_prefix(text));
        emit(Piece::Text(piece));
        text = rest;
    }
}

fn cut_binary(mut bytes: &[u8], emit: &mut impl FnMut(Piece<'_>)) {
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(fitting_run(bytes));
        emit(Piece::Binary(piece));
        bytes = rest;
    }
}

/// How many bytes fit into a line as base64: all of them, or up to the last newline that fits, or,
/// within an overlong line, as many as there is room for.
fn fitting_run(bytes: &[u8]) -> usize {
    let Some(fitting) = bytes.get(..MAX_BINARY_BYTES) else {
        return bytes.len();
    };
    match fitting.iter().rposition(|&byte| byte == b'\n') {
        Some(newline) if bytes.len() > MAX_BINARY_BYTES => newline + 1,
        _ => MAX_BINARY_BYTES,
    }
}

/// How much of `text` fits into a line once it is escaped: all of it, or up to the last newline that
/// fits, or, within an overlong line, up to the last character that fits.
fn fitting_prefix(text: &str) -> usize {
    let mut escaped = 0;
    let mut after_newline = None;
    for (at, byte) in text.bytes().enumerate() {
        escaped += escaped_length(byte);
        if escaped > MAX_DATA_BYTES {
            return after_newline.unwrap_or_else(|| text.floor_char_boundary(at));
        }
        if byte == b'\n' {
            after_newline = Some(at + 1);
        }
    }
    text.len()
}

fn escaped_length(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    }
}

/// The base64 form of a binary piece.
pub fn encode_binary(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The fields of an `output` line that give back what the process wrote.
#[derive(Debug, Deserialize)]
pub struct OutputLine<'a> {
    /// `stdout` or `stderr`.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// Which task wrote it, in a list of tasks.
    #[serde(default)]
    pub task: Option<usize>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(default)]
    encoding: Option<Cow<'a, str>>,
}

impl<'a> OutputLine<'a> {
    /// Reads a line, if it is an `output` line.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        if crate::event::kind(line) != Some("output") {
            return None;
        }
        serde_json::from_slice(line).ok()
    }

    /// The bytes that the process wrote.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self.encoding {
            None => Cow::Borrowed(self.data.as_bytes()),
            Some(_) => Cow::Owned(BASE64.decode(self.data.as_bytes()).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(cutter: &mut Cutter, more: More) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        cutter.drain(more, |piece| {
            pieces.push(match piece {
                Piece::Text(text) => text.as_bytes().to_vec(),
                Piece::Binary(bytes) => [b"b64:".as_slice(), bytes].concat(),
            });
        });
        pieces
    }

    fn cut_at_once(bytes: &[u8], more: More) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::default();
        cutter.push(bytes);
        drain(&mut cutter, more)
    }

    #[test]
    fn a_character_in_two_reads_arrives_whole() {
        let mut cutter = Cutter::default();
        cutter.push(b"a\xe2\x82");
        assert_eq!(drain(&mut cutter, More::Perhaps), [b"a".to_vec()]);
        cutter.push(b"\xac");
        assert_eq!(drain(&mut cutter, More::Perhaps), ["€".as_bytes().to_vec()]);
    }

    #[test]
    fn half_a_character_at_the_end_is_binary() {
        assert_eq!(
            cut_at_once(b"x\n\xe2\x82", More::Never),
            [b"x\n".to_vec(), b"b64:\xe2\x82".to_vec()]
        );
    }

    #[test]
    fn only_the_lines_that_are_not_utf8_are_binary() {
        let pieces = cut_at_once(b"one\ntwo \xff\n\xfe\nthree\n", More::Perhaps);
        assert_eq!(
            pieces,
            [
                b"one\n".to_vec(),
                b"b64:two \xff\n\xfe\n".to_vec(),
                b"three\n".to_vec()
            ]
        );
    }

    #[test]
    fn a_line_whose_rest_is_in_the_pipe_is_held_back() {
        let mut cutter = Cutter::default();
        cutter.push(b"one\ntw");
        assert_eq!(drain(&mut cutter, More::AtOnce), [b"one\n".to_vec()]);
        cutter.push(b"o\n");
        assert_eq!(drain(&mut cutter, More::Perhaps), [b"two\n".to_vec()]);
    }

    #[test]
    fn an_overlong_line_is_split_and_the_next_one_is_not() {
        let long = "é".repeat(MAX_LINE_BYTES);
        let pieces = cut_at_once(format!("{long}\nshort\n").as_bytes(), More::Perhaps);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_DATA_BYTES));
        assert!(
            pieces
                .iter()
                .all(|piece| std::str::from_utf8(piece).is_ok())
        );
        assert_eq!(pieces.concat(), format!("{long}\nshort\n").into_bytes());
        assert!(
            pieces
                .last()
                .is_some_and(|last| last.ends_with(b"\nshort\n"))
        );
    }

    #[test]
    fn escapes_count_towards_the_length_of_a_line() {
        for byte in [0_u8, b'"', b'\n', 0x7f] {
            for piece in cut_at_once(&vec![byte; 200_000], More::Never) {
                let text = String::from_utf8(piece).expect("is text");
                let escaped = serde_json::to_string(&text).expect("serializes");
                assert!(escaped.len() - 2 <= MAX_DATA_BYTES, "{byte}");
            }
        }
    }
}
