//! What of an app with targets survives a restart: the ports that an operator switched to, and the
//! last switch. It is a part of the app's record.
//!
//! Owned by the app's driver, which alone reads, writes and sets it aside. When the app is removed,
//! it is set aside, and taken up again when the app is added under its name: then a switch is in
//! force again if the configuration's own list is the one of that time.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::release::orders::Orders;
use crate::release::records::{Former, Records};
use crate::release::spec::switch_id;
use crate::wire::{Reason, Switch, rfc3339};

/// The part's version. A part of another version is set aside.
const SCHEMA: u32 = 1;

/// How long it may take to read the record.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// How long a write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// The file of the record, as far as targets go.
#[derive(Debug)]
pub(super) struct File {
    records: Records,
    app: String,
    /// A write that has not ended in time. No other begins before it ends, which would let the
    /// older of two records win.
    late: Option<JoinHandle<io::Result<()>>>,
    gone: CancellationToken,
    _gone: DropGuard,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    schema: u32,
    /// What an operator switched to; null while the configuration's own list is in force.
    #[serde(default)]
    switched: Option<Vec<SocketAddr>>,
    /// The configuration's own list at that time.
    #[serde(default)]
    configured: Vec<SocketAddr>,
    /// The last move of traffic.
    #[serde(default)]
    pub(super) last_switch: Option<Switch>,
    /// What an operator has ordered.
    #[serde(default, skip_serializing_if = "Orders::is_none")]
    pub(super) orders: Orders,
}

impl Record {
    /// Nothing was switched yet, and the configuration says `configured`.
    pub(super) fn new(configured: &[SocketAddr]) -> Self {
        Self {
            schema: SCHEMA,
            switched: None,
            configured: configured.to_vec(),
            last_switch: None,
            orders: Orders::default(),
        }
    }

    /// The list in force.
    pub(super) fn in_force(&self) -> &[SocketAddr] {
        self.switched.as_deref().unwrap_or(&self.configured)
    }

    /// The configuration says `configured`. Returns whether that is another list than before, which
    /// is in force then.
    pub(super) fn configure(&mut self, configured: &[SocketAddr]) -> bool {
        if is_same(&self.configured, configured) {
            return false;
        }
        self.configured = configured.to_vec();
        self.switched = None;
        true
    }

    /// With `targets` in force until the configuration's own list changes.
    pub(super) fn switched(&self, targets: Vec<SocketAddr>, switch: Switch) -> Self {
        Self { switched: Some(targets), last_switch: Some(switch), ..self.clone() }
    }
}

/// Whether two lists name the same addresses.
pub(super) fn is_same(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|addr| other.contains(addr))
}

/// A move of traffic that happens now; `None`: it goes nowhere.
pub(super) fn switch_of(
    from: Option<u16>,
    from_ports: Vec<u16>,
    to: &[u16],
    reason: Reason,
) -> Option<Switch> {
    Some(Switch {
        from,
        from_ports,
        from_release: None,
        to: *to.first()?,
        to_ports: to.to_vec(),
        to_release: None,
        at: rfc3339(SystemTime::now()),
        reason,
        id: switch_id(),
    })
}

/// The ports of these targets.
pub(super) fn ports_of(addrs: &[SocketAddr]) -> Vec<u16> {
    addrs.iter().map(SocketAddr::port).collect()
}

impl File {
    /// The file of the app called `app`.
    pub(super) fn new(records: Records, app: &str) -> Self {
        let gone = CancellationToken::new();
        Self { records, app: app.to_owned(), late: None, _gone: gone.clone().drop_guard(), gone }
    }

    /// Cancelled once nothing is written here any more.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// The record as it was left, or the `former` one, for an app whose configuration says
    /// `configured`; and what kept it from being read.
    pub(super) async fn read(&self, configured: Vec<SocketAddr>, former: Former) -> (Record, Option<String>) {
        let (records, app, new) = (self.records.clone(), self.app.clone(), Record::new(&configured));
        let read = spawn_blocking(move || read(&records, &app, &configured, former));
        match timeout(READ_WITHIN, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => (new, Some(format!("the record was not read: {error}"))),
            Err(_) => {
                let app = &self.app;
                (new, Some(format!("the record of app `{app}` could not be read within {READ_WITHIN:?}")))
            }
        }
    }

    /// Writes `record`.
    ///
    /// # Errors
    /// The file system's own; or the write, or one before it, does not end in time.
    pub(super) async fn write(&mut self, record: &Record) -> io::Result<()> {
        let (records, app, targets) = (self.records.clone(), self.app.clone(), serde_json::to_value(record)?);
        self.change(move || records.write_targets(&app, targets)).await
    }

    /// Sets the record aside: the app is removed.
    ///
    /// # Errors
    /// As [`File::write`].
    pub(super) async fn set_aside(mut self) -> io::Result<()> {
        let (records, app) = (self.records.clone(), self.app.clone());
        self.change(move || records.set_targets_aside(&app)).await
    }

    /// Does this with the file, one after the other.
    async fn change(&mut self, change: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        if self.late.as_ref().is_some_and(|write| !write.is_finished()) {
            return Err(self.too_late());
        }
        let mut write = spawn_blocking(change);
        match timeout(WRITE_WITHIN, &mut write).await {
            Ok(written) => written.unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(_) => {
                self.late = Some(write);
                Err(self.too_late())
            }
        }
    }

    fn too_late(&self) -> io::Error {
        let text = format!("the record of app `{}` could not be written within {WRITE_WITHIN:?}", self.app);
        io::Error::new(io::ErrorKind::TimedOut, text)
    }
}

/// The record of an app as it was left; and why it could not be taken up. Blocking.
fn read(records: &Records, app: &str, configured: &[SocketAddr], former: Former) -> (Record, Option<String>) {
    let trouble = records.take_up_targets(app, former).err().map(|error| error.to_string());
    let parsed = records.read_targets(app).and_then(|targets| targets.map(parse).transpose());
    match parsed {
        Ok(Some(mut record)) => {
            record.configure(configured);
            (record, trouble)
        }
        Ok(None) => (Record::new(configured), trouble),
        Err(error) => {
            let aside = records.set_broken_targets_aside(app);
            tracing::warn!(app, "what is recorded of its targets cannot be used ({error}); {aside}");
            (Record::new(configured), trouble)
        }
    }
}

fn parse(targets: Value) -> io::Result<Record> {
    let record: Record = serde_json::from_value(targets).map_err(io::Error::other)?;
    if record.schema == SCHEMA { Ok(record) } else { Err(io::Error::other("its schema is another")) }
}
