//! Directories that belong to one worker for as long as it lives, and those that dead workers have left.
//!
//! Each is locked by its worker, and the kernel releases the lock of a process that has died. The directory above
//! is locked while one is made, so that nobody takes a new one for one that was left.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A directory that is locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) path: PathBuf,
    _lock: File,
}

/// Makes a directory with `make` and claims it, together with those next to it whose names begin with `prefix`
/// and which nobody else holds.
pub(crate) fn claim(
    parent: &Path,
    prefix: &str,
    make: impl FnOnce() -> io::Result<PathBuf>,
) -> io::Result<(Claim, Vec<Claim>)> {
    let turn = File::open(parent)?;
    turn.lock()?;
    let leftovers = fs::read_dir(parent)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Claim::of(entry.path()).ok())
        .collect();
    let own = Claim::of(make()?)?;
    Ok((own, leftovers))
}

impl Claim {
    fn of(path: PathBuf) -> io::Result<Self> {
        let lock = File::open(&path)?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Self { path, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_holds_is_not_left_and_what_was_left_is() {
        let parent = tempfile::tempdir().expect("is made");
        let make = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir(&path).map(|()| path)
        };
        let (first, leftovers) = claim(parent.path(), "w-", || make("w-1")).expect("is made");
        assert!(leftovers.is_empty());
        make("other").expect("is made");
        let (second, leftovers) = claim(parent.path(), "w-", || make("w-2")).expect("is made");
        assert!(leftovers.is_empty(), "the first is held");
        drop((first, second));
        let (_third, leftovers) = claim(parent.path(), "w-", || make("w-3")).expect("is made");
        assert_eq!(leftovers.len(), 2);
    }
}
