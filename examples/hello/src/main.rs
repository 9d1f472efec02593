//! A tiny web app to try portok with. It listens on `PORT`, answers `/health` with 200 and everything else with
//! `MESSAGE`, its release and its process id.
//!
//! Things to try: `MESSAGE` (what it says), `FAIL_AFTER` (seconds after which its health turns bad: watch portok
//! go back), and `portok deploy --cmd false` (a release that never comes up).

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

struct App {
    message: String,
    release: String,
    fails_at: Option<Instant>,
}

fn main() -> io::Result<()> {
    let variable = |name| std::env::var(name).ok();
    let port = variable("PORT").and_then(|port| port.parse().ok()).unwrap_or(8080);
    let seconds = variable("FAIL_AFTER").and_then(|seconds| seconds.parse().ok());
    let app: &'static App = Box::leak(Box::new(App {
        message: variable("MESSAGE").unwrap_or_else(|| "hello".into()),
        release: variable("PORTOK_RELEASE").unwrap_or_else(|| "no release".into()),
        fails_at: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
    }));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("{} listens on port {port}", app.release);
    for client in listener.incoming() {
        // A client that goes away is no reason to stop.
        if let Ok(client) = client {
            std::thread::spawn(move || serve(app, client));
        }
    }
    Ok(())
}

/// Answers one connection's requests until the client closes it.
fn serve(app: &App, client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut answers = client.try_clone()?;
    let mut lines = BufReader::new(client).lines();
    while let Some(request) = lines.next().transpose()? {
        for header in lines.by_ref() {
            if header?.is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        let healthy = app.fails_at.is_none_or(|moment| Instant::now() < moment);
        let (status, body) = match (path, healthy) {
            ("/health", true) => ("200 OK", "ok\n".to_owned()),
            ("/health", false) => ("500 Internal Server Error", "not any more\n".to_owned()),
            _ => ("200 OK", format!("{} from {} (pid {})\n", app.message, app.release, std::process::id())),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        answers.write_all((head + &body).as_bytes())?;
    }
    Ok(())
}
