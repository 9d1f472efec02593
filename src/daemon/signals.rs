//! The signals that a daemon obeys.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::StartError;

/// What a signal asks for.
pub(super) enum Told {
    Reload,
    /// The files that are written to are to be opened anew.
    Reopen,
    Leave,
    /// By the signal of this name.
    End(&'static str),
}

/// The signals. They are caught from the moment at which this is made, by a task of their own: the
/// daemon may be busy when one comes, and what counts is when it came.
pub(super) struct Signals {
    told: mpsc::Receiver<(Told, Instant)>,
    /// When the last signal came that ends the daemon.
    ending_since: Option<Instant>,
}

/// Two signals closer together than this are one: Ctrl-C reaches a whole process group, and the
/// program in it that started the daemon (npm, a script) may pass its own on.
const SAME_WISH: Duration = Duration::from_millis(300);

/// Signals that may wait. What comes beyond them says nothing new.
const WAITING: usize = 16;

impl Signals {
    /// With `foreground` every signal but SIGUSR1 ends the daemon: it has no file to load again,
    /// nobody takes over, and it ends with its terminal.
    pub(super) fn catch(foreground: bool) -> Result<Self, StartError> {
        let catcher = Catcher::new(foreground)?;
        let (tell, told) = mpsc::channel(WAITING);
        tokio::spawn(catcher.run(tell));
        Ok(Self { told, ending_since: None })
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Told {
        let (told, at) = self.any().await;
        if matches!(told, Told::End(_) | Told::Leave) {
            self.ending_since = Some(at);
        }
        told
    }

    /// Waits for the next one that ends the daemon. While the daemon ends already, it means to
    /// hurry. One that comes too soon after the first is the same wish. Cancel safe.
    pub(super) async fn end(&mut self) {
        loop {
            let (Told::End(INTERRUPT | TERMINATE), at) = self.any().await else { continue };
            match self.ending_since {
                None => self.ending_since = Some(at),
                Some(since) if at.saturating_duration_since(since) < SAME_WISH => continue,
                Some(_) => {}
            }
            return;
        }
    }

    async fn any(&mut self) -> (Told, Instant) {
        match self.told.recv().await {
            Some(told) => told,
            // The runtime ends, and with it whoever waits here.
            None => std::future::pending().await,
        }
    }
}

/// The names of the two signals that end any daemon.
const INTERRUPT: &str = "SIGINT";
const TERMINATE: &str = "SIGTERM";

/// Catches the signals, and says when each came. Ends when nobody listens any more.
struct Catcher {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if it stays ignored.
    hangup: Option<Signal>,
    leave: Signal,
    reopen: Signal,
    foreground: bool,
}

impl Catcher {
    fn new(foreground: bool) -> Result<Self, StartError> {
        let catch = |kind, operation| signal(kind).map_err(|source| StartError::Io { operation, source });
        // nohup(1) wants it to stay ignored.
        let hangup = match foreground && is_hangup_ignored() {
            true => None,
            false => Some(catch(SignalKind::hangup(), "wait for SIGHUP")?),
        };
        Ok(Self {
            interrupt: catch(SignalKind::interrupt(), "wait for SIGINT")?,
            terminate: catch(SignalKind::terminate(), "wait for SIGTERM")?,
            hangup,
            leave: catch(SignalKind::user_defined2(), "wait for SIGUSR2")?,
            reopen: catch(SignalKind::user_defined1(), "wait for SIGUSR1")?,
            foreground,
        })
    }

    async fn run(mut self, tell: mpsc::Sender<(Told, Instant)>) {
        loop {
            let told = tokio::select! {
                told = self.next() => told,
                () = tell.closed() => return,
            };
            // Where so many wait already, another one is none the wiser.
            let _full = tell.try_send((told, Instant::now()));
        }
    }

    async fn next(&mut self) -> Told {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hung_up => if self.foreground { Told::End("SIGHUP") } else { Told::Reload },
            _ = self.reopen.recv() => Told::Reopen,
            _ = self.leave.recv() => if self.foreground { Told::End("SIGUSR2") } else { Told::Leave },
            _ = self.interrupt.recv() => Told::End(INTERRUPT),
            _ = self.terminate.recv() => Told::End(TERMINATE),
        }
    }
}

/// Whether this process was started with SIGHUP ignored (proc_pid_status(5)).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (SignalKind::hangup().as_raw_value() - 1)) != 0)
}
