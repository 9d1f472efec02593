//! Who is measured: portok, its peers as far as they are installed, and the backend itself.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Process, descriptors, pinned_command, says, wait_for};

/// A proxy that can be started.
#[derive(Debug, Clone)]
pub struct Peer {
    pub name: &'static str,
    /// What it is started as.
    kind: &'static str,
    pub version: String,
    program: PathBuf,
}

/// A proxy that runs.
pub struct Running {
    pub name: &'static str,
    pub port: u16,
    pub process: Process,
    folder: PathBuf,
}

/// What is there, and what is missing and how to get it.
pub fn find(bin: &Path, bench: &Path) -> (Vec<Peer>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let mut note = |name, version: Option<String>, program: PathBuf, how: &str| match version {
        Some(version) => found.push(Peer { name, kind: name, version, program }),
        None => missing.push(format!("{name} is not there ({how}); it is left out")),
    };
    let portokd = bin.join("portokd");
    note("portok", says(&portokd.display().to_string(), &["--version"]), portokd, "cargo build --release");
    let nginx = installed("nginx");
    note("nginx", says(&nginx.display().to_string(), &["-v"]), nginx, "Debian: apt-get install nginx-light");
    let haproxy = installed("haproxy");
    let version = says(&haproxy.display().to_string(), &["-v"]);
    note("haproxy", version, haproxy, "Debian: apt-get install haproxy");
    let pingora = bench.join("pingora/target/release/bench-pingora");
    let version = pingora.exists().then(|| "pingora-proxy, see contrib/bench/pingora/Cargo.lock".to_owned());
    note("pingora", version, pingora, "contrib/bench/run --pingora builds it, which takes minutes");
    let module = bench.join("node_modules/http-proxy/package.json");
    let version = fs::read_to_string(&module).ok().and_then(|text| {
        let package: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(format!("http-proxy {} on node {}", package["version"].as_str()?, says("node", &["--version"])?))
    });
    note("node", version, bench.join("node.js"), "npm install --prefix contrib/bench http-proxy");
    // With its default buffers of 16 KiB it needs twice the CPU for large bodies.
    if let Some(haproxy) = found.iter().find(|peer| peer.name == "haproxy") {
        let version = format!("{}, tune.bufsize 65536, for W3", haproxy.version);
        found.push(Peer { name: LARGE_BUFFERS, version, ..haproxy.clone() });
    }
    (found, missing)
}

/// Where a program is that some shells do not find.
pub fn installed(name: &str) -> PathBuf {
    ["/usr/sbin/", "/usr/bin/", "/usr/local/sbin/", "/usr/local/bin/"]
        .map(|folder| PathBuf::from(folder).join(name))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| name.into())
}

/// haproxy with 64 KiB buffers: another peer, where bodies are large.
const LARGE_BUFFERS: &str = "haproxy64";
/// portok once more, measured like a peer: how far two equals are apart in this session.
const CONTROL: &str = "control";

/// The work with three apps behind each proxy.
pub const REPLICAS: &str = "R3";

/// What portok's drains are, where nothing else is said.
pub const DRAIN: &str = "period = \"1s\"\nearly = true";

/// What is behind a proxy.
pub struct Behind {
    /// What portok's section `[app]` says.
    pub app: String,
    /// Where the apps are, as far as they run already.
    pub ports: Vec<u16>,
}

impl Behind {
    /// One app that runs.
    pub fn port(port: u16) -> Self {
        Self { app: format!("target = {port}"), ports: vec![port] }
    }

    /// Several that run. portok has to be switched to all of them.
    pub fn all(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), ..Self::port(ports[0]) }
    }
}

/// A port that nobody listens on now, below the ephemeral range where that is usual.
pub fn free_port() -> io::Result<u16> {
    for port in 18_000..28_000 {
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && !TAKEN.with_borrow(|taken| taken.contains(&port))
        {
            TAKEN.with_borrow_mut(|taken| taken.push(port));
            return Ok(port);
        }
    }
    Err(io::Error::other("no free port"))
}

thread_local! {
    static TAKEN: std::cell::RefCell<Vec<u16>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Peer {
    /// The same under the control's name.
    pub fn control(&self) -> Self {
        Self { name: CONTROL, ..self.clone() }
    }

    /// The program that is started.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it is one that portok is compared with.
    pub fn is_rival(name: &str) -> bool {
        !["portok", "direct", CONTROL].contains(&name)
    }

    /// Whether it takes part in this work.
    pub fn takes_part(name: &str, workload: &str) -> bool {
        match workload {
            REPLICAS => ["portok", CONTROL, "nginx", "haproxy"].contains(&name),
            _ => name != LARGE_BUFFERS || workload == "W3",
        }
    }

    /// Starts it before the app at `backend` and waits until it answers.
    pub fn start(
        &self,
        folder: &Path,
        backend: u16,
        threads: usize,
        cpu: Option<usize>,
    ) -> io::Result<Running> {
        self.start_with(folder, backend, threads, cpu, DRAIN)
    }

    /// The same; `drain` is what portok's section of that name says.
    pub fn start_with(
        &self,
        folder: &Path,
        backend: u16,
        threads: usize,
        cpu: Option<usize>,
        drain: &str,
    ) -> io::Result<Running> {
        self.start_before(folder, &Behind::port(backend), threads, cpu, drain)
    }

    /// The same before whatever is `behind`.
    pub fn start_before(
        &self,
        folder: &Path,
        behind: &Behind,
        threads: usize,
        cpu: Option<usize>,
        drain: &str,
    ) -> io::Result<Running> {
        let port = free_port()?;
        let Behind { app, ports } = behind;
        let backend = ports.first().copied().unwrap_or_default();
        let servers = |each: &dyn Fn(u16) -> String| ports.iter().map(|port| each(*port)).collect::<String>();
        let several = ports.len() > 1;
        let folder = folder.join(format!("{}-{port}", self.name));
        fs::create_dir_all(&folder)?;
        let mut command = pinned_command(cpu, &self.program.display().to_string());
        let at = folder.display();
        // nginx counts both sides of a request.
        let both = descriptors().saturating_sub(100).min(40_000);
        let most = (descriptors() / 2).saturating_sub(100).min(20_000);
        match self.kind {
            "portok" => {
                // To the app as many connections as the peers may open, and as long a time to open them.
                let config = folder.join("portok.toml");
                write(
                    &config,
                    &format!(
                        "listen = \"127.0.0.1:{port}\"\nstate_file = \"{at}/state.json\"\n\
                    [app]\n{app}\n[drain]\n{drain}\n[rollback]\nwindow = \"0s\"\n\
                    [admin]\nsocket = \"{at}/admin.sock\"\n[proxy]\nthreads = {threads}\nidle_timeout = \"120s\"\n\
                    header_timeout = \"121s\"\n[upstream]\nmax_connections = {most}\nconnect_timeout = \"5s\"\n"
                    ),
                )?;
                command.arg("--config").arg(config);
            }
            "nginx" => {
                let config = folder.join("nginx.conf");
                let balance = if several { "least_conn; " } else { "" };
                let servers = servers(&|port| format!("server 127.0.0.1:{port}; "));
                write(
                    &config,
                    &format!(
                        "daemon off; worker_processes {threads}; pid {at}/pid; error_log {at}/error;\n\
                    events {{ worker_connections {both}; }}\n\
                    http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 120s; client_max_body_size 0;\n\
                    client_body_temp_path {at}/1; proxy_temp_path {at}/2; fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n\
                    map $http_upgrade $upgrading {{ default upgrade; '' ''; }}\n\
                    upstream app {{ {balance}{servers}keepalive 1024; keepalive_requests 1000000000; }}\n\
                    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://app; proxy_http_version 1.1;\n\
                    proxy_request_buffering off; proxy_set_header Connection $upgrading; proxy_set_header Upgrade $http_upgrade;\n\
                    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;\n\
                    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;\n\
                    proxy_set_header X-Forwarded-Host $http_host; }} }} }}\n"
                    ),
                )?;
                command.arg("-c").arg(config).arg("-e").arg(folder.join("error"));
            }
            "haproxy" => {
                let config = folder.join("haproxy.cfg");
                let balance = if several { "  balance leastconn\n" } else { "" };
                let servers =
                    servers(&|port| format!("  server app{port} 127.0.0.1:{port} pool-max-conn 1024\n"));
                let buffers =
                    if self.name == LARGE_BUFFERS { "tune.bufsize 65536" } else { "# default buffers" };
                write(
                    &config,
                    &format!(
                        "global\n  nbthread {threads}\n  maxconn {most}\n  {buffers}\n\
                    defaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  timeout server 120s\n  timeout tunnel 120s\n\
                    http-reuse always\n  option forwardfor\n\
                    frontend in\n  bind 127.0.0.1:{port} backlog 4096\n  http-request set-header X-Forwarded-Proto http\n\
                    http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n  default_backend app\n\
                    backend app\n{balance}{servers}"
                    ),
                )?;
                command.arg("-f").arg(config);
            }
            "pingora" => {
                command.args([port.to_string(), backend.to_string(), threads.to_string()]);
            }
            _ => {
                command = pinned_command(cpu, "node");
                command.arg(&self.program).args([port.to_string(), backend.to_string()]);
            }
        }
        let mut process = Process::start(&mut command, &folder.join("log"))?;
        let answers = || TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok();
        if !wait_for(Duration::from_secs(20), answers) || process.has_ended() {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("{} does not answer: {}", self.name, log.trim())));
        }
        Ok(Running { name: self.name, port, process, folder })
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::File::create(path)?.write_all(text.as_bytes())
}

impl Running {
    pub fn is_portok(&self) -> bool {
        ["portok", CONTROL].contains(&self.name)
    }

    /// portok's admin socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }
}
