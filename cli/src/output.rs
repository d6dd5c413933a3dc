//! What is written: the job's bytes exactly, what else happens as notices, or the lines themselves.

use std::io::{self, BufWriter, Write};

use serde::Deserialize;
use shared::event::kind;
use shared::output::OutputLine;
use thiserror::Error;

use crate::exit::End;
use crate::spinner::Spinner;

/// Nobody reads our standard output or standard error any more.
#[derive(Debug, Error)]
#[error("nobody reads the output")]
pub(crate) struct Closed;

/// Says something to the person in front of the terminal.
pub(crate) fn say(text: &str) {
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}: {text}", crate::NAME);
}

/// Writes to standard output at once.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written.and_then(|()| stdout.flush()).map_err(unwritten)
}

/// Writes a JSON document as a line of its own.
pub(crate) fn print_json(json: &str) -> anyhow::Result<()> {
    print(&format!("{}\n", json.trim_end()))
}

/// Why something could not be written.
pub(crate) fn unwritten(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Closed.into()
    } else {
        anyhow::Error::new(error).context("cannot write the output")
    }
}

/// The two ways in which a log is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The lines as they are.
    Json,
    /// What the process has written, where it has written it.
    Bytes,
}

/// One of the two pipes of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pipe {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

type Sink = Box<dyn Write + Send>;

/// Where a log is shown.
pub(crate) struct Output {
    form: Form,
    only: Option<Pipe>,
    stdout: BufWriter<Sink>,
    stderr: BufWriter<Sink>,
    spinner: Spinner,
}

impl Output {
    pub(crate) fn new(form: Form, only: Option<Pipe>, spinner: Spinner) -> Self {
        let (stdout, stderr) = (Box::new(io::stdout()), Box::new(io::stderr()));
        Self::to(form, only, spinner, stdout, stderr)
    }

    fn to(form: Form, only: Option<Pipe>, spinner: Spinner, stdout: Sink, stderr: Sink) -> Self {
        Self {
            form,
            only,
            stdout: BufWriter::new(stdout),
            stderr: BufWriter::new(stderr),
            spinner,
        }
    }

    /// Shows a line of the log.
    pub(crate) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let output = OutputLine::parse(line);
        let pipe = output.as_ref().map(|output| match output.stream.as_ref() {
            "stderr" => Pipe::Stderr,
            _ => Pipe::Stdout,
        });
        if pipe.is_some() && self.only.is_some_and(|only| Some(only) != pipe) {
            return Ok(());
        }
        match (self.form, output, pipe) {
            (Form::Json, ..) => self.write(Pipe::Stdout, line),
            (Form::Bytes, Some(output), Some(pipe)) => {
                let bytes = output.bytes();
                self.spinner.count(&bytes);
                self.write(pipe, &bytes)
            }
            (Form::Bytes, ..) => match remark(line) {
                Some(remark) => self.notice(&remark),
                None => Ok(()),
            },
        }
    }

    /// Says something beside the output.
    pub(crate) fn notice(&mut self, text: &str) -> io::Result<()> {
        let lead = if self.spinner.is_at_line_start() {
            ""
        } else {
            "\n"
        };
        let line = format!("{lead}{}: {text}\n", crate::NAME);
        self.write(Pipe::Stderr, line.as_bytes())
    }

    /// Lets time be seen to pass.
    pub(crate) fn tick(&mut self) {
        self.spinner.tick();
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()?;
        self.stderr.flush()
    }

    /// Writes everything, and takes the spinner away.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.spinner.hide();
        self.flush()
    }

    /// Both pipes may be one terminal: what is written first has to be seen first.
    fn write(&mut self, pipe: Pipe, bytes: &[u8]) -> io::Result<()> {
        self.spinner.make_way(pipe);
        let (this, other) = match pipe {
            Pipe::Stdout => (&mut self.stdout, &mut self.stderr),
            Pipe::Stderr => (&mut self.stderr, &mut self.stdout),
        };
        other.flush()?;
        this.write_all(bytes)?;
        self.spinner.has_written(pipe, bytes);
        Ok(())
    }
}

/// What a person should know of a line that is not output.
fn remark(line: &[u8]) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Fields {
        error: String,
        reason: String,
        truncated: bool,
        output_bytes: Option<u64>,
        after: String,
        before: String,
    }
    let fields = || serde_json::from_slice::<Fields>(line).unwrap_or_default();
    match kind(line) {
        Some("error") => Some(fields().error),
        Some("paused") => Some("the job is paused".to_owned()),
        Some("resumed") => Some("the job is resumed".to_owned()),
        Some("retry") => Some(format!("{}; it is tried again", fields().reason)),
        Some("complete") => {
            let end = End::parse(line)?;
            let signal = end.signal.as_ref().filter(|_| end.is_its_own());
            let killed = signal.map(|signal| format!("killed by {signal}"));
            let fields = fields();
            let kept = fields.output_bytes.unwrap_or_default();
            let cut = format!("the output is cut off after {kept} bytes, its limit");
            killed.or_else(|| fields.truncated.then_some(cut))
        }
        None if line.starts_with(b"{\"type\":\"gap\"") => {
            let Fields { after, before, .. } = fields();
            Some(format!(
                "the lines between {after} and {before} are gone, past their retention"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.0.lock().expect("is whole");
            written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LINES: [&str; 5] = [
        r#"{"id":"1-1","type":"output","ts":"","stream":"stdout","data":"one\n"}"#,
        r#"{"id":"1-2","type":"output","ts":"","stream":"stderr","data":"/wA=","encoding":"base64"}"#,
        r#"{"id":"1-3","type":"output","ts":"","stream":"stdout","data":"två"}"#,
        r#"{"id":"1-4","type":"error","ts":"","error":"timed out","code":"timed_out"}"#,
        r#"{"id":"1-5","type":"complete","ts":"","status":"timed_out","exit_code":null,"signal":"SIGTERM"}"#,
    ];

    fn shown(form: Form, only: Option<Pipe>) -> (Vec<u8>, Vec<u8>) {
        shown_of(&LINES, form, only)
    }

    fn shown_of(lines: &[&str], form: Form, only: Option<Pipe>) -> (Vec<u8>, Vec<u8>) {
        let (stdout, stderr) = (Written::default(), Written::default());
        let spinner = Spinner::absent();
        let sinks = (Box::new(stdout.clone()), Box::new(stderr.clone()));
        let mut output = Output::to(form, only, spinner, sinks.0, sinks.1);
        for line in lines {
            output.line(format!("{line}\n").as_bytes()).expect("writes");
        }
        output.finish().expect("writes");
        let bytes = |written: Written| written.0.lock().expect("is whole").clone();
        (bytes(stdout), bytes(stderr))
    }

    #[test]
    fn bytes_go_where_the_process_wrote_them() {
        let (stdout, stderr) = shown(Form::Bytes, None);
        assert_eq!(stdout, "one\ntvå".as_bytes());
        assert_eq!(stderr, b"\xff\x00\ncc-executor: timed out\n");
    }

    #[test]
    fn what_happens_is_said_and_what_nobody_knows_is_not() {
        let lines = [
            r#"{"id":"1-1","type":"paused","ts":""}"#,
            r#"{"id":"1-2","type":"resumed","ts":""}"#,
            r#"{"id":"1-3","type":"moved_to_the_moon","ts":"","stream":"stdout","data":"x"}"#,
            r#"{"type":"weather"}"#,
            "[]",
        ];
        let (stdout, stderr) = shown_of(&lines, Form::Bytes, None);
        let expected = "cc-executor: the job is paused\ncc-executor: the job is resumed\n";
        assert_eq!(stderr, expected.as_bytes());
        assert_eq!(stdout, b"");
    }

    #[test]
    fn lines_are_passed_through_as_they_are() {
        let (stdout, stderr) = shown(Form::Json, None);
        assert_eq!(stdout, format!("{}\n", LINES.join("\n")).into_bytes());
        assert_eq!(stderr, b"");
    }

    #[test]
    fn one_pipe_can_be_picked() {
        let (stdout, stderr) = shown(Form::Bytes, Some(Pipe::Stderr));
        assert_eq!(stdout, b"");
        assert!(stderr.starts_with(b"\xff\x00"));
        let (stdout, _) = shown(Form::Json, Some(Pipe::Stdout));
        assert_eq!(stdout.split(|&byte| byte == b'\n').count(), LINES.len());
    }
}
