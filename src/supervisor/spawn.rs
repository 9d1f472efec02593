//! From a launch to a running group leader: the one place that forks.
//!
//! Everything that happens between fork and exec is prepared before the fork. In the child of a
//! process with several threads only async-signal-safe calls are allowed (signal-safety(7)): no
//! allocation, no lock.
//!
//! The order there matters: first what needs privileges (groups, then group, then user), then what
//! must be tried with the app's own rights (entering the directory), then exec. A step that fails
//! writes its number into a pipe, so that the error can name it. The standard library reports
//! exec's own failure.

#![expect(unsafe_code, reason = "what a child becomes between fork and exec has no safe interface")]

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use command_group::{AsyncCommandGroup, AsyncGroupChild};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, pipe2, setgroups, setresgid, setresuid};
use tokio::process::Command;

use super::{Ids, start_child};

/// Why a process could not be started: operation, subject, cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SpawnError {
    /// For people.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<io::Error>,
}

impl SpawnError {
    pub(super) fn new(message: String, source: io::Error) -> Self {
        Self { message, source: Some(source) }
    }
}

/// All of a child, ready to be started.
pub(super) struct ChildPlan {
    /// Program and arguments.
    pub(super) words: Vec<String>,
    pub(super) env: BTreeMap<OsString, OsString>,
    pub(super) directory: Option<PathBuf>,
    pub(super) identity: Option<Ids>,
    /// The soft limit of open files; `None`: the daemon's.
    pub(super) open_files: Option<u64>,
    pub(super) stdout: File,
    pub(super) stderr: File,
}

/// The steps before exec that can fail, as they are written into the pipe.
const GROUPS: u8 = 1;
const GROUP: u8 = 2;
const USER: u8 = 3;
const DIRECTORY: u8 = 4;

/// Starts the plan as the leader of a new process group. Blocks until the child has executed its
/// program, or has failed to.
pub(super) fn start(plan: ChildPlan) -> Result<AsyncGroupChild, SpawnError> {
    let ChildPlan { words, env, directory, identity, open_files, stdout, stderr } = plan;
    let Some((program, arguments)) = words.split_first().filter(|(program, _)| !program.is_empty()) else {
        return Err(SpawnError {
            message: "cannot start the app: its command names no program".to_owned(),
            source: None,
        });
    };
    let failed = |step, error: io::Error| {
        let message = explain(step, &error, program, directory.as_deref(), identity.as_ref());
        SpawnError::new(message, error)
    };

    let (mut told, tell) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .map(|(read, write)| (File::from(read), write))
        .map_err(|errno| failed(0, errno.into()))?;
    let becoming = Becoming::prepare(identity.as_ref(), directory.as_deref(), open_files, tell)
        .map_err(|error| failed(DIRECTORY, error))?;

    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&env);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    // SAFETY: the closure only makes async-signal-safe calls, on what was prepared before the fork.
    // It neither allocates nor takes a lock (see `Becoming::apply`).
    unsafe {
        command.pre_exec(move || becoming.apply());
    }
    start_child(|| command.group_spawn(), AsyncGroupChild::id).map_err(|error| {
        // The child is gone: if a step failed, its number is in the pipe.
        let mut step = [0];
        let step = told.read(&mut step).map_or(0, |read| if read == 1 { step[0] } else { 0 });
        failed(step, error)
    })
}

/// What the child does to itself between fork and exec.
struct Becoming {
    switch: Option<(Vec<Gid>, Gid, Uid)>,
    directory: Option<CString>,
    /// Soft and hard limit of open files.
    open_files: Option<(u64, u64)>,
    tell: OwnedFd,
}

impl Becoming {
    fn prepare(
        identity: Option<&Ids>,
        directory: Option<&Path>,
        open_files: Option<u64>,
        tell: OwnedFd,
    ) -> io::Result<Self> {
        let switch = identity.filter(|ids| !ids.is_own()).map(|ids| {
            let groups = ids.groups.iter().copied().map(Gid::from_raw).collect();
            (groups, Gid::from_raw(ids.gid), Uid::from_raw(ids.uid))
        });
        let directory =
            directory.map(|directory| CString::new(directory.as_os_str().as_bytes())).transpose()?;
        let open_files = match open_files {
            Some(soft) => {
                let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
                Some((soft.min(hard), hard))
            }
            None => None,
        };
        Ok(Self { switch, directory, open_files, tell })
    }

    /// Runs in the child. Nothing here may allocate, lock, or panic.
    fn apply(&self) -> io::Result<()> {
        // Signals that the daemon ignores or blocks would stay so through exec.
        for number in 1..=64 {
            // SAFETY: only sets the default action, and no other thread exists in this child.
            // SIGKILL, SIGSTOP and the two signals of the C library are refused, which does not
            // matter.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
        SigSet::empty().thread_set_mask()?;
        // SAFETY: takes numbers only. The daemon's own descriptors close on exec anyway; those that
        // it was started with (sockets that systemd passed, what a shell left open) may not. A
        // kernel before 5.11 does not know the call; there they stay open.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        if let Some((soft, hard)) = self.open_files {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        // SAFETY: takes numbers only. Capabilities that a unit gave the daemon (to bind port 80,
        // say) would survive exec. A kernel without them answers EINVAL, which is as good.
        unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0)
        };
        if let Some((groups, gid, uid)) = &self.switch {
            self.step(GROUPS, setgroups(groups))?;
            self.step(GROUP, setresgid(*gid, *gid, *gid))?;
            self.step(USER, setresuid(*uid, *uid, *uid))?;
        }
        if let Some(directory) = &self.directory {
            self.step(DIRECTORY, chdir(directory.as_c_str()))?;
        }
        Ok(())
    }

    fn step(&self, number: u8, result: Result<(), Errno>) -> io::Result<()> {
        result.map_err(|errno| {
            let _ = nix::unistd::write(&self.tell, &[number]);
            io::Error::from(errno)
        })
    }
}

/// One sentence: what was tried, on what, and why it failed.
fn explain(
    step: u8,
    error: &io::Error,
    program: &str,
    directory: Option<&Path>,
    identity: Option<&Ids>,
) -> String {
    let user = identity.map_or(String::new(), |ids| format!(" as user `{}`", ids.name));
    let place = directory.map_or(String::new(), |directory| format!(" in {}", directory.display()));
    let missing = error.kind() == io::ErrorKind::NotFound;
    let cause = match step {
        GROUPS | GROUP | USER => {
            let what = match step {
                GROUPS => "take the groups of",
                GROUP => "take the group of",
                _ => "become",
            };
            let name = identity.map_or("", |ids| ids.name.as_str());
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                format!("; portokd runs as uid {} and may not become somebody else", Uid::effective())
            } else {
                String::new()
            };
            return format!("cannot start `{program}`{place}: cannot {what} user `{name}`: {error}{hint}");
        }
        DIRECTORY => {
            let shown = directory.map_or_else(|| "/".into(), |directory| directory.display().to_string());
            return format!("cannot start `{program}`: cannot enter the directory {shown}{user}: {error}");
        }
        _ if missing && !program.contains('/') => "there is no such program in PATH".to_owned(),
        _ if missing && exists(program, directory) => {
            "the file is there, but the interpreter or loader that it asks for is not".to_owned()
        }
        _ if missing => "there is no such file".to_owned(),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => {
            "it is neither a binary for this machine nor a script that begins with #!".to_owned()
        }
        _ => return format!("cannot start `{program}`{place}{user}: {error}"),
    };
    format!("cannot start `{program}`{place}{user}: {cause}: {error}")
}

/// Whether a program that is given by its path exists, seen from the app's directory.
fn exists(program: &str, directory: Option<&Path>) -> bool {
    directory.map_or_else(|| PathBuf::from(program), |directory| directory.join(program)).exists()
}
