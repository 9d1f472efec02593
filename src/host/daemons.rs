//! The one face by which host commands see daemons: each may be asked for its status.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use crate::wire::Status;

/// A daemon's status; `None` when it does not answer in time.
pub(crate) type StatusAnswer = Pin<Box<dyn Future<Output = Option<Status>> + Send>>;

/// Finds the daemons of this host and asks them. The caller of the host commands provides it.
pub(crate) trait Daemons {
    /// The admin sockets at their default places.
    fn sockets(&self) -> Vec<PathBuf>;

    /// Asks the daemon behind `socket`, whichever instance it serves.
    fn ask_socket(&self, socket: &Path) -> StatusAnswer;

    /// Asks the daemon of the instance `name`, which calls itself `called`. An answer of another
    /// daemon counts as none.
    fn ask_instance(&self, name: &str, called: &str) -> StatusAnswer;
}
