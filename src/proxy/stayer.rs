//! One who stays long with a target, a tunnel or an event stream, and a target's list of them.
//!
//! The list is the target's, behind a lock that is taken when one comes, goes, or is asked for, and
//! never while bytes move.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock;

/// The longest path that is kept, in bytes.
const LONGEST_PATH: usize = 256;

/// What stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StayerKind {
    /// A WebSocket.
    WebSocket,
    /// Another tunnel.
    Tunnel,
    /// An event stream.
    EventStream,
}

impl StayerKind {
    /// That of a tunnel by which the protocol of this name is spoken.
    pub(super) fn of_tunnel(protocol: &[u8]) -> Self {
        if protocol.eq_ignore_ascii_case(b"websocket") { Self::WebSocket } else { Self::Tunnel }
    }
}

/// One who stays, as whoever asks sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stayer {
    /// What it is.
    pub kind: StayerKind,
    /// The address of its client.
    pub peer: IpAddr,
    /// The path that was asked for, without the query.
    pub path: String,
    /// For how long it has been there.
    pub age: Duration,
    /// How many bytes have passed, in both directions.
    pub bytes: u64,
}

/// Those who stay with one target.
#[derive(Debug, Default)]
pub(super) struct StayerList {
    listed: Mutex<HashMap<u64, Arc<Entry>>>,
    number: AtomicU64,
}

/// One of them, on the list.
#[derive(Debug)]
pub(super) struct Entry {
    kind: StayerKind,
    peer: IpAddr,
    path: Box<[u8]>,
    since: u64,
    bytes: AtomicU64,
}

impl Entry {
    /// What it is.
    pub(super) fn kind(&self) -> StayerKind {
        self.kind
    }

    /// Notes bytes that have passed. One thread alone does.
    pub(super) fn moved(&self, bytes: usize) {
        self.bytes.store(self.bytes.load(Relaxed) + bytes as u64, Relaxed);
    }
}

impl StayerList {
    /// A client at `peer` that has asked for `path` is there from now on. Its number, by which it
    /// is struck off.
    pub(super) fn enter(&self, kind: StayerKind, peer: IpAddr, path: &[u8]) -> (u64, Arc<Entry>) {
        let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        let path = path[..path.len().min(LONGEST_PATH)].into();
        let entry = Arc::new(Entry { kind, peer, path, since: clock::uptime(), bytes: AtomicU64::new(0) });
        let number = self.number.fetch_add(1, Relaxed);
        self.lock().insert(number, Arc::clone(&entry));
        (number, entry)
    }

    /// The one of this number has left.
    pub(super) fn strike(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Who is there at `now`; those who have been there longest first.
    pub(super) fn at(&self, now: u64) -> Vec<Stayer> {
        let stayer = |entry: &Arc<Entry>| Stayer {
            kind: entry.kind,
            peer: entry.peer,
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            age: Duration::from_millis(now.saturating_sub(entry.since)),
            bytes: entry.bytes.load(Relaxed),
        };
        let mut all: Vec<_> = self.lock().values().map(stayer).collect();
        all.sort_by(|one, other| other.age.cmp(&one.age).then_with(|| one.path.cmp(&other.path)));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
