//! Control groups (version 2): where one can be made, its processes are killed and frozen in one step.
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getpid};

use crate::claim::{Claim, claim};

const PREFIX: &str = "cc-executor-";
/// How long the processes of a cgroup may take to die.
const LONGEST_DEATH: Duration = Duration::from_secs(2);

/// The cgroup of one shim's jobs, one after the other.
#[derive(Debug)]
pub(crate) struct Cgroup {
    nursery: PathBuf,
    path: PathBuf,
    directory: File,
    generation: u32,
}

impl Cgroup {
    /// Makes one for this process.
    pub(crate) fn create(nursery: PathBuf) -> io::Result<Self> {
        Self::of_generation(nursery, 0)
    }

    fn of_generation(nursery: PathBuf, generation: u32) -> io::Result<Self> {
        let path = nursery.join(format!("{}{generation}", prefix_of(getpid())));
        fs::create_dir(&path)?;
        let directory = File::open(&path)?;
        Ok(Self {
            nursery,
            path,
            directory,
            generation,
        })
    }

    /// Makes another one for the next job. In a cgroup that has been killed once, the kernel kills whatever is
    /// forked into it later (seen on Linux 6.18).
    pub(crate) fn renew(self) -> io::Result<Self> {
        // What cannot be removed now is removed with the worker's.
        let _ = fs::remove_dir(&self.path);
        Self::of_generation(self.nursery, self.generation.wrapping_add(1))
    }

    /// Moves this process into it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), "0")
    }

    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    pub(crate) fn freeze(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.freeze"), "1")
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.freeze"), "0")
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn prefix_of(shim: Pid) -> String {
    format!("job-{shim}-")
}

/// Removes what a shim that is gone has left; its processes are gone as well.
pub(crate) fn remove_of(nursery: &Path, shim: Pid) {
    let prefix = prefix_of(shim);
    for entry in fs::read_dir(nursery).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // The rest is removed with the worker's.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Makes the cgroup in which a worker's jobs have theirs, within `parent` or the cgroup of this process, and
/// clears away what workers that are gone have left there.
pub(crate) fn create_nursery(parent: Option<&Path>) -> io::Result<Claim> {
    let parent = parent.map_or_else(own_cgroup, |path| Ok(path.to_owned()))?;
    let path = parent.join(format!("{PREFIX}{}", std::process::id()));
    let (nursery, leftovers) = claim(&parent, PREFIX, || fs::create_dir(&path).map(|()| path))?;
    for leftover in leftovers {
        clear_away(&leftover.path);
    }
    if !nursery.path.join("cgroup.kill").exists() {
        fs::remove_dir(&nursery.path)?;
        let message = "the kernel's cgroups have no cgroup.kill";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok(nursery)
}

/// Removes a worker's cgroup with all below it.
pub(crate) fn remove_nursery(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir(entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn clear_away(path: &Path) {
    tracing::warn!(path = %path.display(), "ending what a worker that is gone has left");
    let deadline = Instant::now() + LONGEST_DEATH;
    let mut result = fs::write(path.join("cgroup.kill"), "1").and_then(|()| remove_nursery(path));
    while result.is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
        result = remove_nursery(path);
    }
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), %error, "failed to remove a cgroup");
    }
}

/// The directory of the cgroup that this process is in.
fn own_cgroup() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    locate(&mounts, &own)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no version 2 cgroups are mounted"))
}

/// Finds it in `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn locate(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_cgroup2 = |line: &&str| line.contains(" - cgroup2 ");
    let mount: Vec<&str> = mounts.lines().find(is_cgroup2)?.split(' ').collect();
    let (root, mount_point) = (mount.get(3)?, mount.get(4)?);
    let below = Path::new(own).strip_prefix(root).ok()?;
    Some(Path::new(mount_point).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_below_its_mount_point() {
        let mounts = "25 30 0:22 / /proc rw - proc proc rw\n\
            31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let found = locate(mounts, "1:cpu:/a\n0::/system.slice/x.service\n");
        let expected = Path::new("/sys/fs/cgroup/system.slice/x.service");
        assert_eq!(found.as_deref(), Some(expected));
        let in_container = mounts.replace(" 0:27 / ", " 0:27 /docker/1 ");
        let found = locate(&in_container, "0::/docker/1\n");
        assert_eq!(found.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(locate("", "0::/"), None);
        assert_eq!(locate(mounts, "1:cpu:/"), None, "version 1 only");
    }
}
