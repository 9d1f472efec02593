//! A constant load that checks every answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::fixture::checksum;
use super::http::{Answer, Conn};
use super::tls::Terms;
use super::wait::{pause, wait_until};

/// What a worker does repeatedly.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// GETs over one kept-alive connection.
    Get,
    /// POSTs with bodies over one kept-alive connection; the app answers with the body's checksum.
    Post,
    /// A GET over a new connection each time.
    Fresh,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    /// Versions that may not answer new requests, each with the number of its ban.
    banned: Mutex<BTreeMap<String, u64>>,
    bans: AtomicU64,
    /// The first failures, in full.
    failures: Mutex<Vec<String>>,
    by_version: Mutex<BTreeMap<String, u64>>,
}

/// Whom a load asks, and what has to come back.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) addr: SocketAddr,
    pub(crate) host: String,
    /// Another one than 200 is portok's own answer, which takes the place of the version.
    pub(crate) status: u16,
    /// How it speaks TLS, if it does.
    pub(crate) tls: Option<Terms>,
}

impl Asked {
    fn connect(&self) -> std::io::Result<Conn> {
        match &self.tls {
            None => Conn::tcp(self.addr),
            Some(terms) => terms.connect(self.addr, &self.host),
        }
    }
}

/// Workers that send requests until they are stopped.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// The results of a load.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) answered: u64,
    /// What was wrong with each failed request; at most 20.
    pub(crate) failures: Vec<String>,
    pub(crate) by_version: BTreeMap<String, u64>,
}

impl Load {
    /// Three workers of each kind against `addr`.
    pub(crate) fn start(addr: SocketAddr) -> Self {
        Self::of(&Asked { addr, host: "app.test".to_owned(), status: 200, tls: None }, 3)
    }

    /// Three workers of each kind over TLS.
    pub(crate) fn over_tls(addr: SocketAddr, host: &str, terms: &Terms) -> Self {
        Self::of(&Asked { addr, host: host.to_owned(), status: 200, tls: Some(terms.clone()) }, 3)
    }

    /// Workers whose requests may be sent twice: eight against `addr`.
    pub(crate) fn idempotent(addr: SocketAddr) -> Self {
        let asked = Asked { addr, host: "app.test".to_owned(), status: 200, tls: None };
        Self::begin(&asked, &[Kind::Get, Kind::Fresh], 4)
    }

    /// So many workers of each kind.
    pub(crate) fn of(asked: &Asked, number: usize) -> Self {
        Self::begin(asked, &[Kind::Get, Kind::Post, Kind::Fresh], number)
    }

    fn begin(asked: &Asked, kinds: &[Kind], each: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let workers = (0..kinds.len() * each).map(|number| {
            let (asked, shared) = (asked.clone(), Arc::clone(&shared));
            let worker = Worker { asked, kind: kinds[number % kinds.len()], number, shared };
            std::thread::spawn(move || worker.run())
        });
        let load = Self { workers: workers.collect(), shared };
        load.wait_for_more(50);
        load
    }

    /// Makes answers of `version` to new requests failures.
    pub(crate) fn ban(&self, version: &str) {
        let number = self.shared.bans.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.banned).insert(version.to_owned(), number);
    }

    /// Lets `version` answer again.
    pub(crate) fn allow(&self, version: &str) {
        lock(&self.shared.banned).remove(version);
    }

    /// Waits until `number` more requests have been answered.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, number: u64) {
        let goal = self.shared.answered.load(Ordering::Relaxed) + number;
        let explain = || format!("failures: {:#?}", self.failures());
        wait_until("the load goes on", explain, || {
            (self.shared.answered.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// The failures so far.
    pub(crate) fn failures(&self) -> Vec<String> {
        lock(&self.shared.failures).clone()
    }

    /// Ends the workers.
    pub(crate) fn finish(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().expect("a worker reports its failures and does not panic");
        }
        Report {
            answered: self.shared.answered.load(Ordering::Relaxed),
            failures: lock(&self.shared.failures).clone(),
            by_version: lock(&self.shared.by_version).clone(),
        }
    }

    /// Ends the workers and asserts that no request failed.
    #[track_caller]
    pub(crate) fn finish_without_failure(self) -> Report {
        let report = self.finish();
        assert!(report.failures.is_empty(), "{report:#?}");
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    asked: Asked,
    kind: Kind,
    number: usize,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(&self) {
        let mut kept = None;
        let mut round = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            round += 1;
            let banned = lock(&self.shared.banned).clone();
            match self.one(&mut kept, round, &banned) {
                Ok(version) => {
                    self.shared.answered.fetch_add(1, Ordering::Relaxed);
                    *lock(&self.shared.by_version).entry(version).or_default() += 1;
                }
                Err(failure) => {
                    kept = None;
                    let mut failures = lock(&self.shared.failures);
                    if failures.len() < 20 {
                        failures.push(format!(
                            "{:?} worker {}, request {round}: {failure}",
                            self.kind, self.number
                        ));
                    }
                }
            }
            // The load is bounded, so that the machine can also run what is tested.
            pause(Duration::from_millis(2));
        }
    }

    /// Sends one request. Returns the version that answered, or what was wrong.
    fn one(
        &self,
        kept: &mut Option<Conn>,
        round: u64,
        banned: &BTreeMap<String, u64>,
    ) -> Result<String, String> {
        let mut conn = match kept.take() {
            Some(conn) => conn,
            None => self.asked.connect().map_err(|error| format!("connecting: {error}"))?,
        };
        let text = |error: std::io::Error| error.to_string();
        let host = ("host", self.asked.host.as_str());
        let answer = match self.kind {
            Kind::Get => conn.request("GET", "/load", &[host], None).map_err(text)?,
            Kind::Fresh => {
                let close = ("connection", "close");
                conn.request("GET", "/load", &[host, close], None).map_err(text)?
            }
            Kind::Post => {
                let body = body(self.number, round);
                let answer = conn.request("POST", "/load", &[host], Some(&body)).map_err(text)?;
                let expected = format!("{} {} {:016x}\n", answer.version(), body.len(), checksum(&body));
                if answer.status() == 200 && answer.text() != expected {
                    return Err(format!("answered {:?}, not {expected:?}", answer.text()));
                }
                answer
            }
        };
        let version = self.check(&answer)?;
        // A ban that was lifted meanwhile, and perhaps imposed again, allowed it.
        let ban = banned.get(&version);
        if ban.is_some() && ban == lock(&self.shared.banned).get(&version) {
            return Err(format!("{version} answered a request that was sent after its end"));
        }
        if answer.keeps_alive() && !matches!(self.kind, Kind::Fresh) {
            *kept = Some(conn);
        }
        Ok(version)
    }

    fn check(&self, answer: &Answer) -> Result<String, String> {
        if answer.status() != self.asked.status {
            return Err(format!("{:?}: {}", answer.head, answer.text()));
        }
        if answer.status() != 200 {
            return Ok(answer.status().to_string());
        }
        let version = answer.version().to_owned();
        if !answer.text().starts_with(&version) {
            return Err(format!("{version} answered {:?}", answer.text()));
        }
        Ok(version)
    }
}

/// Bodies of all sizes up to 200 KiB, most of them small.
fn body(number: usize, round: u64) -> Vec<u8> {
    let length = match round % 10 {
        0 => 200 * 1024,
        1..=3 => 5000,
        _ => 64,
    };
    let seed = (number as u64 + 1).wrapping_mul(31).wrapping_add(round);
    (0..length).map(|index: u64| (index.wrapping_mul(seed) >> 3) as u8).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
