//! Clients that send bodies and want the very same bytes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::wait::pause;
use crate::harness::{Conn, wait_until};

/// `length` bytes that no other `seed` has.
pub(super) fn body(seed: usize, length: usize) -> Vec<u8> {
    let line = format!("body {seed} of {length} bytes\n");
    let mut body = line.repeat(length / line.len() + 1).into_bytes();
    body.truncate(length);
    body
}

/// Threads that ask one after another until they are stopped: GETs and POSTs over kept connections
/// and over fresh ones.
pub(super) struct Asking {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Asking {
    pub(super) fn start(addr: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..6).map(|number| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut kept = None;
                for round in (number..).step_by(6) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    ask(addr, &mut kept, round).map_err(|error| format!("request {round}: {error}"))?;
                    answered.fetch_add(1, Ordering::Relaxed);
                    // The machine also runs what is tested.
                    pause(Duration::from_millis(5));
                }
                Ok(())
            })
        });
        let asking = Self { threads: threads.collect(), stop, answered };
        asking.wait_for_more(20);
        asking
    }

    /// Waits for so many further answers.
    #[track_caller]
    pub(super) fn wait_for_more(&self, number: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + number;
        let has_ended = || self.threads.iter().any(JoinHandle::is_finished);
        let explain = || format!("{} of {goal}", self.answered.load(Ordering::Relaxed));
        wait_until("they are answered", explain, || {
            (self.answered.load(Ordering::Relaxed) >= goal || has_ended()).then_some(())
        });
    }

    /// Ends it. No request may have failed.
    #[track_caller]
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it reports what fails").unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

fn ask(addr: SocketAddr, kept: &mut Option<Conn>, round: usize) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut conn = kept.take().map_or_else(|| Conn::tcp(addr).map_err(text), Ok)?;
    let is_fresh = round.is_multiple_of(4);
    let fields = if is_fresh { &[("connection", "close")][..] } else { &[] };
    let sent = (!round.is_multiple_of(3)).then(|| body(round, [64, 5000, 200 << 10][round / 3 % 3]));
    let method = if sent.is_some() { "POST" } else { "GET" };
    let answer = conn.request(method, "/", fields, sent.as_deref()).map_err(text)?;
    if answer.status() != 200 {
        return Err(format!("{method}: {:?} {}", answer.head, answer.text()));
    }
    if sent.is_some_and(|sent| sent != answer.body) {
        return Err(format!("{} other bytes came back", answer.body.len()));
    }
    if !is_fresh && answer.keeps_alive() {
        *kept = Some(conn);
    }
    Ok(())
}
