//! Settings: read once, from flags and the environment, all problems reported together.
//!
//! Each crate lists its [`Setting`]s in a table. The table makes the flags, the help text and the
//! check that `deployment/example.env` is complete; a [`Reader`] turns the texts into values.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// One setting: an environment variable, and the flag that overrides it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// What it is if nobody sets it; empty means that there is no default value.
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Whether its value must not be shown.
    pub is_secret: bool,
}

impl Setting {
    /// A setting that anybody may see.
    pub const fn new(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self {
            name,
            default,
            help,
            is_secret: false,
        }
    }

    /// A setting whose value must not be shown.
    pub const fn secret(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self {
            is_secret: true,
            ..Self::new(name, default, help)
        }
    }

    /// The flag: `CC_MAX_TIMEOUT` is `--max-timeout`.
    pub fn flag(&self) -> String {
        let bare = self.name.strip_prefix("CC_").unwrap_or(self.name);
        bare.to_ascii_lowercase().replace('_', "-")
    }

    fn argument(&self) -> clap::Arg {
        let default = if self.default.is_empty() {
            String::new()
        } else {
            format!(", default: {}", self.default)
        };
        clap::Arg::new(self.name)
            .long(self.flag())
            .value_name("VALUE")
            .allow_hyphen_values(true)
            .help(format!("{} [env: {}{default}]", self.help, self.name))
    }
}

/// Adds a flag for each setting to a command.
pub fn with_flags(command: clap::Command, settings: &[&[Setting]]) -> clap::Command {
    command.args(settings.iter().copied().flatten().map(Setting::argument))
}

/// Where settings come from: names and texts.
#[derive(Clone, Default)]
pub struct Source(BTreeMap<String, String>);

impl Source {
    /// The process's environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the environment is read"
    )]
    pub fn environment() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// These texts and no others.
    pub fn of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self(texts.into_iter().map(own).collect())
    }

    /// These texts, overridden by the flags that were given.
    #[must_use]
    pub fn with_flags_of(mut self, matches: &clap::ArgMatches, settings: &[&[Setting]]) -> Self {
        for setting in settings.iter().copied().flatten() {
            if let Some(value) = matches.get_one::<String>(setting.name) {
                self.0.insert(setting.name.to_owned(), value.clone());
            }
        }
        self
    }

    /// The text of a name, unless it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All names and texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Everything that is wrong with the settings.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("bad configuration:\n  {}\n", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

/// Turns texts into values and collects what is wrong with them.
pub struct Reader<'a> {
    source: &'a Source,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Reads from `source`.
    pub fn new(source: &'a Source) -> Self {
        Self {
            source,
            problems: Vec::new(),
        }
    }

    /// The value of a setting that has a default.
    pub fn value<T: FromSetting>(&mut self, setting: &Setting) -> T {
        let text = self.source.get(setting.name).unwrap_or(setting.default);
        match T::from_setting(text) {
            Ok(value) => value,
            Err(expected) => {
                self.refuse(setting, text, &expected);
                T::fallback()
            }
        }
    }

    /// The value of a setting that may be absent.
    pub fn optional<T: FromSetting>(&mut self, setting: &Setting) -> Option<T> {
        let text = self.source.get(setting.name)?;
        T::from_setting(text)
            .map_err(|expected| self.refuse(setting, text, &expected))
            .ok()
    }

    fn refuse(&mut self, setting: &Setting, text: &str, expected: &str) {
        let shown = if setting.is_secret { "(hidden)" } else { text };
        self.problem(format!("{} is {expected}, not {shown:?}", setting.name));
    }

    /// Notes a problem that a single value does not show.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// `config`, if nothing was wrong with it.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(self.problems))
        }
    }
}

/// A value that a setting's text can be turned into.
pub trait FromSetting: Sized {
    /// The value, or what the text should have been.
    fn from_setting(text: &str) -> Result<Self, String>;
    /// Stands in for a value that could not be read, until all problems have been reported.
    fn fallback() -> Self;
}

impl FromSetting for String {
    fn from_setting(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn fallback() -> Self {
        Self::new()
    }
}

impl FromSetting for PathBuf {
    fn from_setting(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn fallback() -> Self {
        Self::new()
    }
}

impl FromSetting for Vec<String> {
    fn from_setting(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        Ok(parts.map(str::to_owned).collect())
    }

    fn fallback() -> Self {
        Self::new()
    }
}

impl FromSetting for bool {
    fn from_setting(text: &str) -> Result<Self, String> {
        match text {
            "1" | "true" | "yes" => Ok(true),
            "" | "0" | "false" | "no" => Ok(false),
            _ => Err("1 or 0".to_owned()),
        }
    }

    fn fallback() -> Self {
        false
    }
}

impl FromSetting for usize {
    fn from_setting(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err("a whole number above 0".to_owned()),
        }
    }

    fn fallback() -> Self {
        1
    }
}

impl FromSetting for SocketAddr {
    fn from_setting(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "an IP address and a port, like 127.0.0.1:8000".to_owned())
    }

    fn fallback() -> Self {
        Self::from(([127, 0, 0, 1], 0))
    }
}

impl FromSetting for Duration {
    fn from_setting(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
        seconds
            .and_then(|seconds| Self::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| "a number of seconds above 0".to_owned())
    }

    fn fallback() -> Self {
        Self::from_secs(1)
    }
}

/// A size, written as a number of bytes or with a unit: `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromSetting for Bytes {
    fn from_setting(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim() {
            "" | "B" => Some(0),
            "KiB" => Some(10),
            "MiB" => Some(20),
            "GiB" => Some(30),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(shift);
        bytes
            .and_then(|(number, shift)| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| "a size like 1048576, 64MiB or 1GiB".to_owned())
    }

    fn fallback() -> Self {
        Self(0)
    }
}

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl FromSetting for Secret {
    fn from_setting(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn fallback() -> Self {
        Self(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: Setting = Setting::new("CC_SLOTS", "4", "slots");
    const KEYS: Setting = Setting::secret("CC_SIZE", "1MiB", "a secret size");

    #[test]
    fn all_problems_are_reported_together_and_secrets_are_hidden() {
        let source = Source::of([("CC_SLOTS", "none"), ("CC_SIZE", "hunter2")]);
        let mut reader = Reader::new(&source);
        let _: usize = reader.value(&SLOTS);
        let _: Bytes = reader.value(&KEYS);
        let error = reader.finish(()).expect_err("is refused");
        let expected = [
            "CC_SLOTS is a whole number above 0, not \"none\"",
            "CC_SIZE is a size like 1048576, 64MiB or 1GiB, not \"(hidden)\"",
        ];
        assert_eq!(error.0, expected);
    }

    #[test]
    fn flags_override_the_environment_and_empty_means_absent() {
        let settings: &[&[Setting]] = &[&[SLOTS]];
        let matches = with_flags(clap::Command::new("x"), settings)
            .try_get_matches_from(["x", "--slots", "9"])
            .expect("parses");
        let source = Source::of([("CC_SLOTS", "")]);
        assert_eq!(Reader::new(&source).value::<usize>(&SLOTS), 4);
        let source = source.with_flags_of(&matches, settings);
        assert_eq!(Reader::new(&source).value::<usize>(&SLOTS), 9);
    }

    #[test]
    fn sizes_and_durations_are_read() {
        assert_eq!(Bytes::from_setting("64MiB"), Ok(Bytes(64 << 20)));
        assert_eq!(Bytes::from_setting("12"), Ok(Bytes(12)));
        assert!(Bytes::from_setting("99999999999GiB").is_err());
        assert_eq!(
            Duration::from_setting("0.5"),
            Ok(Duration::from_millis(500))
        );
        for bad in ["", "-1", "NaN", "inf", "1e300"] {
            assert!(Duration::from_setting(bad).is_err(), "{bad}");
        }
    }
}
