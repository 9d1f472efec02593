//! A server in front of the real one: it gives the same directory, and answers itself what that
//! cannot. So a test has renewal information, a server that is slow, and one that says no more.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Pebble;
use crate::harness::Conn;
use crate::harness::tls::serve;
use crate::harness::wait::wait_until;

/// What the directory says beside what the real one does.
pub(super) enum Says {
    /// Certificates should have been renewed on the first day of 2020.
    RenewalInformation,
    /// There were too many orders.
    TooMany,
    /// Nothing, until this file exists.
    NothingBefore(PathBuf),
}

/// See the module.
pub(super) struct Front {
    pub(super) directory: String,
    /// The paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Front {
    pub(super) fn start(pebble: &Pebble, says: Says) -> Self {
        let mut real = pebble.authority.terms().connect(pebble.address(), "localhost").unwrap();
        // Its addresses are those that it is asked at.
        let host = format!("localhost:{}", pebble.address().port());
        let real = real.request("GET", "/dir", &[("host", &host)], None).unwrap().expect(200).json();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (noted, address) = (Arc::clone(&asked), own.clone());
        let pair = pebble.authority.issue(&["localhost"]);
        serve(listener, &pair, move |conn| {
            let Ok(path) = path_of(conn) else { return };
            noted.lock().unwrap().push(path.clone());
            let (status, fields, body) = answer(&says, &path, (&real, &address));
            let head = format!(
                "HTTP/1.1 {status} X\r\n{fields}content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            // Who asked may be gone.
            let _ = conn.send(&[head.as_bytes(), body.as_bytes()].concat());
        });
        Self { directory: format!("{own}/dir"), asked }
    }

    /// How often paths that begin so were asked for.
    pub(super) fn asked(&self, beginning: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.starts_with(beginning)).count()
    }
}

/// The path of a request, which is read to its end.
fn path_of(conn: &mut Conn) -> std::io::Result<String> {
    let path = conn.line()?.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let line = conn.line()?.to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    conn.exactly(length)?;
    Ok(path)
}

/// Status, further fields and body of the answer.
fn answer(says: &Says, path: &str, (real, own): (&Value, &str)) -> (u16, String, String) {
    let field = |name: &str, value: &str| format!("{name}: {value}\r\n");
    let mut directory = real.clone();
    match (says, path) {
        (Says::RenewalInformation, "/dir") => directory["renewalInfo"] = json!(format!("{own}/renewal")),
        (Says::RenewalInformation, _) => {
            let window = json!({ "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" });
            return (200, field("retry-after", "21600"), json!({ "suggestedWindow": window }).to_string());
        }
        (Says::TooMany, "/dir") => directory["newOrder"] = json!(format!("{own}/order")),
        (Says::TooMany, _) => {
            let kind = "urn:ietf:params:acme:error:rateLimited";
            let problem = json!({ "type": kind, "detail": "too many certificates this week", "status": 429 });
            return (429, field("content-type", "application/problem+json"), problem.to_string());
        }
        (Says::NothingBefore(file), _) => {
            wait_until("the server may speak", String::new, || file.exists().then_some(()));
        }
    }
    (200, field("content-type", "application/json"), directory.to_string())
}

impl Pebble {
    fn address(&self) -> SocketAddr {
        let port = self.directory.rsplit(':').next().and_then(|rest| rest.split('/').next());
        SocketAddr::from(([127, 0, 0, 1], port.and_then(|port| port.parse().ok()).unwrap()))
    }
}
