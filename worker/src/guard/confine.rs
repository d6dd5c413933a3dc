//! What is taken from a process before its program begins: privileges, resources, the file system.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities,
};
use serde::{Deserialize, Serialize};
use shared::spec::Limits;

/// The newest version of Landlock whose rights are asked for; an older kernel grants what it knows.
const LANDLOCK: ABI = ABI::V6;
/// What every program may use of `/dev`, whatever else is closed to it.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];
/// Beyond the limit on memory in use there is a limit on what each process may map for writing. It
/// stops the one process that grows faster than it is measured.
const MAPPED_BEYOND_BYTES: u64 = 256 << 20;

/// Where in the file system a process may do what; nowhere else may it do anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boundaries {
    /// Read and execute.
    pub(crate) read: Vec<PathBuf>,
    /// Everything.
    pub(crate) write: Vec<PathBuf>,
}

/// How a process is confined; not at all if there are no boundaries.
pub(crate) type Confinement = Option<Boundaries>;

/// A user to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

impl Account {
    /// Becomes that user, for good.
    pub(crate) fn assume(&self) -> nix::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)
    }
}

impl Boundaries {
    /// Shuts this process in, with all that it will start.
    /// <https://docs.kernel.org/userspace-api/landlock.html>
    pub(crate) fn enforce(&self) -> io::Result<()> {
        let status = self.restrict().map_err(io::Error::other)?;
        if status.ruleset == RulesetStatus::NotEnforced {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(())
    }

    fn restrict(&self) -> Result<RestrictionStatus, RulesetError> {
        let devices = DEVICES.map(Path::new);
        // Processes of the job may signal each other, but neither the worker nor other jobs.
        Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .scope(Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(
                &self.read,
                AccessFs::from_read(LANDLOCK),
            ))?
            .add_rules(path_beneath_rules(devices, AccessFs::from_all(LANDLOCK)))?
            .add_rules(path_beneath_rules(
                &self.write,
                AccessFs::from_all(LANDLOCK),
            ))?
            .restrict_self()
    }
}

/// Sees to it that a program that is started now has no capabilities, even if its user is root: some of them
/// reach beyond what Landlock closes, like the memory of other processes.
/// <https://man7.org/linux/man-pages/man7/capabilities.7.html>
pub(crate) fn drop_capabilities() -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        // Who is not root gets none from a program that may not add privileges.
        return Ok(());
    }
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // The kernel does not know it, or it has been taken from this process with all the others.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let own = capabilities(None)?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { inheritable, ..own })?;
    Ok(())
}

/// Whether this kernel can enforce [`Boundaries`].
pub(crate) fn is_landlock_available() -> bool {
    // A ruleset that nobody is restricted by.
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V1));
    let created = ruleset.and_then(Ruleset::create);
    created.is_ok_and(|created| Option::<std::os::fd::OwnedFd>::from(created).is_some())
}

/// Sets the limits that the kernel counts for each process. The others, for all processes of a job
/// together, are [`crate::guard::usage`]'s.
/// <https://man7.org/linux/man-pages/man2/getrlimit.2.html>
pub(crate) fn limit_resources(limits: &Limits) -> nix::Result<()> {
    let mapped = limits
        .memory_bytes
        .map(|bytes| bytes.saturating_add(MAPPED_BEYOND_BYTES));
    let core_dump = Some(0);
    for (resource, limit) in [
        (Resource::RLIMIT_DATA, mapped),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_CORE, core_dump),
    ] {
        if let Some(limit) = limit {
            setrlimit(resource, limit, limit)?;
        }
    }
    Ok(())
}

/// New files are everybody's to read and their owner's to write, whoever started the worker.
pub(crate) fn set_umask() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}
