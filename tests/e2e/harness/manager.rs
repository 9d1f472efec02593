//! A service manager as the daemon sees it: a socket that receives its messages, and a store that
//! keeps its sockets.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::World;
use super::wait::wait_until;

/// The message that ends its thread.
const QUIT: &[u8] = b"QUIT";

/// A running service manager of one test.
#[derive(Debug)]
pub(crate) struct Manager {
    path: PathBuf,
    variables: BTreeMap<String, String>,
    heard: Arc<Mutex<Heard>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    /// All messages, each a set of lines.
    messages: Vec<String>,
    /// The descriptor store.
    kept: Vec<(String, OwnedFd)>,
}

impl Manager {
    pub(crate) fn new(world: &World) -> Self {
        let path = world.path("notify");
        let socket = UnixDatagram::bind(&path).expect("the test's folder takes sockets");
        let heard = Arc::new(Mutex::new(Heard::default()));
        let thread = std::thread::spawn({
            let heard = Arc::clone(&heard);
            move || hear(&socket, &heard)
        });
        Self { path, variables: BTreeMap::new(), heard, thread: Some(thread) }
    }

    /// Adds a variable to the environment of its daemons.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The variables that it adds to the environment of a daemon.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.variables.clone();
        env.insert("NOTIFY_SOCKET".to_owned(), self.path.display().to_string());
        env
    }

    /// All messages so far.
    pub(crate) fn messages(&self) -> Vec<String> {
        lock(&self.heard).messages.clone()
    }

    /// How many received lines begin with `beginning`.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        let messages = self.messages();
        messages.iter().flat_map(|message| message.lines()).filter(|line| line.starts_with(beginning)).count()
    }

    /// Waits until it has received `number` lines that begin with `beginning`.
    #[track_caller]
    pub(crate) fn wait_for(&self, number: usize, beginning: &str) {
        let what = format!("the service manager hears {beginning:?} {number} times");
        wait_until(
            &what,
            || format!("{:#?}", self.messages()),
            || (self.count(beginning) >= number).then_some(()),
        );
    }

    /// The last status line.
    pub(crate) fn status(&self) -> String {
        let messages = self.messages();
        let mut lines = messages.iter().rev().filter_map(|message| message.strip_prefix("STATUS="));
        lines.next().unwrap_or_default().to_owned()
    }

    /// Waits until `check` holds for the status line.
    #[track_caller]
    pub(crate) fn wait_for_status(&self, what: &str, check: impl Fn(&str) -> bool) -> String {
        wait_until(
            what,
            || format!("{:#?}", self.messages()),
            || Some(self.status()).filter(|line| check(line)),
        )
    }

    /// A duplicate of the public socket that it keeps.
    pub(crate) fn kept_socket(&self) -> Option<OwnedFd> {
        let heard = lock(&self.heard);
        let (_, socket) = heard.kept.iter().find(|(name, _)| name == "listen")?;
        Some(socket.try_clone().expect("a descriptor can be doubled"))
    }

    /// Waits until it keeps the public socket, at this address.
    #[track_caller]
    pub(crate) fn wait_for_socket(&self, addr: std::net::SocketAddr) {
        wait_until(
            &format!("the service manager keeps a socket at {addr}"),
            || format!("{self:#?}"),
            || {
                let socket = std::net::TcpListener::from(self.kept_socket()?);
                (socket.local_addr().ok() == Some(addr)).then_some(())
            },
        );
    }

    /// Waits until it keeps these sockets and no others.
    #[track_caller]
    pub(crate) fn wait_for_kept(&self, expected: &[(String, std::net::SocketAddr)]) {
        let kept = || {
            let heard = lock(&self.heard);
            let addr = |socket: &OwnedFd| {
                let socket = socket.try_clone().expect("a descriptor can be doubled");
                std::net::TcpListener::from(socket).local_addr().expect("it is a listening socket")
            };
            heard.kept.iter().map(|(name, socket)| (name.clone(), addr(socket))).collect::<Vec<_>>()
        };
        let explain = || format!("{:?} instead of {expected:?}", kept());
        let is_kept = |(name, addr): &(String, _)| kept().contains(&(name.clone(), *addr));
        wait_until("the service manager keeps the sockets", explain, || {
            let all = expected.iter().all(is_kept) && kept().iter().all(|kept| expected.contains(kept));
            all.then_some(())
        });
    }

    /// Keeps `socket` as if a daemon had given it.
    pub(crate) fn keep(&self, socket: impl Into<OwnedFd>) {
        lock(&self.heard).kept.push(("listen".to_owned(), socket.into()));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(QUIT, &self.path));
        if told.is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic of the thread has shown already: its messages are missing.
            let _ = thread.join();
        }
    }
}

fn hear(socket: &UnixDatagram, heard: &Mutex<Heard>) {
    loop {
        let (mut text, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let Ok(received) = received else { return };
        let text = &text[..received.bytes];
        if text == QUIT {
            return;
        }
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                sockets.extend(rights);
            }
        }
        let text = String::from_utf8_lossy(text).trim_end().to_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
        let mut heard = lock(heard);
        for line in text.lines() {
            match line {
                "FDSTORE=1" => heard.kept.extend(sockets.drain(..).map(|socket| (name.clone(), socket))),
                "FDSTOREREMOVE=1" => heard.kept.retain(|(kept, _)| *kept != name),
                _ => {}
            }
        }
        heard.messages.push(text);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
