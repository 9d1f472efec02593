//! Many apps behind one portokd: what a start takes, a reload that adds one, and the memory of each; from files, and from
//! Redis where a `redis-server` is there.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::changes::{around, millis, post, under_load};
use crate::load::Load;
use crate::peers::{Peer, free_port, installed};
use crate::process::{Process, pinned_command, says, wait_for};
use crate::report::median;
use crate::session::{Options, lost, number, run_load, since, small};

/// How many apps the files configure, and how many hosts Redis holds.
const FILES: usize = 1_000;
const HOSTS: usize = 100_000;
/// The longest that anything here is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// A portokd with apps in files.
struct Several {
    process: Process,
    folder: PathBuf,
    port: u16,
    /// From its start to `READY=1`.
    ready: Duration,
}

impl Several {
    /// Starts one with so many apps at `backend`; `more` is what else its file says.
    fn start(options: &Options, portok: &Peer, backend: u16, apps: usize, more: &str) -> io::Result<Self> {
        let port = free_port()?;
        let folder = options.folder.join(format!("apps-{port}"));
        fs::create_dir_all(folder.join("portok.d"))?;
        let at = folder.display();
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\nstate_file = \"{at}/state.json\"\n[apps]\n[admin]\nsocket = \"{at}/admin.sock\"\n\
            [proxy]\nthreads = {}\nidle_timeout = \"120s\"\nheader_timeout = \"121s\"\n{more}",
            options.threads
        );
        fs::write(folder.join("portok.toml"), text)?;
        for number in 0..apps {
            add_file(&folder, number, backend)?;
        }
        let notify = folder.join("notify");
        let notified = UnixDatagram::bind(&notify)?;
        notified.set_read_timeout(Some(LIMIT))?;
        let mut command = pinned_command(None, &portok.program().display().to_string());
        command.arg("--config").arg(folder.join("portok.toml")).env("NOTIFY_SOCKET", &notify);
        let began = Instant::now();
        let process = Process::start(&mut command, &folder.join("log"))?;
        let mut message = [0; 4096];
        loop {
            let length = notified.recv(&mut message)?;
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                break;
            }
        }
        Ok(Self { process, folder, port, ready: began.elapsed() })
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Waits until the app of a host answers as `is_wanted` says; how long that took.
    fn answers(&self, host: &str, is_wanted: impl Fn(&str) -> bool) -> io::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            if is_wanted(&get(self.port, host)?) {
                return Ok(began.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::other(format!("{host} does not answer as it should after {LIMIT:?}")))
    }
}

fn add_file(folder: &Path, number: usize, backend: u16) -> io::Result<()> {
    let text = format!("hosts = [\"app{number}.test\"]\ntargets = [\"127.0.0.1:{backend}\"]\n");
    // As an editor does it: no reload reads a part of it.
    let temporary = folder.join("new");
    fs::write(&temporary, text)?;
    fs::rename(temporary, folder.join(format!("portok.d/app{number}.toml")))
}

/// What is answered to a request for a host, on a connection of its own.
fn get(port: u16, host: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn is_good(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
}

/// Start, memory, reload, and requests with a thousand apps; then the table from Redis.
pub fn measure(options: &Options, portok: &Peer) -> io::Result<Value> {
    let (_backend, backend) = Process::backend(None)?;
    let mut report = json!({ "files": FILES, "hosts": HOSTS });
    let mut memory = [Vec::new(), Vec::new()];
    let mut cpu = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        for (at, apps) in [1, FILES].into_iter().enumerate() {
            let several = Several::start(options, portok, backend, apps, "")?;
            several.answers(&format!("app{}.test", apps - 1), is_good)?;
            push(&mut report[format!("ready_ms_{apps}")], millis(&several.ready));
            memory[at].push(several.process.memory() as f64);
            let before = several.process.cpu();
            let load = Load { host: "app0.test".to_owned(), ..small() };
            let told = run_load(&load, several.port, options.duration, None)?;
            if lost(&told) == 0.0 {
                cpu[at].push(since(before, several.process.cpu(), number(&told, "requests").max(1.0))[0]);
            }
        }
        eprintln!("apps: start, round {} of {}", round + 1, options.rounds);
    }
    let [one, all] = memory.map(median);
    report["kib_each"] = json!((all - one) / (FILES - 1) as f64);
    for (apps, cpu) in [1, FILES].into_iter().zip(cpu) {
        report[format!("cpu_us_{apps}")] = json!(median(cpu));
    }
    reloads(options, portok, backend, &mut report)?;
    from_redis(options, portok, backend, &mut report)?;
    Ok(report)
}

/// A reload a second that adds one app among the others, beside one client of another app.
fn reloads(options: &Options, portok: &Peer, backend: u16, report: &mut Value) -> io::Result<()> {
    let several = Several::start(options, portok, backend, FILES, "")?;
    several.answers("app0.test", is_good)?;
    let duration = Duration::from_secs(if options.quick { 5 } else { 20 });
    let load = Load { moments: true, connections: 1, host: "app0.test".to_owned(), ..small() };
    let mut first = Vec::new();
    let (mut told, reloads) = under_load(several.port, &load, duration, |number| {
        let began = Instant::now();
        add_file(&several.folder, FILES + number, backend)?;
        let took = post(&several.socket(), "reload", "")?;
        several.answers(&format!("app{}.test", FILES + number), is_good)?;
        first.push(millis(&began.elapsed()));
        Ok(took)
    })?;
    report["reload_ms"] = json!(reloads.iter().map(|change| millis(&change.took)).collect::<Vec<_>>());
    report["file_until_first_answer_ms"] = json!(first);
    around(&mut told, &reloads);
    report["reloading"] = told;
    eprintln!("apps: reloads");
    Ok(())
}

/// A host's memory where Redis holds the table, and how soon a change of one is in force.
fn from_redis(options: &Options, portok: &Peer, backend: u16, report: &mut Value) -> io::Result<()> {
    let program = installed("redis-server");
    if says(&program.display().to_string(), &["--version"]).is_none() {
        eprintln!("redis-server is not there (Debian: apt-get install redis-server): its rows are left out");
        return Ok(());
    }
    let port = free_port()?;
    let mut command = pinned_command(None, &program.display().to_string());
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
    let _redis = Process::start(&mut command, &options.folder.join("redis.log"))?;
    let mut redis = None;
    wait_for(LIMIT, || {
        redis = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok();
        redis.is_some()
    });
    let mut redis = redis.ok_or_else(|| io::Error::other("redis-server does not answer"))?;
    redis.set_read_timeout(Some(LIMIT))?;
    let section = format!("[redis]\nurl = \"redis://127.0.0.1:{port}/0\"\nallow = [\"127.0.0.0/8\"]\n");
    let host = |number: usize| format!("customer-{number:06}.apps.test");
    let target = format!("http://127.0.0.1:{backend}");
    let fill = |redis: &mut TcpStream, hosts: std::ops::Range<usize>| -> io::Result<()> {
        for number in hosts {
            command_of(redis, &["RPUSH", &format!("frontend:{}", host(number)), "label", &target])?;
        }
        Ok(())
    };
    fill(&mut redis, 0..1)?;
    let one = Several::start(options, portok, backend, 0, &section)?;
    one.answers(&host(0), is_good)?;
    let before = one.process.memory();
    drop(one);
    // Never more than a portokd takes.
    let changes = if options.quick { 5 } else { 20 };
    let hosts = HOSTS - changes;
    fill(&mut redis, 1..hosts)?;
    let all = Several::start(options, portok, backend, 0, &section)?;
    let took = all.answers(&host(hosts - 1), is_good)?;
    report["redis_start_until_answer_ms"] = json!(millis(&(took + all.ready)));
    report["redis_bytes_each"] =
        json!(all.process.memory().saturating_sub(before) as f64 * 1024.0 / (hosts - 1) as f64);
    for number in 0..changes {
        // Not in step with the daemon's looks.
        std::thread::sleep(Duration::from_millis(370 + 90 * number as u64 % 1_000));
        let key = format!("frontend:{}", host(hosts + number));
        command_of(&mut redis, &["RPUSH", &key, "label", &target])?;
        let took = all.answers(&host(hosts + number), is_good)?;
        push(&mut report["redis_change_ms"], millis(&took));
    }
    eprintln!("apps: Redis");
    Ok(())
}

/// One command, and its answer's first line.
fn command_of(redis: &mut TcpStream, words: &[&str]) -> io::Result<()> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    redis.write_all(text.as_bytes())?;
    let mut answer = [0; 256];
    let length = redis.read(&mut answer)?;
    if answer[..length].first() == Some(&b':') {
        return Ok(());
    }
    Err(io::Error::other(format!("redis-server: {}", String::from_utf8_lossy(&answer[..length]))))
}

fn push(list: &mut Value, value: f64) {
    match list {
        Value::Array(list) => list.push(json!(value)),
        other => *other = json!([value]),
    }
}
