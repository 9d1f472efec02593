//! A test's world (its folder and its instance name) and the daemon in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use portok::wire::{AppRow, ReleaseRow, Status};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::app::App;
use super::command::{PORTOK, PORTOKD, Running, Said};
use super::conf::{Conf, write_private};
use super::http::{Answer, Conn};
use super::manager::Manager;
use super::procs::{self, Tagged};
use super::wait::wait_until;

/// The admin token of every daemon of the suite.
pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

/// A folder and an instance name that no other test has. When it is dropped, no process of the
/// instance may be left.
#[derive(Debug)]
pub(crate) struct World {
    /// `None` once the folder is to be kept.
    folder: Option<TempDir>,
    name: String,
    commands: AtomicUsize,
    /// Variables of its processes beside those that all have.
    more: BTreeMap<String, String>,
}

impl World {
    /// Under `/tmp`, because the path of a unix socket has at most 107 bytes.
    pub(crate) fn new() -> Self {
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        static BUILD_IS_ON_DISK: Once = Once::new();
        // What the build has written goes to the disk first: else the first records wait behind it,
        // on a slow disk for longer than a daemon waits.
        BUILD_IS_ON_DISK.call_once(nix::unistd::sync);
        let folder = tempfile::Builder::new().prefix("pk-").tempdir_in("/tmp").expect("/tmp takes folders");
        let name = format!("e2e-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        for inner in ["run", "conf", "state"] {
            let inner = folder.path().join(inner);
            fs::create_dir(&inner).expect("the folder is empty");
            fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).expect("the folder is ours");
        }
        Self { folder: Some(folder), name, commands: AtomicUsize::new(0), more: BTreeMap::new() }
    }

    /// One whose daemons look at the load every 100 ms.
    pub(crate) fn looking_often() -> Self {
        let looks = ("PORTOK_LOAD_LOOKS_MS".to_owned(), "100".to_owned());
        let mut world = Self::new();
        world.more.extend([looks]);
        world
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, inner: &str) -> PathBuf {
        self.folder.as_ref().expect("only taken out at the end").path().join(inner)
    }

    /// Makes a file for which an app waits.
    pub(crate) fn touch(&self, inner: &str) {
        self.write(inner, "");
    }

    /// Writes a file atomically.
    pub(crate) fn write(&self, inner: &str, text: &str) {
        let new = self.path(&format!("{inner}.new"));
        write_private(&new, text);
        fs::rename(new, self.path(inner)).expect("renaming within the test's folder");
    }

    /// A well-behaved app of that version. The version is also the release's id.
    pub(crate) fn app(&self, version: &str) -> App {
        App::new(&self.path(""), version)
    }

    /// The socket that [`conf`](Self::conf) and [`npm_env`](Self::npm_env) configure.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("s")
    }

    /// The state file that [`conf`](Self::conf) and [`npm_env`](Self::npm_env) configure.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.path("state/state.json")
    }

    /// The base of all configurations: port 0, all files in the test's folder, short waits, drains
    /// that end early. It has no `[app]`. A client's connection stays open for as long as a test
    /// may take on a busy machine between two requests.
    pub(crate) fn conf(&self) -> Conf {
        Conf::new(self.path(&format!("conf/{}.toml", self.name)))
            .set("name", self.name.as_str())
            .set("listen", "127.0.0.1:0")
            .set("state_file", self.state_file().display().to_string())
            .set("app.stop_timeout", "10s")
            .set("drain.period", "10s")
            .set("drain.early", true)
            .set("proxy.idle_timeout", "60s")
            .set("proxy.header_timeout", "61s")
            .set("admin.socket", self.socket().display().to_string())
            .set("admin.token", TOKEN)
            .set("admin.rate_limit", 10_000)
    }

    /// A configuration by npm portok's environment variables, without its app.
    pub(crate) fn npm_env(&self) -> BTreeMap<String, String> {
        let mut env = self.env();
        for (key, value) in [
            ("INSTANCE_NAME", self.name.clone()),
            ("LISTEN_PORT", "127.0.0.1:0".to_owned()),
            ("STATE_FILE", self.state_file().display().to_string()),
            ("ADMIN_UNIX_SOCKET", self.socket().display().to_string()),
            ("ADMIN_TOKEN", TOKEN.to_owned()),
            ("DRAIN_MS", "10000".to_owned()),
        ] {
            env.insert(key.to_owned(), value);
        }
        env
    }

    /// The environment of every process of the test.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), self.path("").display().to_string()),
            ("XDG_RUNTIME_DIR".to_owned(), self.path("run").display().to_string()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ]);
        env.extend(self.more.clone());
        env
    }

    fn next_stem(&self, what: &str) -> PathBuf {
        self.path(&format!("{what}-{}", self.commands.fetch_add(1, Ordering::Relaxed)))
    }

    /// Starts a command that ends with the test.
    #[track_caller]
    pub(crate) fn spawn(&self, program: &str, words: &[&str], env: &BTreeMap<String, String>) -> Running {
        let stem =
            self.next_stem(Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or("cmd"));
        Running::start(program, words, env, &stem)
    }

    /// Saves `conf`, and starts the daemon with it and that standard error.
    #[track_caller]
    pub(crate) fn start_into(&self, conf: &Conf, stderr: impl Into<Stdio>) -> Daemon<'_> {
        conf.save();
        let file = conf.file().display().to_string();
        let (words, stem) = (["--config", &file], self.next_stem("portokd"));
        Daemon::attach(self, Running::start_into(PORTOKD, &words, &self.env(), &stem, stderr.into()))
    }

    /// Saves `conf`, and starts the daemon under a service manager, which passes the socket that it
    /// keeps.
    #[track_caller]
    pub(crate) fn start_managed(&self, conf: &Conf, manager: &Manager) -> Daemon<'_> {
        conf.save();
        Daemon::attach(self, self.spawn_managed(conf, manager))
    }

    /// The same without waiting until it answers.
    #[track_caller]
    pub(crate) fn spawn_managed(&self, conf: &Conf, manager: &Manager) -> Running {
        let file = conf.file().display().to_string();
        let mut env = self.env();
        env.extend(manager.env());
        let stem = self.next_stem("portokd");
        let stderr = super::command::create(&stem.with_extension("err")).into();
        let Some(socket) = manager.kept_socket() else {
            return Running::start_into(PORTOKD, &["--config", &file], &env, &stem, stderr);
        };
        // `LISTEN_PID` must name the process that becomes the daemon.
        let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=listen exec \"$@\"";
        let words = ["-c", script, "sh", PORTOKD, "--config", &file];
        Running::start_over("/bin/sh", &words, &env, &stem, socket.into(), stderr)
    }

    /// Runs `portokd` until it ends by itself.
    #[track_caller]
    pub(crate) fn portokd(&self, words: &[&str], env: &BTreeMap<String, String>) -> Said {
        self.spawn(PORTOKD, words, env).wait()
    }

    /// Runs `portok` until it ends.
    #[track_caller]
    pub(crate) fn portok(&self, words: &[&str], env: &BTreeMap<String, String>) -> Said {
        self.spawn(PORTOK, words, env).wait()
    }

    /// Saves `conf`, and starts the daemon with it.
    #[track_caller]
    pub(crate) fn start(&self, conf: &Conf) -> Daemon<'_> {
        conf.save();
        self.start_saved(conf)
    }

    /// Starts the daemon with the file as it was last saved.
    #[track_caller]
    pub(crate) fn start_saved(&self, conf: &Conf) -> Daemon<'_> {
        let file = conf.file().display().to_string();
        self.start_with(&["--config", &file], &self.env())
    }

    /// Starts a daemon with exactly these words and variables. Its socket must be
    /// [`socket`](Self::socket).
    #[track_caller]
    pub(crate) fn start_with(&self, words: &[&str], env: &BTreeMap<String, String>) -> Daemon<'_> {
        Daemon::attach(self, self.spawn(PORTOKD, words, env))
    }

    /// The processes of this instance.
    pub(crate) fn processes(&self) -> Vec<Tagged> {
        procs::of_instance(&self.name)
    }

    /// The companions of this instance that run, each with its release.
    pub(crate) fn companions(&self) -> Vec<(String, String)> {
        let of =
            |pid| Some((procs::variable(pid, "PORTOK_PROCESS")?, procs::variable(pid, "PORTOK_RELEASE")?));
        self.processes().iter().filter_map(|process| of(process.pid)).collect()
    }

    /// Waits until no process of this instance is left, except the daemon itself.
    #[track_caller]
    pub(crate) fn wait_for_none_left(&self) {
        let explain = || format!("{:#?}", self.processes());
        wait_until("no process of the instance is left", explain, || {
            self.processes().is_empty().then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left = self.processes();
        left.iter().for_each(|process| procs::send(process.pid, Signal::SIGKILL));
        // Daemons of root keep the apps' pipes there, whatever the environment says.
        let _ = fs::remove_dir_all(Path::new("/run/portok").join(&self.name));
        let failed = std::thread::panicking();
        if (failed || !left.is_empty())
            && let Some(folder) = self.folder.take()
        {
            eprintln!("kept {}", folder.keep().display());
        }
        assert!(failed || left.is_empty(), "processes were left: {left:#?}");
    }
}

/// A running `portokd`. Dropping it ends it with SIGTERM, and asserts that it ended well and left
/// nothing.
#[derive(Debug)]
pub(crate) struct Daemon<'w> {
    pub(crate) world: &'w World,
    running: Running,
    /// Whether the test has waited for its end already.
    ended: bool,
    /// The process that took over from it.
    heir: Option<u32>,
    /// The address on which it accepts requests, as its log says.
    pub(crate) addr: SocketAddr,
}

impl<'w> Daemon<'w> {
    /// Waits until the daemon answers on its socket.
    #[track_caller]
    pub(crate) fn attach(world: &'w World, running: Running) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon = Self { world, running, ended: false, heir: None, addr };
        let said = world.socket();
        daemon.addr = wait_until(
            "the daemon answers on its socket",
            || format!("socket {}", said.display()),
            || {
                if let Some(code) = daemon.running.code() {
                    daemon.ended = true;
                    panic!("portokd ended with {code}:\n{}", daemon.log());
                }
                let ask = |path: &str| {
                    let asked = Conn::unix(&said).and_then(|mut conn| conn.request("GET", path, &[], None));
                    asked.ok().map(|answer| answer.body)
                };
                let mut answer = ask("/__status")?;
                if String::from_utf8_lossy(&answer).contains("app_required") {
                    let apps: Vec<AppRow> = serde_json::from_slice(&ask("/__apps")?).ok()?;
                    // Rather one that is not at addresses of its own alone.
                    let is_shared = |app: &&AppRow| app.listen.is_empty() || !app.hosts.is_empty();
                    let app = apps.iter().find(is_shared).or(apps.first())?;
                    answer = ask(&format!("/__status?app={}", app.app))?;
                }
                let status: Status = serde_json::from_slice(&answer).ok()?;
                status.listen.split(", ").next()?.parse().ok()
            },
        );
        daemon
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it wrote to standard error, its log.
    pub(crate) fn log(&self) -> String {
        self.running.said().1
    }

    /// The last lines of the log, shortened, for the message of a failed test.
    fn last_log(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(150)..];
        last.iter().flat_map(|line| line.chars().take(300).chain(['\n'])).collect()
    }

    /// What it wrote to standard output.
    pub(crate) fn output(&self) -> String {
        self.running.said().0
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits for its end, whatever the cause.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Said {
        self.ended = true;
        self.running.wait()
    }

    /// Upgrades it with `portok upgrade`, and returns the new daemon's process id.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) -> u32 {
        let said = self.portok(&["--json", "upgrade"]).ended(0);
        self.has_handed_over(&said)
    }

    /// Adopts the process that took over, according to `portok --json upgrade`.
    #[track_caller]
    pub(crate) fn has_handed_over(&mut self, said: &Said) -> u32 {
        let said = said.json();
        let pid = said["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        self.heir = pid;
        pid.unwrap_or_else(|| panic!("no pid in {said:#}"))
    }

    /// Waits until the process that took over has ended, and forgets it.
    #[track_caller]
    pub(crate) fn wait_for_heir(&mut self) {
        let Some(heir) = self.heir.take() else { return };
        let explain = || format!("{heir}\n{}", self.last_log());
        wait_until("the successor ends", explain, || (!procs::is_alive(heir)).then_some(()));
    }

    /// Sends SIGTERM, and asserts that it ends well.
    #[track_caller]
    pub(crate) fn terminate(mut self) {
        if let Some(heir) = self.heir {
            procs::send(heir, Signal::SIGTERM);
            self.wait_for_heir();
            self.world.wait_for_none_left();
            self.wait().ended(0);
            return;
        }
        self.signal(Signal::SIGTERM);
        self.wait().ended(0);
        self.world.wait_for_none_left();
    }

    /// Sends SIGKILL. What it started stays.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// A new connection to the public port.
    #[track_caller]
    pub(crate) fn connect(&self) -> Conn {
        Conn::tcp(self.addr)
            .unwrap_or_else(|error| panic!("connecting to {}: {error}\n{}", self.addr, self.last_log()))
    }

    /// A GET to the app over a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    /// A request to the public port over a connection of its own.
    #[track_caller]
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let answer = self.connect().request(method, path, headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.last_log()))
    }

    /// An admin request over TCP with the right token.
    #[track_caller]
    pub(crate) fn send_admin(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, &[("x-admin-token", TOKEN)], None)
    }

    /// An admin request over the socket.
    #[track_caller]
    pub(crate) fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(|body| body.to_string().into_bytes());
        let headers = [("content-type", "application/json")];
        let headers = if body.is_some() { &headers[..] } else { &[] };
        Conn::unix(&self.world.socket())
            .and_then(|mut conn| conn.request(method, path, headers, body.as_deref()))
            .unwrap_or_else(|error| panic!("{method} {path} on the socket: {error}\n{}", self.last_log()))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        let value = self.admin("GET", "/__status", None).expect(200).json();
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error} in {value:#}"))
    }

    /// Waits until `check` holds for the status, and returns it.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, check: impl Fn(&Status) -> bool) -> Status {
        let explain = || format!("last status: {:#?}\nlog:\n{}", self.status(), self.last_log());
        wait_until(what, explain, || Some(self.status()).filter(|status| check(status)))
    }

    /// Waits until that release is live.
    #[track_caller]
    pub(crate) fn wait_until_live(&self, release: &str) -> Status {
        self.wait_until(&format!("{release} is live"), |status| live(status) == Some(release))
    }

    /// Waits until the public port answers with that version.
    #[track_caller]
    pub(crate) fn wait_until_serves(&self, version: &str) -> Status {
        let explain = || format!("last status: {:#?}\nlog:\n{}", self.status(), self.last_log());
        let serves = || (self.get("/").version() == version).then_some(());
        wait_until(&format!("{version} answers"), explain, serves);
        self.status()
    }

    /// Waits until the last switch is on disk, and returns the status. From here on it survives the
    /// daemon; before, a daemon that is killed may come back to where it was.
    #[track_caller]
    pub(crate) fn wait_until_recorded(&self) -> Status {
        self.wait_until("the last switch is on disk", |status| {
            let record = fs::read_to_string(self.world.state_file()).unwrap_or_default();
            status.last_switch.as_ref().is_some_and(|switch| record.contains(&switch.id))
        })
    }

    /// Waits until the live release has a process and a port, and returns the process id.
    #[track_caller]
    pub(crate) fn live_pid(&self) -> u32 {
        let status = self.wait_until("the live release has a process", |status| pid(status).is_some());
        pid(&status).unwrap_or_default()
    }

    /// All releases, newest first.
    #[track_caller]
    pub(crate) fn releases(&self) -> Vec<ReleaseRow> {
        let value = self.admin("GET", "/__releases", None).expect(200).json();
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error} in {value:#}"))
    }

    /// The row of one release.
    #[track_caller]
    pub(crate) fn row(&self, release: &str) -> ReleaseRow {
        let rows = self.releases();
        let row = rows.iter().find(|row| row.release == release);
        row.cloned().unwrap_or_else(|| panic!("no release {release} in {rows:#?}"))
    }

    /// Waits until `check` holds for the row of a release, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_row(
        &self,
        release: &str,
        what: &str,
        check: impl Fn(&ReleaseRow) -> bool,
    ) -> ReleaseRow {
        let explain = || format!("releases: {:#?}\nlog:\n{}", self.releases(), self.last_log());
        let find = || self.releases().into_iter().find(|row| row.release == release).filter(|row| check(row));
        wait_until(&format!("{release} {what}"), explain, find)
    }

    /// Waits until a release is reported stopped.
    #[track_caller]
    pub(crate) fn wait_until_stopped(&self, release: &str) -> ReleaseRow {
        self.wait_for_row(release, "is stopped", |row| row.stopped_at.is_some())
    }

    /// Deploys `app` under its version as release id.
    #[track_caller]
    pub(crate) fn deploy(&self, app: &App) -> Answer {
        self.admin("POST", "/__deploy", Some(&deploy_body(app)))
    }

    /// Starts a deploy of `app`, and returns once it is accepted.
    #[track_caller]
    pub(crate) fn deploy_detached(&self, app: &App) {
        self.admin("POST", "/__deploy?detach=1", Some(&deploy_body(app))).expect(202);
    }

    /// Deploys `app`, and returns the events of the stream.
    #[track_caller]
    pub(crate) fn deploy_stream(&self, app: &App) -> Vec<Value> {
        let body = deploy_body(app).to_string().into_bytes();
        let headers = [("content-type", "application/json"), ("accept", "application/x-ndjson")];
        let answer = Conn::unix(&self.world.socket())
            .and_then(|mut conn| conn.request("POST", "/__deploy", &headers, Some(&body)))
            .unwrap_or_else(|error| panic!("streamed deploy: {error}\n{}", self.last_log()))
            .expect(200);
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        let text = answer.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Runs `portok` against this daemon's socket.
    #[track_caller]
    pub(crate) fn portok(&self, words: &[&str]) -> Said {
        self.spawn_portok(words).wait()
    }

    /// Starts `portok` against this daemon's socket.
    #[track_caller]
    pub(crate) fn spawn_portok(&self, words: &[&str]) -> Running {
        let socket = self.world.socket().display().to_string();
        let words = [&["--socket", &socket], words].concat();
        self.world.spawn(PORTOK, &words, &self.world.env())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(heir) = self.heir {
                procs::send(heir, Signal::SIGKILL);
            }
            eprintln!("log of portokd {}:\n{}", self.running.pid(), self.last_log());
            return;
        }
        if let Some(heir) = self.heir {
            procs::send(heir, Signal::SIGTERM);
            self.wait_for_heir();
            self.world.wait_for_none_left();
        }
        if !self.ended {
            self.signal(Signal::SIGTERM);
            self.wait().ended(0);
            self.world.wait_for_none_left();
        }
    }
}

/// The body of a deploy of `app` under its version as release id.
pub(crate) fn deploy_body(app: &App) -> Value {
    json!({ "command": app.command(), "release": app.version() })
}

/// The live release's id.
pub(crate) fn live(status: &Status) -> Option<&str> {
    status.live.as_ref().map(|release| release.release.as_str())
}

/// The live release's process.
pub(crate) fn pid(status: &Status) -> Option<u32> {
    status.live.as_ref().and_then(|release| release.pid)
}
