//! What a command finds around itself: the folders of this machine, default sockets, environment
//! variables.

use std::path::PathBuf;

use super::sockets;
use crate::config::Secret;
use crate::host::Places;

/// What a command finds around itself. It is a parameter, so that tests have surroundings of their
/// own.
pub(crate) struct Surroundings {
    /// The folders of this machine.
    pub(crate) places: Places,
    /// From an instance's name to the default places of its socket, the likeliest first; never
    /// empty.
    pub(crate) socket_places: SocketPlaces,
    /// Finds the admin sockets at the default places of this machine.
    pub(crate) sockets: Box<dyn Fn() -> Vec<PathBuf>>,
    /// Whether systemd runs this machine.
    pub(crate) systemd: bool,
    /// `PORTOK_URL`.
    pub(crate) url: Option<String>,
    /// `PORTOK_TOKEN`.
    pub(crate) token: Option<Secret>,
}

/// From an instance's name to the default places of its socket.
pub(crate) type SocketPlaces = Box<dyn Fn(&str) -> Vec<PathBuf>>;

impl Surroundings {
    /// The surroundings of this process.
    pub(crate) fn of_process() -> Self {
        let text = |key| std::env::var(key).ok().filter(|value| !value.is_empty());
        let uid = nix::unistd::geteuid().as_raw();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Self {
            places: Places::of_process(),
            socket_places: {
                let runtime = runtime.clone();
                Box::new(move |name| sockets::places(name, uid, runtime.as_deref()))
            },
            sockets: Box::new(move || sockets::all(uid, runtime.as_deref())),
            // sd_booted(3)
            systemd: std::path::Path::new("/run/systemd/system").is_dir(),
            url: text("PORTOK_URL"),
            token: text("PORTOK_TOKEN").map(Secret::new),
        }
    }
}
