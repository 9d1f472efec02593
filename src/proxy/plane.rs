//! The running data plane: its threads, and the commands they get.
//!
//! State: one command channel and one join handle per thread. A thread ends when it is told to
//! stop, or when the [`Plane`] is dropped, and everything it holds ends with it. If a future of
//! [`Plane::listen`], [`Plane::leave`] or [`Plane::drain`] is dropped half-way, the threads still
//! carry out what they were told.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;

use super::Reserved;
use super::address::ListenerId;
use super::bells::Doorbells;
use super::board::Board;
use super::counters::Counters;
use super::listener::{self, Acceptor};
use super::worker::{Until, Worker, WorkerParts};
use crate::access::Recorder;
use crate::config::Config;

/// Commands that may wait for a thread.
const COMMANDS: usize = 16;

/// The running data plane.
#[derive(Debug)]
pub struct Plane {
    threads: Vec<Thread>,
    board: Arc<Board>,
}

/// A data plane that has all threads and descriptors that it needs, and accepts nothing yet: what
/// takes descriptors meanwhile does not keep it from serving. Dropped, its threads end.
#[derive(Debug)]
pub struct Prepared {
    plane: Plane,
    doors: Vec<Door>,
}

/// Lets a thread accept.
#[derive(Debug)]
struct Door {
    open: oneshot::Sender<()>,
    /// Whether it does.
    opened: std::sync::mpsc::Receiver<io::Result<()>>,
}

#[derive(Debug)]
struct Thread {
    commands: mpsc::Sender<Command>,
    handle: JoinHandle<()>,
}

/// What a thread is told. It answers when it is done.
#[derive(Debug)]
enum Command {
    /// Accept from this listener too.
    Listen(ListenerId, TcpListener, oneshot::Sender<io::Result<()>>),
    /// Stop accepting from the listener.
    Leave(ListenerId, oneshot::Sender<()>),
    Drain(Until, oneshot::Sender<()>),
    /// Answer, which proves that commands are carried out.
    Beat(oneshot::Sender<()>),
    Stop,
}

/// Asks the threads whether they turn; does not keep them.
#[derive(Debug, Clone)]
pub struct Pulse {
    threads: Vec<mpsc::WeakSender<Command>>,
}

impl Pulse {
    /// Waits until every thread has carried out a command given now, or has ended in order. Cancel
    /// safe; the caller has the deadline.
    pub async fn beat(&self) {
        let mut waits = Vec::with_capacity(self.threads.len());
        for thread in &self.threads {
            let Some(commands) = thread.upgrade() else { continue };
            let (done, wait) = oneshot::channel();
            if commands.send(Command::Beat(done)).await.is_ok() {
                waits.push(wait);
            }
        }
        for wait in waits {
            let _ended_meanwhile = wait.await;
        }
    }
}

impl Plane {
    /// Starts `proxy.threads` threads that will accept from `listeners`, which are bound and
    /// listen. From now on the plane is the one that writes the board's configuration.
    ///
    /// # Errors
    /// A listener cannot be shared among threads, or a thread cannot be started.
    pub fn prepare(
        listeners: Vec<(ListenerId, TcpListener)>,
        board: Arc<Board>,
        counters: Arc<Counters>,
        reserved: Arc<dyn Reserved>,
    ) -> io::Result<Prepared> {
        let config = board.config();
        let count = config.proxy.threads;
        if count == 0 || count > counters.threads() {
            let why = format!("{count} data-plane threads do not fit counters for {}", counters.threads());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        for (_, listener) in &listeners {
            listener::prepare(listener, config.app.limits.send_timeout)?;
        }
        let bells = Arc::new(Doorbells((0..count).map(|_| Notify::new()).collect()));
        board.hang(bells.clone());
        let (mut threads, mut doors) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for lane in 0..count {
            let (board, counters, reserved) = (board.clone(), counters.clone(), reserved.clone());
            let parts = WorkerParts { lane, board, counters, reserved, bells: bells.clone() };
            let (thread, door) = Thread::start(parts, shared(&listeners)?)?;
            threads.push(thread);
            doors.push(door);
        }
        Ok(Prepared { plane: Self { threads, board }, doors })
    }

    /// Has requests recorded for the access log, from the next configuration on.
    pub fn record(&mut self, recorder: Option<Arc<Recorder>>) {
        self.board.record(recorder);
    }

    /// Puts `config` in force: every request that begins from now on finds it. The number of
    /// threads stays.
    pub fn configure(&mut self, config: Arc<Config>) {
        self.board.configure(config);
    }

    /// Accepts from one more listener, on every thread.
    ///
    /// # Errors
    /// The listener cannot be shared among threads. Nothing has changed then.
    pub async fn listen(&self, id: ListenerId, listener: TcpListener) -> io::Result<()> {
        listener::prepare(&listener, self.board.config().app.limits.send_timeout)?;
        let listeners: Vec<_> =
            self.threads.iter().map(|_| listener.try_clone()).collect::<io::Result<_>>()?;
        drop(listener);
        for (index, listener) in listeners.into_iter().enumerate() {
            let listening = self.threads[index].tell(|done| Command::Listen(id, listener, done)).await;
            if let Err(error) = listening.unwrap_or_else(|| Err(ended())) {
                tell_all(&self.threads[..index], |done| Command::Leave(id, done)).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stops accepting from a listener, after what is in its queue. Open connections stay.
    pub async fn leave(&self, id: ListenerId) {
        tell_all(&self.threads, |done| Command::Leave(id, done)).await;
    }

    /// Stops accepting, after what is in the queue. Closes client connections, idle ones at once,
    /// others after their current answer (`Connection: close`). Returns once no more is left than
    /// `until` says.
    pub async fn drain(&self, until: Until) {
        tell_all(&self.threads, |done| Command::Drain(until, done)).await;
    }

    /// A pulse: asks whether the threads turn.
    pub fn pulse(&self) -> Pulse {
        Pulse { threads: self.threads.iter().map(|thread| thread.commands.downgrade()).collect() }
    }

    /// Cuts what is left, ends the threads and joins them.
    pub async fn shut_down(self) {
        for thread in &self.threads {
            // If nobody receives it, the thread has ended already.
            let _ = thread.commands.send(Command::Stop).await;
        }
        let Self { threads, board } = self;
        let join = move || threads.into_iter().all(|thread| thread.handle.join().is_ok());
        if !tokio::task::spawn_blocking(join).await.unwrap_or(false) {
            tracing::error!("a data-plane thread ended with a panic");
        }
        board.record(None);
    }
}

impl Prepared {
    /// Accepts from now on.
    ///
    /// # Errors
    /// A thread cannot accept from a listener.
    pub fn begin(self) -> io::Result<Plane> {
        let Self { plane, doors } = self;
        for Door { open, opened } in doors {
            // What has ended answers nothing.
            let _ended = open.send(());
            opened.recv().unwrap_or_else(|_| Err(ended()))?;
        }
        Ok(plane)
    }
}

/// Gives `threads` a command each and waits until all are done.
async fn tell_all(threads: &[Thread], command: impl Fn(oneshot::Sender<()>) -> Command) {
    let mut waits = Vec::with_capacity(threads.len());
    for thread in threads {
        let (done, wait) = oneshot::channel();
        if thread.commands.send(command(done)).await.is_ok() {
            waits.push(wait);
        }
    }
    for wait in waits {
        // A thread that has ended meanwhile has nothing open either.
        let _ = wait.await;
    }
}

impl Thread {
    fn start(parts: WorkerParts, listeners: Vec<(ListenerId, TcpListener)>) -> io::Result<(Self, Door)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (commands, told) = mpsc::channel(COMMANDS);
        let (open, opens) = oneshot::channel();
        let (ready, opened) = std::sync::mpsc::sync_channel(1);
        let name = format!("portok-proxy-{}", parts.lane);
        let handle = std::thread::Builder::new()
            .name(name)
            .spawn(move || run(&runtime, parts, listeners, (opens, told), &ready))?;
        Ok((Self { commands, handle }, Door { open, opened }))
    }

    async fn tell<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (done, wait) = oneshot::channel();
        self.commands.send(command(done)).await.ok()?;
        wait.await.ok()
    }
}

fn ended() -> io::Error {
    io::Error::other("a data-plane thread has ended")
}

/// The life of one thread.
fn run(
    runtime: &Runtime,
    parts: WorkerParts,
    listeners: Vec<(ListenerId, TcpListener)>,
    (opens, told): (oneshot::Receiver<()>, mpsc::Receiver<Command>),
    ready: &std::sync::mpsc::SyncSender<io::Result<()>>,
) {
    let tasks = LocalSet::new();
    tasks.block_on(runtime, async {
        let worker = Worker::start(parts);
        if opens.await.is_err() {
            return;
        }
        let start = |(id, listener)| Acceptor::start(worker.clone(), id, listener);
        let acceptors: io::Result<Vec<_>> = listeners.into_iter().map(start).collect();
        let (acceptors, started) = match acceptors {
            Ok(acceptors) => (Some(acceptors), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // `Prepared::begin` waits for this.
        let _ = ready.send(started);
        if let Some(acceptors) = acceptors {
            obey(worker, acceptors, told).await;
        }
    });
}

/// Carries out commands until told to stop.
async fn obey(worker: std::rc::Rc<Worker>, mut acceptors: Vec<Acceptor>, mut told: mpsc::Receiver<Command>) {
    while let Some(command) = told.recv().await {
        match command {
            Command::Listen(id, listener, done) => {
                let started = Acceptor::start(worker.clone(), id, listener);
                let started = started.map(|acceptor| acceptors.push(acceptor));
                // If nobody waits any more, it listens all the same.
                let _ = done.send(started);
            }
            Command::Leave(id, done) => {
                stop(acceptors.extract_if(.., |acceptor| acceptor.id() == id).collect()).await;
                let _ = done.send(());
            }
            Command::Drain(until, done) => {
                worker.drain();
                stop(std::mem::take(&mut acceptors)).await;
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    worker.drained(until).await;
                    let _ = done.send(());
                });
            }
            Command::Beat(done) => {
                let _nobody_waits = done.send(());
            }
            Command::Stop => return,
        }
    }
}

async fn stop(acceptors: Vec<Acceptor>) {
    for acceptor in acceptors {
        acceptor.stop().await;
    }
}

/// One thread's duplicates.
fn shared(listeners: &[(ListenerId, TcpListener)]) -> io::Result<Vec<(ListenerId, TcpListener)>> {
    listeners.iter().map(|(id, listener)| Ok((*id, listener.try_clone()?))).collect()
}
