//! A daemon that is killed at one of its points (`src/release/failpoint.rs`), and sweeps over the
//! points of its way.
//!
//! Of a long way a share of the points is tried: of so many that follow each other one, which is
//! drawn anew in each run of the suite. `PORTOK_TEST_ALL_POINTS=1` tries every point, and
//! `PORTOK_TEST_SEED=N` draws what the run drew that printed N.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::World;
use super::command::{PORTOKD, Running};
use super::conf::Conf;
use super::http::Conn;
use super::random::Random;
use super::wait::wait_until;

/// How many daemons of a sweep are killed side by side: of a point most is waiting.
const AT_ONCE: usize = 4;

/// Whether a test is to try everything that it draws a share of otherwise.
pub(crate) fn tries_all() -> bool {
    std::env::var_os("PORTOK_TEST_ALL_POINTS").is_some()
}

/// Lets daemons die at one of `one_of` points of a way each time, until one lives through the whole
/// of it. `dies_at`: whether the daemon of this point has died. Gives back the first point that
/// none came to.
pub(crate) fn sweep(one_of: u64, dies_at: impl Fn(u64) -> bool + Sync) -> u64 {
    let one_of = if tries_all() { 1 } else { one_of };
    let drawn = Mutex::new((Random::drawn(), 0));
    let next = || {
        let (random, rounds) = &mut *drawn.lock().expect("no draw panics");
        *rounds += 1;
        (*rounds - 1) * one_of + random.below(one_of) + 1
    };
    let end = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while end.load(Ordering::Relaxed) == u64::MAX {
                    let point = next();
                    if !dies_at(point) {
                        end.fetch_min(point, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    end.into_inner()
}

/// Asks over the socket; `None` where no daemon answers.
pub(crate) fn ask(world: &World, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
    let body = body.map(Value::to_string);
    let mut conn = Conn::unix(&world.socket()).ok()?;
    let answer = conn.request(method, path, &[], body.as_deref().map(str::as_bytes)).ok()?;
    serde_json::from_slice(&answer.body).ok()
}

/// A daemon that is killed at a point. It may live longer than the test needs it.
#[derive(Debug)]
pub(crate) struct Doomed<'w> {
    world: &'w World,
    point: u64,
    running: RefCell<Running>,
}

impl<'w> Doomed<'w> {
    /// Saves `conf`, and starts a daemon that dies at `point`.
    #[track_caller]
    pub(crate) fn start(world: &'w World, conf: &Conf, point: u64) -> Self {
        Self::start_with(world, conf, point, &[])
    }

    /// The same with more variables.
    #[track_caller]
    pub(crate) fn start_with(world: &'w World, conf: &Conf, point: u64, more: &[(&str, &str)]) -> Self {
        conf.save();
        let mut env = world.env();
        env.insert("PORTOK_DIE_AT".to_owned(), point.to_string());
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let running = world.spawn(PORTOKD, &["--config", &conf.file().display().to_string()], &env);
        Self { world, point, running: running.into() }
    }

    /// Whether it has died.
    pub(crate) fn is_dead(&self) -> bool {
        self.running.borrow_mut().code().is_some()
    }

    /// Waits until something holds, or it is dead.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let explain = || format!("point {}: {:?}", self.point, ask(self.world, "GET", "/__status", None));
        wait_until(what, explain, || (self.is_dead() || holds()).then_some(()));
    }

    /// Waits until it says so in its status, or it is dead.
    #[track_caller]
    pub(crate) fn wait_until_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.wait_until(what, || {
            ask(self.world, "GET", "/__status", None).is_some_and(|status| is_so(&status))
        });
    }

    /// Waits for its death, or for its orderly end, which is asked for here and has points too.
    /// Whether it died.
    #[track_caller]
    pub(crate) fn dies(self) -> bool {
        let mut running = self.running.into_inner();
        running.signal(Signal::SIGTERM);
        running.wait().code != 0
    }

    /// Kills it, unless it is dead.
    #[track_caller]
    pub(crate) fn kill(self) {
        let mut running = self.running.into_inner();
        if running.code().is_none() {
            running.signal(Signal::SIGKILL);
        }
        running.wait();
    }
}
