//! Processes as the supervisor sees them, one concern a file.

pub(crate) mod exit;
pub(crate) mod pipes;
pub(crate) mod shims;
pub(crate) mod spawn;
pub(crate) mod terminal;
