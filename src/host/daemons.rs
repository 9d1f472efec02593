//! The one face by which host commands see daemons: each may be asked how it is.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use crate::wire::{AppRow, Status};

/// How a daemon is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered {
    /// The status of its app; of several: of the first one; of none: what is the daemon's own.
    pub(crate) status: Status,
    /// Its several apps. `None`: it has one.
    pub(crate) apps: Option<Vec<AppRow>>,
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
