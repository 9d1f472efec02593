//! Real processes. What `/bin/sh` cannot do is done by this test binary itself ([`fixture`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::hunt::Hunt;
use super::{Common, Launch, Port, Process, Settings, Sink, SpawnError, Supervisor, identity, proc};
use crate::config::{CommandLine, StopSignal};

mod adopting;
mod apps;
mod leftovers;
mod ownership;
mod printing;
mod spawning;
mod stopping;

const DEADLINE: Duration = Duration::from_secs(30);
const TERM: StopSignal = StopSignal { number: Signal::SIGTERM as i32, name: "SIGTERM" };
const INT: StopSignal = StopSignal { number: Signal::SIGINT as i32, name: "SIGINT" };

/// A supervisor with a folder of its own; what its tests leave running is killed with it.
struct Bench {
    folder: TempDir,
    supervisor: Supervisor,
    tags: Mutex<Vec<String>>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        change(&mut settings);
        let common = Arc::new(Common::start(settings).unwrap());
        let supervisor = Supervisor::for_app(&common, crate::supervisor::new_mark().unwrap(), None).unwrap();
        Self { supervisor, folder, tags: Mutex::default() }
    }

    /// The bench of another app of the same daemon.
    fn beside(&self) -> Self {
        let supervisor =
            Supervisor::for_app(&self.supervisor.common, crate::supervisor::new_mark().unwrap(), None)
                .unwrap();
        Self { supervisor, folder: tempfile::tempdir().unwrap(), tags: Mutex::default() }
    }

    /// Another daemon in this bench's folder, with the app's mark: what comes after this one.
    fn next_daemon(&self) -> Supervisor {
        let common = Arc::new(Common::start(settings(self.path())).unwrap());
        Supervisor::for_app(&common, self.supervisor.mark.clone(), None).unwrap()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn launch(&self, command: CommandLine) -> Launch {
        Launch {
            release: "r1".into(),
            process: None,
            step: None,
            replica: Some(0),
            command,
            directory: Some(self.path().to_owned()),
            env: BTreeMap::new(),
            identity: None,
            limits: crate::config::Limits::default(),
            port_env: "PORT".into(),
            port: Port::Own(self.supervisor.lease(true).unwrap()),
        }
    }

    async fn start(&self, launch: Launch) -> Result<Process, SpawnError> {
        let process = within("a spawn", self.supervisor.spawn(launch)).await?;
        self.tags.lock().unwrap().push(process.identity().tag.clone());
        Ok(process)
    }

    /// Runs a shell text.
    async fn sh(&self, text: &str) -> Process {
        self.start(self.launch(CommandLine::Shell(text.into()))).await.unwrap()
    }

    /// Runs this binary as [`fixture`].
    async fn fixture(&self, mode: &str) -> Process {
        let mut launch = self.launch(CommandLine::Exec(fixture_words()));
        launch.env.insert(MODE.into(), mode.into());
        self.start(launch).await.unwrap()
    }
}

fn settings(folder: &Path) -> Settings {
    Settings {
        instance: "web".into(),
        run_dir: folder.join("run"),
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        keeper: false,
        sink: Sink::None,
        open_files: None,
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for tag in self.tags.lock().unwrap().drain(..) {
            Hunt::for_tag(&tag).round(Signal::SIGKILL as i32, true);
        }
    }
}

const MODE: &str = "FIXTURE";

fn fixture_words() -> Vec<String> {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let words = ["--exact", "supervisor::tests::fixture", "--ignored", "--nocapture", "--test-threads=1"];
    [exe].into_iter().chain(words.map(str::to_owned)).collect()
}

/// What other tests start as a process: a listener, until it is killed.
#[test]
#[ignore = "not a test: started by others"]
fn fixture() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let port = std::env::var("PORT").unwrap().parse().unwrap();
    let addr = match mode.as_str() {
        "listen" => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        "wildcard" => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        "elsewhere" => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        "shared" => {
            let shared = listen_shared(port);
            println!("\nlistening");
            shared.incoming().for_each(drop);
            return;
        }
        other => panic!("no mode {other}"),
    };
    let listener = TcpListener::bind(addr).unwrap();
    println!("\nlistening on {}", listener.local_addr().unwrap());
    listener.incoming().for_each(drop);
}

/// A listener that shares its port with others.
fn listen_shared(port: u16) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

/// A tag that a daemon with this mark gave.
fn new_tag(mark: &str) -> String {
    identity::new_tag(&identity::new_series(mark).unwrap()).unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} took longer than {DEADLINE:?}"))
}

/// Waits until the condition gives something.
async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {DEADLINE:?}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn texts(process: &Process) -> Vec<String> {
    process.output(usize::MAX).into_iter().map(|line| line.line).collect()
}

/// Waits for a line that begins so, and gives what follows.
async fn said(process: &Process, beginning: &str) -> String {
    let found = || texts(process).iter().find_map(|line| line.strip_prefix(beginning).map(str::to_owned));
    until(&format!("line `{beginning}` in {:?}", texts(process)), found).await
}

fn lives(pid: u32) -> bool {
    proc::stat(pid).is_some_and(|stat| stat.lives())
}
