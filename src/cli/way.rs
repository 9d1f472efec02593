//! The ways to a daemon: sockets and addresses, and the token for an address.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::config::Secret;
use crate::host::files::read_limited;
use crate::plain::describe_io;

/// The port of a daemon that was told none.
pub(crate) const DEFAULT_PORT: u16 = 3000;

/// A daemon, as far as it can be known without asking it.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// The ways to it, to be tried in order.
    pub(crate) ways: Vec<Way>,
    /// What every admin path starts with.
    pub(crate) prefix: String,
    /// The instance, where one is meant.
    pub(crate) instance: Option<String>,
    /// What to do when no way works.
    pub(crate) advice: String,
    /// What is wrong with the instance's file, which therefore led to no way.
    pub(crate) broken_file: Option<String>,
}

/// One way to a daemon.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Way {
    /// A unix socket: the peer's uid is its right.
    Socket(PathBuf),
    /// Plain HTTP: the token is its right.
    Tcp { host: String, port: u16, token: Token },
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// There is none.
    None,
    /// Given.
    Value(Secret),
    /// In this file, read when it is needed.
    File(PathBuf),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, .. } => write!(f, "http://{}", authority(host, *port)),
        }
    }
}

/// `host:port` as it stands in a URL.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Token {
    /// The token itself.
    ///
    /// # Errors
    /// Its file cannot be read: the reason, with the file's name and without its content.
    pub(crate) fn read(&self) -> Result<Option<Secret>, (String, ErrorKind)> {
        match self {
            Self::None => Ok(None),
            Self::Value(secret) => Ok(Some(secret.clone())),
            Self::File(path) => match read_limited(path) {
                Ok(text) => Ok(Some(Secret::new(text.trim().to_owned()))),
                Err(error) => {
                    let cause =
                        format!("cannot read the token file {}: {}", path.display(), describe_io(&error));
                    Err((cause, error.kind()))
                }
            },
        }
    }
}
