//! The one face by which host commands see daemons: each may be asked how it is.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use crate::wire::{AppRow, InstanceStatus, Status};

/// How a daemon is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered {
    /// What it says of itself.
    pub(crate) daemon: InstanceStatus,
    /// What it serves.
    pub(crate) serves: Serves,
}

/// What a daemon serves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Serves {
    /// One app, with its status.
    One(Box<Status>),
    /// Several, or none yet.
    Several(Vec<AppRow>),
}

/// A daemon's answer; `None` when it does not answer in time.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Option<Answered>> + Send>>;

/// Finds the daemons of this host and asks them. The caller of the host commands provides it.
pub(crate) trait Daemons {
    /// The admin sockets at their default places.
    fn sockets(&self) -> Vec<PathBuf>;

    /// Asks the daemon behind `socket`, whichever instance it serves.
    fn ask_socket(&self, socket: &Path) -> Asking;

    /// Asks the daemon of the instance `name`, which calls itself `called`. An answer of another
    /// daemon counts as none.
    fn ask_instance(&self, name: &str, called: &str) -> Asking;
}
