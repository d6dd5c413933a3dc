//! An NDJSON answer, line by line as it comes.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

/// The lines of one answer.
#[derive(Debug)]
pub(crate) struct Lines {
    response: Response,
    splitter: Splitter,
}

impl Lines {
    pub(crate) fn of(response: Response) -> Self {
        Self {
            response,
            splitter: Splitter::default(),
        }
    }

    /// The next line with its newline; none at the end. Losing interest while it waits loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, reqwest::Error> {
        loop {
            if let Some(line) = self.splitter.next() {
                return Ok(Some(line));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.splitter.push(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// Makes lines of chunks. A line without a newline is one that broke off, and is never given out.
#[derive(Debug, Default)]
struct Splitter {
    pending: BytesMut,
    /// Up to where there is no newline.
    searched: usize,
}

impl Splitter {
    fn push(&mut self, chunk: &[u8]) {
        self.pending.extend_from_slice(chunk);
    }

    fn next(&mut self) -> Option<Bytes> {
        let unsearched = &self.pending[self.searched..];
        if let Some(at) = unsearched.iter().position(|&byte| byte == b'\n') {
            let length = self.searched + at + 1;
            self.searched = 0;
            return Some(self.pending.split_to(length).freeze());
        }
        self.searched = self.pending.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_chunks_are_cut() {
        let text = b"one\n\ntwo and more\nbroken of";
        for size in 1..text.len() {
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            for chunk in text.chunks(size) {
                splitter.push(chunk);
                while let Some(line) = splitter.next() {
                    lines.push(line);
                }
            }
            assert_eq!(lines, ["one\n", "\n", "two and more\n"], "chunks of {size}");
        }
    }
}
