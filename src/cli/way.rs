//! The ways to a daemon: sockets and addresses, and the token for an address.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::config::Secret;
use crate::host::files::read_limited;
use crate::plain::describe_io;

/// The port of a daemon whose configuration names none.
pub(crate) const DEFAULT_PORT: u16 = 3000;

/// A daemon, as far as it is known before it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// The ways to it, in the order in which they are tried.
    pub(crate) ways: Vec<Way>,
    /// The prefix of every admin path.
    pub(crate) prefix: String,
    /// The instance, if one was named.
    pub(crate) instance: Option<String>,
    /// What to do if no way works.
    pub(crate) advice: String,
    /// What is wrong with the instance's file, which was therefore ignored.
    pub(crate) broken_file: Option<String>,
}

/// One way to a daemon.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Way {
    /// A unix socket. The caller's uid grants access.
    Socket(PathBuf),
    /// Plain HTTP. The token grants access.
    Tcp { host: String, port: u16, token: Token },
}

/// The source of a token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// There is no token.
    None,
    /// The token itself.
    Value(Secret),
    /// A file, read when the token is needed.
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

/// `host:port` as in a URL.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Token {
    /// The token itself.
    ///
    /// # Errors
    /// The file cannot be read. The reason names the file and nothing of its content.
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
