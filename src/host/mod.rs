//! Administers this machine for `portok`: folders, units, instances, and whether all is well.
//!
//! Nothing is kept between two commands: files, systemd and the daemons are asked anew each time.
//! Pure functions (`init::plan`, `ports::choose`, `unit`) decide what is to be done, and the
//! drivers around them touch the system. A command that ends early leaves whole files or none, and
//! may be repeated. Nothing is printed here: each command returns what it did or found.
//!
//! - `places`: the folders; `files`: making and removing files where others may interfere;
//! - `unit`: the texts of the units; `installed`: which units and programs this machine has;
//!   `systemctl`: systemd;
//! - `instances`: every instance's files; `ports`: the port of a new instance;
//! - `harden`: the drop-in of a unit whose daemon starts no app; `named`: what a configuration
//!   names and needs;
//! - `app_file`: the file of one app of an instance that has several; `routes`: which routes two
//!   apps claim;
//! - `daemons`: the one face by which daemons are asked how they are;
//! - `init`, `add`, `remove`, `clean`, `service`, `list`, `journal`, `doctor`: the commands;
//! - `import`: other tools' configurations in portok's terms;
//! - `report`: what a command did; `failure`: why it did not.
//!
//! The order that matters: a daemon ends before its files are removed, and a secret is written
//! before the file that names it.

mod add;
mod app_file;
mod clean;
mod daemons;
mod doctor;
mod failure;
pub(crate) mod files;
mod harden;
mod import;
mod init;
mod installed;
mod instances;
mod journal;
mod list;
mod named;
mod places;
mod ports;
mod remove;
mod report;
mod routes;
mod service;
mod systemctl;
mod unit;

pub(crate) use add::{AddOptions, add};
pub(crate) use app_file::{AddAppOptions, add_app, remove_app};
pub(crate) use clean::{clean, has_work};
pub(crate) use daemons::{Answered, Asking, Daemons, Serves};
pub(crate) use doctor::{Check, CheckVerdict, doctor};
pub(crate) use failure::{HostCode, HostFailure};
pub(crate) use import::{Format, Source, import};
pub(crate) use init::{InitOptions, init};
pub(crate) use journal::{Journal, JournalLine, JournalSource};
#[cfg(test)]
pub(crate) use list::LiveRow;
pub(crate) use list::{InstanceRow, list};
pub(crate) use places::Places;
pub(crate) use remove::{RemoveOptions, remove};
pub(crate) use report::HostReport;
pub(crate) use service::{Verb, service};
