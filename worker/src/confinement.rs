//! What jobs may do on this machine: the settings, and what follows from them for one job.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User, getgrouplist};
use shared::config::{Reader, Setting};
use shared::event::Sandbox;
use shared::outcome::Failure;

use crate::guard::confine::{Account, Boundaries, is_landlock_available};

pub(crate) const SANDBOX: Setting = Setting::new(
    "CC_SANDBOX",
    "",
    "How jobs are confined: off, workspace (they write only to their own directory, TMPDIR and CC_SANDBOX_WRITE) or strict (they also read only the system's programs and CC_SANDBOX_READ) [default: workspace; off in cc-executor serve]",
);
pub(crate) const SANDBOX_REQUIRED: Setting = Setting::new(
    "CC_SANDBOX_REQUIRED",
    "0",
    "Do not start where the kernel cannot confine jobs",
);
pub(crate) const SANDBOX_WRITE: Setting = Setting::new(
    "CC_SANDBOX_WRITE",
    "",
    "Paths that confined jobs may write to besides, separated by commas",
);
pub(crate) const SANDBOX_READ: Setting = Setting::new(
    "CC_SANDBOX_READ",
    "",
    "Paths that jobs under CC_SANDBOX=strict may read besides, separated by commas",
);
pub(crate) const ALLOWED_CWD: Setting = Setting::new(
    "CC_ALLOWED_CWD",
    "",
    "Directories below which a job may name its `cwd`, separated by commas [default: none; / in cc-executor serve]",
);
pub(crate) const RUN_AS: Setting = Setting::new(
    "CC_RUN_AS",
    "",
    "The user that jobs run as, by name or number, with :group if not that user's own [default: the worker's user]",
);
pub(crate) const CGROUP: Setting = Setting::new(
    "CC_CGROUP",
    "auto",
    "The cgroup (version 2) in which jobs get theirs: a directory, auto for the worker's own, or off",
);

/// Who reaches the worker, and so what a job may do unless the settings say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// One person, on their own machine, who could type what they send.
    Person,
    /// Whoever has a key.
    Deployment,
}

/// What jobs may do.
#[derive(Clone, Debug)]
pub(crate) struct Confinement {
    pub(crate) sandbox: Sandbox,
    is_required: bool,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    allowed_cwd: Vec<PathBuf>,
    pub(crate) user: Option<RunAs>,
    pub(crate) cgroup: CgroupChoice,
}

/// Whom jobs run as.
#[derive(Clone, Debug)]
pub(crate) struct RunAs {
    pub(crate) account: Account,
    /// Where that user is at home, and by what name; unknown for a number without an entry.
    pub(crate) home: Option<(String, PathBuf)>,
}

/// Where jobs get their cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupChoice {
    Off,
    Own,
    Within(PathBuf),
}

impl Confinement {
    pub(crate) fn read(reader: &mut Reader<'_>, exposure: Exposure) -> Self {
        let (sandbox, allowed_cwd) = match exposure {
            Exposure::Person => (Sandbox::Off, vec![PathBuf::from("/")]),
            Exposure::Deployment => (Sandbox::Workspace, Vec::new()),
        };
        Self {
            sandbox: sandbox_setting(reader).unwrap_or(sandbox),
            is_required: reader.value(&SANDBOX_REQUIRED),
            read: absolute_paths(reader, &SANDBOX_READ).unwrap_or_default(),
            write: absolute_paths(reader, &SANDBOX_WRITE).unwrap_or_default(),
            allowed_cwd: absolute_paths(reader, &ALLOWED_CWD).unwrap_or(allowed_cwd),
            user: user(reader),
            cgroup: cgroup(reader),
        }
    }

    /// What this kernel can do of it; an error if that is not enough.
    pub(crate) fn possible_here(mut self) -> Result<Self, Unconfined> {
        if self.sandbox == Sandbox::Off || is_landlock_available() {
            return Ok(self);
        }
        if self.is_required {
            return Err(Unconfined);
        }
        tracing::warn!("this kernel has no Landlock: jobs may do whatever their user may");
        self.sandbox = Sandbox::Off;
        Ok(self)
    }

    /// The boundaries of a job that works in `own`; none if it is not confined.
    pub(crate) fn boundaries(&self, shell: &Path, own: Vec<PathBuf>) -> Option<Boundaries> {
        let mut write = own;
        write.extend(self.write.iter().cloned());
        let read = match self.sandbox {
            Sandbox::Off => return None,
            Sandbox::Workspace => vec![PathBuf::from("/")],
            Sandbox::Strict => {
                let system = SYSTEM.iter().map(PathBuf::from);
                let configured = self.read.iter().cloned();
                system.chain([shell.to_owned()]).chain(configured).collect()
            }
        };
        Some(Boundaries { read, write })
    }

    /// Opens the directory that a job names, if it may work there. What is opened is what was
    /// checked, whatever happens to the names on the way.
    pub(crate) fn open_cwd(&self, cwd: &Path) -> Result<(PathBuf, File), Failure> {
        let shown = cwd.display();
        let missing = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::new(
                "cwd_not_found",
                format!("there is no directory {shown} to run it in"),
            ),
            _ => Failure::new(
                "cwd_not_accessible",
                format!("{shown} cannot be entered: {error}"),
            ),
        };
        let directory = open_directory(cwd).map_err(|error| missing(&error))?;
        let real = cwd.canonicalize().map_err(|error| missing(&error))?;
        let is_allowed = |allowed: &PathBuf| {
            let allowed = allowed.canonicalize();
            allowed.is_ok_and(|allowed| real.starts_with(allowed))
        };
        if self.allowed_cwd.iter().any(is_allowed) && is_same(&directory, &real) {
            return Ok((real, directory));
        }
        let allowed = if self.allowed_cwd.is_empty() {
            "CC_ALLOWED_CWD of this worker allows no `cwd`".to_owned()
        } else {
            format!("{shown} is not below CC_ALLOWED_CWD of this worker")
        };
        Err(Failure::new("cwd_not_allowed", allowed))
    }
}

/// What programs are made of, and what they need to run.
const SYSTEM: [&str; 13] = [
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/proc",
    "/sys/devices/system/cpu",
    "/run/systemd/resolve",
];

/// The kernel cannot do what `CC_SANDBOX_REQUIRED` asks for.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("confine jobs: this kernel has no Landlock; CC_SANDBOX_REQUIRED=0 goes on without")]
pub struct Unconfined;

/// Opens a directory only to stand in it.
pub(crate) fn open_directory(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
}

fn is_same(directory: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let of_directory = directory.metadata().map(identity).ok();
    of_directory.is_some() && of_directory == path.symlink_metadata().map(identity).ok()
}

fn sandbox_setting(reader: &mut Reader<'_>) -> Option<Sandbox> {
    let word: String = reader.optional(&SANDBOX)?;
    let all = [Sandbox::Off, Sandbox::Workspace, Sandbox::Strict];
    let known = all.into_iter().find(|sandbox| sandbox.as_str() == word);
    if known.is_none() {
        reader.problem(format!(
            "CC_SANDBOX is off, workspace or strict, not {word:?}"
        ));
    }
    known
}

fn absolute_paths(reader: &mut Reader<'_>, setting: &Setting) -> Option<Vec<PathBuf>> {
    let texts: Vec<String> = reader.optional(setting)?;
    let paths: Vec<PathBuf> = texts.into_iter().map(PathBuf::from).collect();
    for path in paths.iter().filter(|path| !path.is_absolute()) {
        let name = setting.name;
        reader.problem(format!(
            "{name} is a list of absolute paths, not {:?}",
            path.display()
        ));
    }
    Some(paths)
}

fn cgroup(reader: &mut Reader<'_>) -> CgroupChoice {
    let text: String = reader.value(&CGROUP);
    match text.as_str() {
        "auto" => CgroupChoice::Own,
        "off" => CgroupChoice::Off,
        path if path.starts_with('/') => CgroupChoice::Within(PathBuf::from(path)),
        other => {
            reader.problem(format!(
                "CC_CGROUP is auto, off or an absolute path, not {other:?}"
            ));
            CgroupChoice::Off
        }
    }
}

fn user(reader: &mut Reader<'_>) -> Option<RunAs> {
    let text: String = reader.optional(&RUN_AS)?;
    let user = find_user(&text);
    if user.is_none() {
        reader.problem(format!(
            "CC_RUN_AS is a user that this machine knows, or a number with :number for the group, not {text:?}"
        ));
    }
    user
}

fn find_user(text: &str) -> Option<RunAs> {
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    let entry = match user.parse() {
        Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)),
        Err(_) => User::from_name(user),
    };
    let entry = entry.ok().flatten();
    let gid = match group {
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => Group::from_name(group).ok().flatten()?.gid.as_raw(),
        },
        None => entry.as_ref()?.gid.as_raw(),
    };
    let groups = entry
        .as_ref()
        .and_then(|entry| CString::new(entry.name.as_str()).ok())
        .and_then(|name| getgrouplist(&name, nix::unistd::Gid::from_raw(gid)).ok())
        .map_or_else(
            || vec![gid],
            |groups| groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        );
    let account = Account {
        uid: entry
            .as_ref()
            .map_or_else(|| user.parse().ok(), |entry| Some(entry.uid.as_raw()))?,
        gid,
        groups,
    };
    let home = entry.map(|entry| (entry.name, entry.dir));
    Some(RunAs { account, home })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Source;

    fn read(settings: &[(&str, &str)], exposure: Exposure) -> Result<Confinement, Vec<String>> {
        let source = Source::of(settings.iter().copied());
        let mut reader = Reader::new(&source);
        let confinement = Confinement::read(&mut reader, exposure);
        reader.finish(confinement).map_err(|error| error.0)
    }

    #[test]
    fn who_reaches_the_worker_decides_unless_the_settings_do() {
        let person = read(&[], Exposure::Person).expect("is right");
        assert_eq!(person.sandbox, Sandbox::Off);
        assert!(person.open_cwd(Path::new("/usr")).is_ok());
        let deployment = read(&[], Exposure::Deployment).expect("is right");
        assert_eq!(deployment.sandbox, Sandbox::Workspace);
        let refused = deployment
            .open_cwd(Path::new("/usr"))
            .expect_err("is refused");
        assert_eq!(refused.code, "cwd_not_allowed");
        let strict = read(&[("CC_SANDBOX", "strict")], Exposure::Person).expect("is right");
        assert_eq!(strict.sandbox, Sandbox::Strict);
    }

    #[test]
    fn a_way_out_of_the_allowed_directories_is_none() {
        let directory = tempfile::tempdir().expect("is made");
        let allowed = directory.path().join("allowed");
        std::fs::create_dir_all(allowed.join("inside")).expect("is made");
        std::os::unix::fs::symlink("/usr", allowed.join("link")).expect("is made");
        let text = allowed.display().to_string();
        let confinement =
            read(&[("CC_ALLOWED_CWD", &text)], Exposure::Deployment).expect("is right");
        let code = |path: PathBuf| {
            confinement
                .open_cwd(&path)
                .map(|_| ())
                .map_err(|error| error.code)
        };
        assert_eq!(code(allowed.join("inside")), Ok(()));
        assert_eq!(
            code(allowed.join("link")),
            Err("cwd_not_allowed".to_owned())
        );
        assert_eq!(
            code(allowed.join("inside/../..")),
            Err("cwd_not_allowed".to_owned())
        );
        assert_eq!(
            code(directory.path().join("allowed-not")),
            Err("cwd_not_found".to_owned())
        );
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = find_user("root").expect("is known everywhere");
        assert_eq!((root.account.uid, root.account.gid), (0, 0));
        let number = find_user("4242:4243").expect("needs no entry");
        assert_eq!((number.account.uid, number.account.gid), (4242, 4243));
        assert!(find_user("4242").is_none(), "its group is not known");
        assert!(find_user("no-such-user").is_none());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let settings = [
            ("CC_SANDBOX", "on"),
            ("CC_CGROUP", "x"),
            ("CC_ALLOWED_CWD", "here"),
        ];
        let problems = read(&settings, Exposure::Person).expect_err("is refused");
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
