//! The working directory of an execution: its own, empty, and gone afterwards.

use std::io;
use std::path::Path;

use shared::store::Lease;
use tempfile::TempDir;

/// A directory that only the worker's user can enter.
pub(crate) struct Workspace(TempDir);

impl Workspace {
    /// Makes the directory for one attempt, under a name that nobody has.
    pub(crate) fn create(parent: &Path, lease: &Lease) -> io::Result<Self> {
        std::fs::create_dir_all(parent)?;
        let prefix = format!("{}-{}-", lease.id, lease.attempt);
        let directory = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(parent)?;
        Ok(Self(directory))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(self) {
        let path = self.0.path().display().to_string();
        if let Err(error) = self.0.close() {
            tracing::warn!(path, %error, "failed to remove a working directory");
        }
    }
}
