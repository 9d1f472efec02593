//! What the supervisors of all apps of a daemon share: what every app is started with, the folder
//! of the pipes and the thread that reads them, and the table of leased ports.
//!
//! It lives as long as one of them, or another holder of it. With it the reading ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::identity::{self, Identity};
use super::pipe::PipeFolder;
use super::port::Ports;
use super::reader::Reader;
use super::sink::Sink;
use super::{command, output::Output};

/// See the module.
#[derive(Debug)]
pub struct Common {
    pub(super) instance: String,
    /// What every app's environment begins with.
    pub(super) env: BTreeMap<OsString, OsString>,
    pub(super) open_files: Option<u64>,
    pub(super) ports: Ports,
    folder: PipeFolder,
    reader: Arc<Reader>,
}

/// What a [`Common`] needs.
#[derive(Debug)]
pub struct Settings {
    /// The instance's name, for `PORTOK_INSTANCE`.
    pub instance: String,
    /// The folder for the output pipes (mode 0700, made where it is missing).
    pub run_dir: PathBuf,
    /// The daemon's environment. What no app may see is taken out here.
    pub env: BTreeMap<OsString, OsString>,
    /// Start a keeper, which keeps the pipes from filling up while there is no daemon. The
    /// program's `main` calls [`run_keeper_if_asked`](super::run_keeper_if_asked).
    pub keeper: bool,
    /// Where the apps' lines go, beside the ring that `logs` reads.
    pub sink: Sink,
    /// The soft limit of open files for apps: what the daemon was started with, if it raised its
    /// own. `None`: they inherit the daemon's.
    pub open_files: Option<u64>,
}

impl Common {
    /// Makes the folder and starts the reader's thread.
    ///
    /// # Errors
    /// The folder cannot be made, `/proc` cannot be read, or a thread cannot be started.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let Settings { instance, run_dir, env, keeper, sink, open_files } = settings;
        identity::boot_id()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot read the boot id: {error}")))?;
        let folder = PipeFolder::make(run_dir)?;
        let reader = Arc::new(Reader::start(&instance, &folder, sink, keeper)?);
        let env = command::scrub(env);
        Ok(Self { instance, env, open_files, ports: Ports::default(), folder, reader })
    }

    /// From now on no app gets one of these ports, even while nobody listens there. Those that have
    /// one keep it.
    pub fn avoid(&self, ports: BTreeSet<u16>) {
        self.ports.avoid(ports);
    }

    /// The output of the runs of one app; `app` is its name where there are several.
    pub(super) fn output(&self, app: Option<&str>) -> Output {
        Output::new(app, self.folder.clone(), Arc::clone(&self.reader))
    }

    /// Removes the pipes of all runs but `kept`, the recorded runs of all apps: nothing prints into
    /// them any more. To be called once, before any app is started.
    pub fn remove_pipes_but(&self, kept: &[Identity]) {
        self.folder.remove_all_but(kept);
    }

    /// Leaves what the apps print from now on in their pipes, for a successor to read; `false`
    /// reads it again.
    pub fn hush(&self, hushed: bool) {
        self.reader.hush(hushed);
    }

    /// Puts back what a successor may have replaced that did not take over: the keeper.
    pub fn restore(&self) {
        self.reader.renew_keeper();
    }
}
