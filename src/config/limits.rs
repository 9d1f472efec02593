//! What an app may use at most, and which of these limits this host can enforce.
//!
//! Open files are a resource limit, which every daemon may set below its own hard one. Memory,
//! processor time and tasks are counted by the kernel for a cgroup. portok asks systemd for a
//! cgroup (a transient scope, systemd.scope(5)) and makes none itself: a service that delegates
//! controllers to parts of its own tree fails to restart on systemd 252.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

/// The program that puts itself into a scope and then becomes the app.
pub const SYSTEMD_RUN: &str = "/usr/bin/systemd-run";

/// `app.open_files`, `app.memory`, `app.cpu`, `app.tasks`; `None` where a limit is not set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// The soft limit of open files of each of its processes.
    pub open_files: Option<u64>,
    /// Bytes of memory of all its processes together.
    pub memory: Option<u64>,
    /// Processor time of all its processes together, in percent of one processor.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

impl Limits {
    /// Whether no limit is set.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the limits need a scope.
    pub fn need_scope(&self) -> bool {
        self.memory.is_some() || self.cpu.is_some() || self.tasks.is_some()
    }
}

/// What this process and its host allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// The effective user.
    pub(super) uid: u32,
    /// The hard limit of open files.
    pub(super) open_files: u64,
    /// Whether systemd is the init.
    pub(super) systemd: bool,
    /// Whether [`SYSTEMD_RUN`] is there.
    pub(super) systemd_run: bool,
    /// The cgroup controllers that systemd can give.
    pub(super) controllers: Vec<String>,
}

impl Host {
    /// This host, as it is now.
    pub(super) fn current() -> Self {
        let cgroups = Path::new("/sys/fs/cgroup");
        // One tree for all controllers (cgroup v2), or a folder for each.
        let controllers = match fs::read_to_string(cgroups.join("cgroup.controllers")) {
            Ok(unified) => unified.split_whitespace().map(str::to_owned).collect(),
            Err(_) => fs::read_dir(cgroups)
                .map(|folders| {
                    folders.flatten().filter_map(|folder| folder.file_name().into_string().ok()).collect()
                })
                .unwrap_or_default(),
        };
        Self {
            uid: geteuid().as_raw(),
            open_files: getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard),
            systemd: Path::new("/run/systemd/system").is_dir(),
            systemd_run: Path::new(SYSTEMD_RUN).is_file(),
            controllers,
        }
    }

    /// Why this process cannot get a scope with limits for `controller`; `None` if it can.
    pub(super) fn refuses(&self, controller: &str) -> Option<String> {
        if self.uid != 0 {
            Some(format!("only root may ask systemd for a scope, and this is uid {}", self.uid))
        } else if !self.systemd {
            Some("systemd, whose scope it takes, is not running here".to_owned())
        } else if !self.systemd_run {
            Some(format!("{SYSTEMD_RUN}, which it takes, is not here"))
        } else if !self.controllers.iter().any(|known| known == controller) {
            Some(format!("systemd has no cgroup controller `{controller}` to give here"))
        } else {
            None
        }
    }
}
