//! What a daemon and its successor say to one another, and what is passed on between them.
//!
//! The successor is started through a shell that waits for it ([`successor`](super::successor)).
//! Its standard input is one end of a socket pair, the control socket. Over it come, with the first
//! line, the descriptors that cannot be opened a second time: the listening sockets with their
//! queues (`listen`, and at the end `listen:NAME` for each further one), the lock of the state, and
//! the daemon's standard error. (The successor's own is a pipe until then, so that the daemon can read
//! its complaints.) After that:
//!
//! ```text
//!   daemon                                successor
//!   portok 1 listen error lock ────────▶  reads its configuration, prepares all that can fail
//!                              ◀────────  ready VERSION
//!   stands still, record written
//!   go                         ────────▶  reads the record, takes the apps over, accepts
//!                              ◀────────  serving PID
//!   tells the service manager
//!   main                       ────────▶  is the daemon
//!   finishes what it has, ends ───end──▶  is alone
//! ```
//!
//! The successor may say `failed REASON` instead of any of its words. An end of the socket before
//! `serving` is a failure too, on whichever side it is seen: the daemon goes on, the successor
//! ends. All waits have deadlines.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Set for a successor: the version of what is said here.
pub(super) const VARIABLE: &str = "PORTOK_HANDOVER";

/// Tells a successor the limit of open files that its apps get: its own was raised before its
/// start.
pub(super) const OPEN_FILES: &str = "PORTOK_OPEN_FILES";

/// The version of what is said here.
pub(super) const VERSION: &str = "1";

/// How long the first line may take: it is sent before the successor runs.
const FIRST_LINE: Duration = Duration::from_secs(10);

/// The longest line.
const LINE: usize = 16 * 1024;

/// The most descriptors: as many as the kernel sends at once (`SCM_MAX_FD`).
const DESCRIPTORS: usize = 253;

/// One end of the socket, once the descriptors have gone over it.
#[derive(Debug)]
pub(super) struct ControlSocket {
    stream: BufReader<tokio::net::UnixStream>,
}

impl ControlSocket {
    /// Must be called within a tokio runtime.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: BufReader::new(tokio::net::UnixStream::from_std(stream)?) })
    }

    /// Says one line.
    pub(super) async fn say(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{}\n", line.replace('\n', " "));
        self.stream.get_mut().write_all(line.as_bytes()).await
    }

    /// The next line. An error of the kind `UnexpectedEof` says that the other side is gone.
    pub(super) async fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let read = (&mut self.stream).take(LINE as u64).read_line(&mut line).await?;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line.trim_end().to_owned()) }
    }

    /// Waits until the other side is gone.
    pub(super) async fn gone(&mut self) {
        while self.hear().await.is_ok() {}
    }
}

/// Sends the first line with the descriptors that it names.
pub(super) fn pass_on(stream: &UnixStream, descriptors: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
    let names: Vec<_> = descriptors.iter().map(|(name, _)| *name).collect();
    let line = format!("portok {VERSION} {}\n", names.join(" "));
    let files: Vec<_> = descriptors.iter().map(|(_, file)| *file).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("too many descriptors to pass on"));
    }
    sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What a successor got.
#[derive(Debug)]
pub(super) struct Heritage {
    pub(super) control: UnixStream,
    /// By the names under which they were passed on: `listen` first.
    pub(super) listeners: Vec<(String, TcpListener)>,
    /// `None` if the daemon has none.
    pub(super) lock: Option<File>,
    /// The daemon's standard error.
    pub(super) error: OwnedFd,
}

impl Heritage {
    /// Takes what was passed to this process, if it is a successor. To be called once, before there
    /// is another thread.
    ///
    /// # Errors
    /// It is a successor and did not get what it needs.
    pub(super) fn take() -> Option<io::Result<Self>> {
        let version = std::env::var(VARIABLE).ok()?;
        Some(Self::receive(&version))
    }

    fn receive(version: &str) -> io::Result<Self> {
        if version != VERSION {
            let why = format!("the running daemon hands over in version {version}, this one takes {VERSION}");
            return Err(io::Error::other(why));
        }
        let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // No child is to hear or say anything there.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Self::read(control)
    }

    /// Reads the first line, and takes the descriptors that it names.
    fn read(control: UnixStream) -> io::Result<Self> {
        control.set_read_timeout(Some(FIRST_LINE))?;
        let mut text = vec![0; LINE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&control, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let line = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
        let mut files = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let mut files = files.by_ref().flatten();
        let (mut listeners, mut lock, mut error) = (Vec::new(), None, None);
        for name in line.split_whitespace().skip(2) {
            let file = files.next().ok_or_else(|| io::Error::other(format!("`{name}` was not passed on")))?;
            match name {
                "lock" => lock = Some(File::from(file)),
                "error" => error = Some(file),
                name if name == "listen" || name.starts_with("listen:") => {
                    listeners.push((name.to_owned(), TcpListener::from(file)));
                }
                // A later daemon's. This one does without it.
                _ => {}
            }
        }
        match error {
            Some(error) if !listeners.is_empty() => Ok(Self { control, listeners, lock, error }),
            _ => Err(io::Error::other("the running daemon did not pass its sockets on")),
        }
    }
}

/// Says a successor's last word: why it does not take over. Blocking; in vain if the daemon is
/// gone.
pub(super) fn fail(mut control: UnixStream, why: &str) {
    let line = format!("failed {}\n", why.replace('\n', " "));
    let _predecessor_gone = control.set_nonblocking(false).and_then(|()| control.write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_arrives_under_its_name_and_what_is_unknown_is_left() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets: Vec<_> = (0..40).map(|_| bind()).collect();
        let names: Vec<_> = (1..sockets.len()).map(|number| format!("listen:l{number}")).collect();
        let names: Vec<_> = ["listen"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let error = io::stderr();
        let mut sent: Vec<_> = names.iter().copied().zip(sockets.iter().map(AsFd::as_fd)).collect();
        sent.extend([("error", error.as_fd()), ("later", error.as_fd())]);
        pass_on(&ours, &sent).unwrap();
        let heritage = Heritage::read(theirs).unwrap();
        let addr = |socket: &TcpListener| socket.local_addr().unwrap();
        let arrived: Vec<_> =
            heritage.listeners.iter().map(|(name, socket)| (name.as_str(), addr(socket))).collect();
        let expected: Vec<_> = names.iter().copied().zip(sockets.iter().map(addr)).collect();
        assert_eq!(arrived, expected);
        assert!(heritage.lock.is_none());
    }

    #[test]
    fn a_daemon_that_passes_no_socket_is_not_taken_over_from() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        pass_on(&ours, &[("error", io::stderr().as_fd())]).unwrap();
        assert!(Heritage::read(theirs).is_err());
    }
}
