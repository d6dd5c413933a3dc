//! The working directory of an execution: its own, empty, and gone afterwards.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use shared::store::Lease;

/// A directory that is removed when it is no longer needed.
pub(crate) struct Workspace {
    path: PathBuf,
}

impl Workspace {
    /// Makes the directory for one attempt.
    pub(crate) fn create(parent: &Path, lease: &Lease) -> io::Result<Self> {
        let path = parent.join(format!("{}-{}", lease.id, lease.attempt));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "failed to remove a working directory");
        }
    }
}
