//! What is logged of the targets of Redis: one line when a target goes out, one when it is back.
//!
//! One address may be the target of very many hosts, and marks come from outside: lines beyond so
//! many a second are counted and not written. Of a target that the data plane puts out and tries
//! again, the data plane tells by itself.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::PREFIX;
use crate::config::Hosts;
use crate::redis::Lines;

/// How many lines at once.
const MOST: u32 = 100;

#[derive(Debug)]
pub(super) struct Voice(Lines);

impl Voice {
    pub(super) fn new() -> Self {
        Self(Lines::new(MOST, Duration::from_secs(1)))
    }

    /// A target of these hosts is out.
    pub(super) fn out(&mut self, hosts: &Hosts, target: SocketAddr, why: impl fmt::Display) {
        if let Some(more) = self.0.next(Instant::now()) {
            let app = format!("{PREFIX}{hosts}");
            tracing::warn!(app, %target, "a target is out, {why}{more}");
        }
    }

    /// It is back.
    pub(super) fn back(&mut self, hosts: &Hosts, target: SocketAddr, why: &str) {
        if let Some(more) = self.0.next(Instant::now()) {
            let app = format!("{PREFIX}{hosts}");
            tracing::info!(app, %target, "a target is back: {why}{more}");
        }
    }

    /// So many of the targets fail their probes that all get requests, or so many no more.
    pub(super) fn unhealthy(&mut self, hosts: &Hosts, is_so: bool) {
        let Some(more) = self.0.next(Instant::now()) else { return };
        let app = format!("{PREFIX}{hosts}");
        if is_so {
            tracing::warn!(app, "more than half of its targets fail their probes: all get requests{more}");
        } else {
            tracing::info!(app, "more than half of its targets fail their probes no more{more}");
        }
    }
}
