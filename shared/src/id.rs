//! Names of things: executions, events (which are also the resume cursors), owners.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Identifies an execution: the caller's own choice, or a UUIDv7.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ExecutionId(String);

/// Why a text is not an execution id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an execution id is 1 to 128 characters out of A-Z, a-z, 0-9, '.', '_', ':' and '-'")]
pub struct InvalidExecutionId;

impl ExecutionId {
    /// A new, time-ordered id.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The id that an owner's idempotency key always stands for, so that a repeated submit finds
    /// the execution of the first one without anything else being stored.
    pub fn from_idempotency_key(owner: &Owner, key: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(owner.as_str())
            .chain_update([0])
            .chain_update(key)
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(
            uuid::Builder::from_custom_bytes(bytes)
                .into_uuid()
                .to_string(),
        )
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExecutionId {
    type Err = InvalidExecutionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidExecutionId)
        }
    }
}

impl<'de> Deserialize<'de> for ExecutionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Borrow<str> for ExecutionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Identifies one line of an execution's log, written `<attempt>-<sequence>`.
///
/// Ids of one execution are strictly increasing, so an id is also the cursor from which a reader
/// resumes: "everything after this one".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Which attempt wrote the line; 0 is the submit.
    pub attempt: u32,
    /// The line's place within its attempt, from 1.
    pub sequence: u64,
}

/// Why a text is not a cursor.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a cursor is the `id` of a line, like 1-42")]
pub struct InvalidEventId;

impl EventId {
    /// Before every line: the cursor of a reader who has seen nothing.
    pub const START: Self = Self {
        attempt: 0,
        sequence: 0,
    };

    /// The id of the `queued` line.
    pub const QUEUED: Self = Self {
        attempt: 0,
        sequence: 1,
    };

    /// The id of the first line of the first attempt.
    pub const FIRST_OF_ATTEMPT_1: Self = Self {
        attempt: 1,
        sequence: 1,
    };

    /// The id that follows this one within the same attempt. Clients may make up a cursor that has
    /// none after it; it stays where it is.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            sequence: self.sequence.saturating_add(1),
            ..self
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.attempt, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (attempt, sequence) = text.split_once('-').ok_or(InvalidEventId)?;
        if !digits(attempt) || !digits(sequence) {
            return Err(InvalidEventId);
        }
        Ok(Self {
            attempt: attempt.parse().map_err(|_| InvalidEventId)?,
            sequence: sequence.parse().map_err(|_| InvalidEventId)?,
        })
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whom an execution belongs to: the API key it was submitted with, or the local user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner(String);

impl Owner {
    /// The owner of everything that is submitted where no API keys are configured.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The owner named `name`.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The owner's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execution_ids_are_short_and_plain() {
        assert!(
            "SIMPLE_STRESS_TEST_20250630_214505_echo_test"
                .parse::<ExecutionId>()
                .is_ok()
        );
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert_eq!(
                bad.parse::<ExecutionId>(),
                Err(InvalidExecutionId),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn cursors_order_by_attempt_and_then_by_sequence() {
        let parse = |text: &str| text.parse::<EventId>().expect("is a cursor");
        assert!(parse("1-9") < parse("1-10"));
        assert!(parse("1-10") < parse("2-1"));
        assert_eq!(parse("1-9").next(), parse("1-10"));
    }

    #[test]
    fn texts_that_are_no_cursors_are_refused() {
        for bad in [
            "",
            "1",
            "-",
            "1-",
            "-1",
            "1-2-3",
            "a-b",
            "1-+2",
            " 1-2",
            "4294967296-1",
            "$",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(InvalidEventId), "{bad:?}");
        }
    }

    #[test]
    fn an_idempotency_key_means_one_id_for_each_owner() {
        let first = ExecutionId::from_idempotency_key(&Owner::local(), "k");
        assert_eq!(
            first,
            ExecutionId::from_idempotency_key(&Owner::local(), "k")
        );
        assert_ne!(
            first,
            ExecutionId::from_idempotency_key(&Owner::named("x"), "k")
        );
        assert!(first.as_str().parse::<ExecutionId>().is_ok());
    }
}
