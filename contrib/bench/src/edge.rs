//! The edge, with the tools that others measure with: wrk and h2load as the load, nginx or nghttpd as the app, and the peers
//! in turns. Plain HTTP, TLS, HTTP/2, and gRPC through HTTP/2 without TLS.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::peers::{Peer, free_port, installed};
use crate::process::{Process, pinned_command, wait_for};
use crate::session::{Options, Sample, number, since};

/// Who speaks TLS and HTTP/2 here.
const PEERS: [&str; 4] = ["portok", "control", "nginx", "haproxy"];

/// A gRPC message of eight bytes behind its prefix of five.
const GRPC_CALL: &[u8] = b"\0\0\0\0\x08\x0a\x06portok";

/// How the load comes, and what is behind the proxies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    /// Over TLS, h2load as the load.
    Http2,
    /// Without TLS, the app speaks it too.
    Grpc,
}

/// A kind of work.
struct Work {
    name: &'static str,
    what: &'static str,
    way: Way,
    path: &'static str,
    connections: usize,
    /// Words of the tool's own.
    words: &'static [&'static str],
}

const WORKS: [Work; 9] = [
    Work {
        name: "E1",
        what: "wrk, nginx: GET 12 bytes, 64 kept connections",
        way: Way::Plain,
        path: "/",
        connections: 64,
        words: &[],
    },
    Work {
        name: "E2",
        what: "wrk, nginx: GET 10 KiB",
        way: Way::Plain,
        path: "/10k",
        connections: 64,
        words: &[],
    },
    Work {
        name: "E3",
        what: "wrk, nginx: GET 1 MiB, 16 connections",
        way: Way::Plain,
        path: "/1m",
        connections: 16,
        words: &[],
    },
    Work {
        name: "E4",
        what: "wrk, nginx: POST 64 KiB, 32 connections",
        way: Way::Plain,
        path: "/",
        connections: 32,
        words: &["-s", "post.lua"],
    },
    Work {
        name: "E5",
        what: "wrk, nginx: a connection per request, 32 clients",
        way: Way::Plain,
        path: "/",
        connections: 32,
        words: &["-H", "Connection: close"],
    },
    Work {
        name: "T1",
        what: "TLS 1.3: GET 12 bytes, 64 kept connections",
        way: Way::Tls,
        path: "/",
        connections: 64,
        words: &[],
    },
    Work {
        name: "T3",
        what: "TLS 1.3: GET 1 MiB, 16 connections",
        way: Way::Tls,
        path: "/1m",
        connections: 16,
        words: &[],
    },
    Work {
        name: "T5",
        what: "TLS 1.3: a full handshake (P-256) per request, 32 clients",
        way: Way::Tls,
        path: "/",
        connections: 32,
        words: &["-H", "Connection: close"],
    },
    Work {
        name: "H1",
        what: "HTTP/2 over TLS: GET 12 bytes, 8 connections of 100 streams",
        way: Way::Http2,
        path: "/",
        connections: 8,
        words: &["-m", "100"],
    },
];

const GRPC: Work = Work {
    name: "G1",
    what: "gRPC: unary calls through h2c, 8 connections of 20 streams",
    way: Way::Grpc,
    path: "/call",
    connections: 8,
    words: &["-m", "20"],
};

/// What all of it is called.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    WORKS.iter().chain([&GRPC]).map(|work| (work.name, work.what))
}

/// A proxy before the app, on two ports.
struct Proxy {
    name: &'static str,
    process: Process,
    plain: u16,
    encrypted: u16,
}

/// The peers on all of it.
pub fn side_by_side(options: &Options, peers: &[Peer]) -> io::Result<Vec<Sample>> {
    let folder = options.folder.join("edge");
    let mut samples = Vec::new();
    let wanted = |work: &&Work| options.wants(work.name) || options.only.iter().any(|only| only == "edge");
    let works: Vec<&Work> = WORKS.iter().filter(wanted).collect();
    if !works.is_empty() {
        prepare(&folder)?;
        let Some((_app, port)) = left_out(nginx_app(options, &folder), "the app of nginx") else {
            return Ok(samples);
        };
        let proxies = start_all(options, peers, &folder, port, Way::Tls);
        for work in works {
            samples.extend(rounds(options, work, &proxies, &folder)?);
        }
    }
    if Some(&GRPC).filter(wanted).is_some() {
        prepare(&folder)?;
        let Some((_app, port)) = left_out(nghttpd_app(options, &folder), "the app of nghttpd") else {
            return Ok(samples);
        };
        let proxies = start_all(options, peers, &folder, port, Way::Grpc);
        samples.extend(rounds(options, &GRPC, &proxies, &folder)?);
    }
    Ok(samples)
}

fn left_out<T>(started: io::Result<T>, who: &str) -> Option<T> {
    started.inspect_err(|error| eprintln!("{who} is left out: {error}")).ok()
}

fn start_all(options: &Options, peers: &[Peer], folder: &Path, app: u16, way: Way) -> Vec<Proxy> {
    let peers = peers.iter().filter(|peer| PEERS.contains(&peer.name));
    peers.filter_map(|peer| left_out(start(options, peer, folder, app, way), peer.name)).collect()
}

/// The rounds of one kind of work, in turns.
fn rounds(options: &Options, work: &Work, proxies: &[Proxy], folder: &Path) -> io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        let mut order: Vec<_> = proxies.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for proxy in order {
            let port =
                if work.way == Way::Tls || work.way == Way::Http2 { proxy.encrypted } else { proxy.plain };
            let before = proxy.process.cpu();
            let told = load(options, work, port, folder)?;
            let cpu = since(before, proxy.process.cpu(), number(&told, "requests").max(1.0));
            samples.push(Sample { workload: work.name, peer: proxy.name, cpu, told });
        }
        eprintln!("{} round {} of {}", work.name, round + 1, options.rounds);
    }
    Ok(samples)
}

// ---- the load ----

fn load(options: &Options, work: &Work, port: u16, folder: &Path) -> io::Result<Value> {
    let by_h2load = matches!(work.way, Way::Http2 | Way::Grpc);
    let mut command = pinned_command(options.cpu, if by_h2load { "h2load" } else { "wrk" });
    let (seconds, connections) =
        (options.duration.as_secs().max(1).to_string(), work.connections.to_string());
    if by_h2load {
        command.args(["-t", "1", "-c", &connections, "-D", &seconds]);
    } else {
        command.args(["-t", "1", "--latency", "-c", &connections, "-d", &seconds]);
    }
    if work.way == Way::Grpc {
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", "call"]);
    }
    let scheme = if matches!(work.way, Way::Tls | Way::Http2) { "https" } else { "http" };
    command.args(work.words).arg(format!("{scheme}://localhost:{port}{}", work.path)).current_dir(folder);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(if by_h2load { h2load_told(&text) } else { wrk_told(&text) })
}

/// What wrk tells: requests, how many went wrong, times in milliseconds. Without a count nothing is known: all went wrong.
fn wrk_told(text: &str) -> Value {
    let after = |word: &str| text.lines().find_map(|line| line.trim().strip_prefix(word));
    let total = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok());
    let sockets = after("Socket errors:").unwrap_or_default();
    let numbers =
        sockets.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<f64>().ok());
    let errors = numbers.sum::<f64>() + if total.is_none() { 1.0 } else { 0.0 };
    let refused = after("Non-2xx or 3xx responses:").and_then(|number| number.trim().parse::<f64>().ok());
    let rps = after("Requests/sec:").and_then(|number| number.trim().parse::<f64>().ok());
    json!({ "requests": total.unwrap_or(0.0), "errors": errors, "refused": refused.unwrap_or(0.0), "rps": rps.unwrap_or(0.0),
        "p50_ms": after("50%").and_then(millis), "p99_ms": after("99%").and_then(millis) })
}

/// The same of h2load, which tells no times by share.
fn h2load_told(text: &str) -> Value {
    let line = text.lines().find_map(|line| line.strip_prefix("requests:")).unwrap_or_default();
    let of = |word: &str| {
        let part = line.split(',').find_map(|part| part.trim().strip_suffix(word))?;
        part.trim().parse::<f64>().ok()
    };
    let done = of("succeeded");
    // What is under way at the end is neither.
    let errors =
        of("errored").unwrap_or(0.0) + of("timeout").unwrap_or(0.0) + if done.is_none() { 1.0 } else { 0.0 };
    let failed = text.lines().find_map(|line| line.strip_prefix("status codes: 0 2xx")).map_or(0.0, |_| 1.0);
    let finished = text.lines().find_map(|line| line.strip_prefix("finished in "));
    let rps =
        finished.and_then(|line| line.split(',').nth(1)?.trim().strip_suffix(" req/s")?.parse::<f64>().ok());
    json!({ "requests": done.unwrap_or(0.0), "errors": errors + failed, "refused": of("failed").unwrap_or(0.0), "rps": rps.unwrap_or(0.0) })
}

/// `1.50ms`, `900.00us`, `2.00s` in milliseconds.
fn millis(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, factor) = text
        .strip_suffix("us")
        .map(|number| (number, 0.001))
        .or_else(|| text.strip_suffix("ms").map(|number| (number, 1.0)))
        .or_else(|| text.strip_suffix('s').map(|number| (number, 1000.0)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

// ---- what is started ----

/// What apps and load read: bodies, a script, a call, and a certificate that nobody checks.
fn prepare(folder: &Path) -> io::Result<()> {
    let certificates = folder.join("certificates");
    fs::create_dir_all(&certificates)?;
    fs::create_dir_all(folder.join("files"))?;
    // The workers of nginx belong to nobody.
    for folder in folder.ancestors().take(2).chain([folder.join("files").as_path()]) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(folder.join("files/10k"), vec![b'x'; 10 << 10])?;
    fs::write(folder.join("files/1m"), vec![b'x'; 1 << 20])?;
    fs::write(folder.join("files/call"), GRPC_CALL)?;
    fs::write(folder.join("call"), GRPC_CALL)?;
    fs::write(folder.join("post.lua"), "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", 65536)\n")?;
    let (key, certificate) = (certificates.join("bench.key"), certificates.join("bench.crt"));
    if certificate.exists() {
        return Ok(());
    }
    let words =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let mut openssl = Command::new("openssl");
    openssl.args(words).args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null());
    if !openssl.status()?.success() {
        return Err(io::Error::other("openssl makes no certificate"));
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    // haproxy reads both from one file.
    fs::write(folder.join("both.pem"), [fs::read(&certificate)?, fs::read(&key)?].concat())
}

fn nginx_app(options: &Options, folder: &Path) -> io::Result<(Process, u16)> {
    let port = free_port()?;
    let at = folder.display();
    let config = format!(
        "daemon off; worker_processes 1; pid {at}/app.pid; error_log {at}/app.error;\n\
        events {{ worker_connections 4096; }}\n\
        http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 120s; client_max_body_size 0;\n\
        client_body_temp_path {at}/a1; proxy_temp_path {at}/a2; fastcgi_temp_path {at}/a3; uwsgi_temp_path {at}/a4; scgi_temp_path {at}/a5;\n\
        server {{ listen 127.0.0.1:{port} backlog=4096; root {at}/files; location = / {{ return 200 \"hello world\\n\"; }} }} }}\n"
    );
    let file = folder.join("app.conf");
    fs::write(&file, config)?;
    let mut command = pinned_command(options.cpu, &installed("nginx").display().to_string());
    command.arg("-c").arg(file).arg("-e").arg(folder.join("app.error"));
    Ok((listening(&mut command, &folder.join("app.log"), port)?, port))
}

/// Answers a POST with the file, and with the trailer of a call that went well.
fn nghttpd_app(options: &Options, folder: &Path) -> io::Result<(Process, u16)> {
    let port = free_port()?;
    let mut command = pinned_command(options.cpu, "nghttpd");
    command.args(["--no-tls", "-a", "127.0.0.1", "--trailer", "grpc-status: 0", "-d"]);
    command.arg(folder.join("files")).arg(port.to_string());
    Ok((listening(&mut command, &folder.join("nghttpd.log"), port)?, port))
}

/// Starts a program and waits until it listens on `port`.
fn listening(command: &mut Command, log: &Path, port: u16) -> io::Result<Process> {
    let mut process = Process::start(command, log)?;
    let answers = || TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok();
    if !wait_for(Duration::from_secs(20), answers) || process.has_ended() {
        return Err(io::Error::other(fs::read_to_string(log).unwrap_or_default().trim().to_owned()));
    }
    Ok(process)
}

fn start(options: &Options, peer: &Peer, folder: &Path, app: u16, way: Way) -> io::Result<Proxy> {
    let (plain, encrypted) = (free_port()?, free_port()?);
    let own = folder.join(format!("{}-{plain}", peer.name));
    fs::create_dir_all(&own)?;
    let ports = Ports { plain, encrypted, app };
    let mut command = pinned_command(options.cpu, &peer.program().display().to_string());
    let (file, text) = match peer.name {
        "nginx" => (own.join("nginx.conf"), nginx(&own, folder, ports, way, options.threads)),
        "haproxy" => (own.join("haproxy.cfg"), haproxy(folder, ports, way, options.threads)),
        _ => (own.join("portok.toml"), portok(&own, folder, ports, way, options.threads)),
    };
    fs::File::create(&file)?.write_all(text.as_bytes())?;
    match peer.name {
        "nginx" => command.arg("-c").arg(file).arg("-e").arg(own.join("error")),
        "haproxy" => command.arg("-f").arg(file),
        _ => command.arg("--config").arg(file),
    };
    Ok(Proxy {
        name: peer.name,
        process: listening(&mut command, &own.join("log"), plain)?,
        plain,
        encrypted,
    })
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    encrypted: u16,
    app: u16,
}

fn portok(own: &Path, folder: &Path, ports: Ports, way: Way, threads: usize) -> String {
    let (own, at, Ports { plain, encrypted, app }) = (own.display(), folder.display(), ports);
    let protocol = if way == Way::Grpc { "protocol = \"h2c\"\n" } else { "" };
    format!(
        "listen = \"127.0.0.1:{plain}\"\nstate_file = \"{own}/state.json\"\n\
        [app]\ntarget = {app}\n[health]\npath = \"/call\"\n[admin]\nsocket = \"{own}/admin.sock\"\n\
        [tls]\nlisten = [\"127.0.0.1:{encrypted}\"]\ncert_dir = \"{at}/certificates\"\nredirect = false\n\
        [proxy]\nthreads = {threads}\nidle_timeout = \"120s\"\nheader_timeout = \"121s\"\n[upstream]\n{protocol}connect_timeout = \"5s\"\n"
    )
}

fn nginx(own: &Path, folder: &Path, ports: Ports, way: Way, threads: usize) -> String {
    let (own, at, Ports { plain, encrypted, app }) = (own.display(), folder.display(), ports);
    let (http2, pass) = match way {
        Way::Grpc => (" http2", "grpc_pass grpc://app;"),
        _ => (
            "",
            "proxy_pass http://app; proxy_http_version 1.1; proxy_request_buffering off;\n\
            proxy_set_header Connection ''; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;\n\
            proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;\n\
            proxy_set_header X-Forwarded-Host $http_host;",
        ),
    };
    format!(
        "daemon off; worker_processes {threads}; pid {own}/pid; error_log {own}/error;\n\
        events {{ worker_connections 8192; }}\n\
        http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 120s; client_max_body_size 0;\n\
        client_body_temp_path {own}/1; proxy_temp_path {own}/2; fastcgi_temp_path {own}/3; uwsgi_temp_path {own}/4; scgi_temp_path {own}/5;\n\
        ssl_certificate {at}/certificates/bench.crt; ssl_certificate_key {at}/certificates/bench.key; ssl_protocols TLSv1.2 TLSv1.3;\n\
        upstream app {{ server 127.0.0.1:{app}; keepalive 1024; keepalive_requests 1000000000; }}\n\
        server {{ listen 127.0.0.1:{plain}{http2} backlog=4096; listen 127.0.0.1:{encrypted} ssl http2 backlog=4096; location / {{ {pass} }} }} }}\n"
    )
}

fn haproxy(folder: &Path, ports: Ports, way: Way, threads: usize) -> String {
    let (at, Ports { plain, encrypted, app }): (_, Ports) = (folder.display(), ports);
    let proto = if way == Way::Grpc { " proto h2" } else { "" };
    format!(
        "global\n  nbthread {threads}\n  maxconn 8192\n\
        defaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  timeout server 120s\n  http-reuse always\n  option forwardfor\n\
        frontend in\n  bind 127.0.0.1:{plain} backlog 4096{proto}\n  bind 127.0.0.1:{encrypted} backlog 4096 ssl crt {at}/both.pem alpn h2,http/1.1\n\
        \x20 http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]\n  http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n  default_backend app\n\
        backend app\n  server app 127.0.0.1:{app} pool-max-conn 1024{proto}\n"
    )
}

/// Which tools are missing, and how to get them.
pub fn missing() -> Vec<String> {
    let tools =
        [("wrk", "wrk"), ("h2load", "nghttp2-client"), ("nghttpd", "nghttp2-server"), ("openssl", "openssl")];
    let is_missing = |(tool, _): &(&str, &str)| installed(tool) == PathBuf::from(tool);
    let said = |(tool, package)| {
        format!("{tool} is not there (Debian: apt-get install {package}); its work is left out")
    };
    tools.into_iter().filter(is_missing).map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::{h2load_told, millis, wrk_told};

    #[test]
    fn what_wrk_tells_is_understood() {
        let text = "Running 1s test\n  Latency Distribution\n     50%  312.00us\n     99%    1.50ms\n  51234 requests in 1.00s, 7.67MB read\n\
            \x20 Socket errors: connect 0, read 2, write 0, timeout 1\n  Non-2xx or 3xx responses: 7\nRequests/sec:  51200.10\n";
        let told = wrk_told(text);
        assert_eq!(
            (told["requests"].as_f64(), told["errors"].as_f64(), told["refused"].as_f64()),
            (Some(51234.0), Some(3.0), Some(7.0))
        );
        assert_eq!((told["p50_ms"].as_f64(), told["p99_ms"].as_f64()), (millis("312.00us"), Some(1.5)));
        assert_eq!(wrk_told("unable to connect")["errors"], 1.0);
    }

    #[test]
    fn what_h2load_tells_is_understood() {
        let text = "finished in 1.00s, 33001.00 req/s, 1.2MB/s\nrequests: 33001 total, 33801 started, 33001 done, 32990 succeeded, 11 failed, 0 errored, 0 timeout\n\
            status codes: 32990 2xx, 0 3xx, 11 4xx, 0 5xx\n";
        let told = h2load_told(text);
        assert_eq!(
            (told["requests"].as_f64(), told["refused"].as_f64(), told["rps"].as_f64()),
            (Some(32990.0), Some(11.0), Some(33001.0))
        );
        assert_eq!(h2load_told("")["errors"], 1.0);
    }
}
