//! Apps by the usual frameworks behind portok over TLS, and the usual clients: a table of them,
//! each client with each app, through a deploy and a rollback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use toml::toml;

use super::clients::Clients;
use super::{PACKAGES, PYTHON, file, has, has_modules, has_package};
use crate::harness::conf::Conf;
use crate::harness::daemon::TOKEN;
use crate::harness::tls::Authority;
use crate::harness::{Daemon, World, wait_until};
use crate::listeners::free;

/// The apps. Each has the host `NAME.test`.
const APPS: [&str; 4] = ["express", "fastify", "uvicorn", "gunicorn"];

/// The clients.
const CLIENTS: [&str; 6] =
    ["curl-1.1", "curl-2", "node-https", "node-http2", "python-http.client", "python-httpx"];

/// How many further answers each client has of each app before the next step.
const ENOUGH: u64 = 3;

/// What a POST of curl has to bring back.
const BODY: usize = 5000;

fn command(app: &str) -> String {
    let folder = file("");
    match app {
        "uvicorn" => {
            format!("exec {PYTHON} -m uvicorn --no-access-log --app-dir {folder} --port $PORT apps:asgi")
        }
        "gunicorn" => {
            let workers = "--worker-class gthread --threads 16";
            format!("exec gunicorn --bind 127.0.0.1:$PORT {workers} --chdir {folder} apps:wsgi")
        }
        framework => format!("exec node {} {framework}", file("apps.js")),
    }
}

fn host(app: &str) -> String {
    format!("{app}.test")
}

fn conf(world: &World, plain: SocketAddr, encrypted: SocketAddr) -> Conf {
    let mut conf = Conf::new(world.path(&format!("conf/{}.toml", world.name())))
        .set("name", world.name())
        .set("listen", plain.to_string())
        .set("state_file", world.state_file().display().to_string())
        .set("admin", toml! { token = TOKEN rate_limit = 10_000 })
        .set("admin.socket", world.socket().display().to_string())
        .set("health.path", "/")
        .set("drain", toml! { period = "10s" early = true })
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", world.path("certs").display().to_string());
    for app in APPS {
        conf.put(&format!("apps.{app}.command"), command(app));
        conf.put(&format!("apps.{app}.hosts"), vec![host(app)]);
        conf.put(&format!("apps.{app}.env.NODE_PATH"), PACKAGES);
        conf.put(&format!("apps.{app}.env.PYTHONDONTWRITEBYTECODE"), "1");
    }
    conf
}

/// How often each client had an answer of each release of a host (`CLIENT HOST RELEASE`).
type Answered = BTreeMap<String, u64>;

/// Threads that start one curl after another until they are stopped.
struct Curls {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Answered>>,
    failed: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Curls {
    fn start(encrypted: SocketAddr, authority: &Path, body: &Path) -> Self {
        let mut curls = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            failed: Arc::default(),
            threads: Vec::new(),
        };
        for (app, version) in APPS.iter().flat_map(|app| [(app, "1.1"), (app, "2")]) {
            let (stop, answered, failed) =
                (Arc::clone(&curls.stop), Arc::clone(&curls.answered), Arc::clone(&curls.failed));
            let (host, authority, body) = (host(app), authority.to_owned(), body.to_owned());
            curls.threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match curl(version, &host, encrypted, &authority, &body) {
                        Ok(releases) => {
                            let mut answered = answered.lock().unwrap();
                            for release in releases {
                                *answered.entry(format!("curl-{version} {host} {release}")).or_default() += 1;
                            }
                        }
                        Err(error) => failed.lock().unwrap().push(format!("curl-{version} {host}: {error}")),
                    }
                }
            }));
        }
        curls
    }

    fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Curls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A curl that asks six times over one connection. Returns the releases that answered.
fn curl(
    version: &str,
    host: &str,
    encrypted: SocketAddr,
    authority: &Path,
    body: &Path,
) -> Result<Vec<String>, String> {
    let url = |path: &str| format!("https://{host}:{}{path}", encrypted.port());
    let mut command = Command::new("curl");
    let part = |command: &mut Command, url: &str, more: &[&str]| {
        let http = if version == "2" { "--http2" } else { "--http1.1" };
        command.args(["--silent", "--show-error", "--max-time", "30", http]);
        let told = "%{http_code} %{http_version} %{num_connects} %header{x-version}";
        command.arg("--write-out").arg(format!("\n{told}\n--\n")).args(more);
        command.arg("--cacert").arg(authority).args(["--connect-to", &format!("::{encrypted}"), url]);
    };
    part(&mut command, &url("/{,slow}?[1-2]"), &[]);
    let body = format!("@{}", body.display());
    command.arg("--next");
    part(&mut command, &url("/?[1-2]"), &["--header", "content-type: text/plain", "--data-binary", &body]);
    let output = command.output().map_err(|error| error.to_string())?;
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("{}: {error}{said}", output.status));
    }
    let answers: Vec<_> = said.split_terminator("\n--\n").collect();
    assert_eq!(answers.len(), 6, "{said}");
    let releases = answers.iter().enumerate().map(|(number, answer)| {
        let (text, told) = answer.rsplit_once('\n').ok_or(*answer)?;
        // The first of them has made the connection.
        let release =
            told.strip_prefix(&format!("200 {version} {} ", u8::from(number == 0))).ok_or(*answer)?;
        let whole = match number {
            0 | 1 => format!("{release}\n"),
            2 | 3 => format!("{release}\n").repeat(3),
            _ => "x".repeat(BODY),
        };
        if text == whole { Ok(release.to_owned()) } else { Err(*answer) }
    });
    releases.collect::<Result<_, _>>().map_err(str::to_owned)
}

/// All the clients at work.
struct Everybody {
    curls: Curls,
    others: Vec<Clients>,
}

impl Everybody {
    fn start(world: &World, encrypted: SocketAddr, authority: &Authority) -> Self {
        let roots = authority.save(&world.path(""));
        let body: PathBuf = world.path("body");
        std::fs::write(&body, "x".repeat(BODY)).unwrap();
        let words = |script: &str| {
            let mut words = vec![file(script), encrypted.to_string(), roots.display().to_string()];
            words.extend(APPS.map(host));
            words
        };
        let others = vec![
            Clients::start("node", &words("tls-clients.js")),
            Clients::start(PYTHON, &words("tls_clients.py")),
        ];
        Self { curls: Curls::start(encrypted, &roots, &body), others }
    }

    /// What failed so far.
    fn failed(&self) -> Vec<Value> {
        let of_others =
            self.others.iter().filter_map(|one| one.told()["failed"].as_array().cloned()).flatten();
        self.curls.failed().into_iter().map(Value::from).chain(of_others).collect()
    }

    fn answered(&self) -> Answered {
        let mut all = self.curls.answered.lock().unwrap().clone();
        for told in self.others.iter().map(Clients::told) {
            let rows = told["answered"].as_object().into_iter().flatten();
            all.extend(rows.map(|(row, count)| (row.clone(), count.as_u64().unwrap())));
        }
        all
    }

    /// Waits until each client has had further answers of the releases that are live now.
    #[track_caller]
    fn wait_for_more(&self, live: &BTreeMap<&str, String>) {
        let before = self.answered();
        let of = |answered: &Answered, row: &str| answered.get(row).copied().unwrap_or(0);
        let late = || -> Vec<String> {
            let now = self.answered();
            let rows = CLIENTS.iter().flat_map(|client| {
                live.iter().map(move |(app, release)| format!("{client} {} {release}", host(app)))
            });
            rows.filter(|row| of(&now, row) < of(&before, row) + ENOUGH).collect()
        };
        let explain = || format!("{:#?} are late\n{:#?}", late(), self.answered());
        wait_until("each client has answers of each app", explain, || {
            (late().is_empty() || !self.failed().is_empty()).then_some(())
        });
        assert_eq!(self.failed(), [] as [Value; 0]);
    }

    #[track_caller]
    fn finish(mut self) {
        self.curls.finish();
        assert_eq!(self.curls.failed(), [] as [String; 0]);
        for clients in self.others {
            clients.finish();
        }
    }
}

/// Does this to all apps at a time.
fn to_each(daemon: &Daemon<'_>, what: &(dyn Fn(&Daemon<'_>, &str) + Sync)) {
    std::thread::scope(|scope| {
        for app in APPS {
            scope.spawn(move || what(daemon, app));
        }
    });
}

/// The releases that are live.
fn live<'a>(daemon: &Daemon<'_>) -> BTreeMap<&'a str, String> {
    let live = |app| {
        let status = daemon.admin("GET", &format!("/__status?app={app}"), None).expect(200).json();
        (app, status["live"]["release"].as_str().unwrap_or_default().to_owned())
    };
    APPS.map(live).into()
}

#[test]
fn each_client_with_each_app_loses_nothing_in_a_deploy_and_a_rollback() {
    let has_all = has("curl") && has("gunicorn") && has_modules("httpx, h2, uvicorn");
    if !has_all || !["express", "fastify"].iter().all(|name| has_package(name)) {
        return;
    }
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    std::fs::create_dir_all(world.path("certs")).unwrap();
    let hosts = APPS.map(host);
    authority.issue(&hosts.each_ref().map(String::as_str)).put(&world.path("certs"), "all");
    let daemon = world.start(&conf(&world, plain, encrypted));
    wait_until(
        "all are live",
        || daemon.log(),
        || live(&daemon).values().all(|id| !id.is_empty()).then_some(()),
    );

    let everybody = Everybody::start(&world, encrypted, &authority);
    let first = live(&daemon);
    everybody.wait_for_more(&first);
    to_each(&daemon, &|daemon, app| {
        let body = json!({ "command": command(app), "release": "v2" });
        daemon.admin("POST", &format!("/__deploy?app={app}"), Some(&body)).expect(200);
    });
    everybody.wait_for_more(&APPS.map(|app| (app, "v2".to_owned())).into());
    to_each(&daemon, &|daemon, app| {
        daemon.admin("POST", &format!("/__rollback?app={app}"), None).expect(200);
    });
    everybody.wait_for_more(&first);
    everybody.finish();
    let metrics = daemon.admin("GET", "/__metrics", None).expect(200).json();
    assert_eq!(metrics["totalProxyErrors"], json!(0), "{metrics:#}");
    daemon.terminate();
}
