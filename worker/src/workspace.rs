//! The directories of an execution: its own, empty, and gone afterwards.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::store::Lease;
use tempfile::TempDir;

use crate::claim::{Claim, claim};
use crate::guard::confine::Account;

const PREFIX: &str = "worker-";
/// Names of directories and sockets below it are not to become too long.
const ID_CHARACTERS: usize = 40;

/// The directory of all workspaces of one worker.
#[derive(Debug)]
pub(crate) struct Workspaces {
    claim: Claim,
}

/// The directories of one attempt, which only the job's user can enter.
pub(crate) struct Workspace {
    root: TempDir,
    /// Where the job works.
    pub(crate) work: PathBuf,
    /// Where it puts its temporary files, if it is to have them to itself.
    pub(crate) temporary: Option<PathBuf>,
}

impl Workspaces {
    /// Makes it, and removes what workers that are gone have left.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let make = || {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            Ok(directory.keep())
        };
        let (claim, leftovers) = claim(parent, PREFIX, make)?;
        leftovers.iter().for_each(remove);
        // Jobs that run as another user pass through it.
        let anybody_may_pass = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(&claim.path, anybody_may_pass)?;
        Ok(Self { claim })
    }

    /// Makes the directories for one attempt, under a name that nobody has.
    pub(crate) fn enter(
        &self,
        lease: &Lease,
        owner: Option<&Account>,
        has_temporary: bool,
    ) -> io::Result<Workspace> {
        let id: String = lease.id.as_str().chars().take(ID_CHARACTERS).collect();
        let prefix = format!("{id}-{}-", lease.attempt);
        // Somebody may have tidied up in the directory for temporary files.
        fs::create_dir_all(&self.claim.path)?;
        let root = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&self.claim.path)?;
        let (work, temporary) = if has_temporary {
            (root.path().join("work"), Some(root.path().join("tmp")))
        } else {
            (root.path().to_owned(), None)
        };
        if let Some(temporary) = &temporary {
            fs::create_dir(&work)?;
            fs::create_dir(temporary)?;
        }
        if let Some(Account { uid, gid, .. }) = owner {
            let all = [root.path(), work.as_path()].into_iter();
            for path in all.chain(temporary.as_deref()) {
                std::os::unix::fs::chown(path, Some(*uid), Some(*gid))?;
            }
        }
        Ok(Workspace {
            root,
            work,
            temporary,
        })
    }
}

impl Workspace {
    /// What all of it is below.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(self) {
        let path = self.root.keep();
        let removed = fs::remove_dir_all(&path).or_else(|_| {
            // Jobs may forbid even themselves to change their directories, as caches of packages do.
            allow_all_to_owner(&path)?;
            fs::remove_dir_all(&path)
        });
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "failed to remove a working directory");
        }
    }
}

/// Lets the owner change every directory in a tree.
fn allow_all_to_owner(directory: &Path) -> io::Result<()> {
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(directory, all)?;
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            allow_all_to_owner(&entry.path())?;
        }
    }
    Ok(())
}

impl Drop for Workspaces {
    fn drop(&mut self) {
        // What is in it has been removed, or was complained about.
        let _ = fs::remove_dir_all(&self.claim.path);
    }
}

fn remove(leftover: &Claim) {
    let path = leftover.path.display();
    tracing::info!(%path, "removing what a worker that is gone has left");
    if let Err(error) = fs::remove_dir_all(&leftover.path) {
        tracing::warn!(%path, %error, "failed to remove it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_has_locked_away_can_be_removed() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().expect("is made");
        let inner = parent.path().join("a/b");
        fs::create_dir_all(&inner).expect("is made");
        fs::write(inner.join("file"), "").expect("is written");
        for locked in [&inner, &parent.path().join("a")] {
            fs::set_permissions(locked, PermissionsExt::from_mode(0o000)).expect("is set");
        }
        allow_all_to_owner(parent.path()).expect("is its owner");
        let mode = fs::metadata(&inner).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn what_a_worker_has_left_is_removed_once_it_is_gone() {
        let parent = tempfile::tempdir().expect("is made");
        let alive = Workspaces::create(parent.path()).expect("is made");
        let left = parent.path().join("worker-gone");
        fs::create_dir_all(left.join("x-1-abc")).expect("is made");
        fs::write(parent.path().join("file"), "of somebody else").expect("is written");
        let _another = Workspaces::create(parent.path()).expect("is made");
        assert!(!left.exists());
        assert!(alive.claim.path.exists());
        assert!(parent.path().join("file").exists());
    }
}
