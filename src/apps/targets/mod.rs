//! Unmanaged apps with a list of targets: another program runs them, portok moves requests.
//!
//! - [`TargetSet`] is one such app of a file: its targets are probed, join, fail and drain, and an
//!   operator may switch to other ports. `driver` is its task, which owns all of its state and the
//!   one writer of its service's requests; it ends with [`Handle::stop`] or [`Handle::leave`].
//!   `set` decides who serves and `schedule` who is probed when, purely; `voice` logs who is out
//!   and back. `record` is what survives a restart. `handle` is what others see, and `picture` how
//!   the targets are in that, what requests have found out included.
//! - [`Addresses`] is the same without task, probes and record, for apps of which there may be
//!   100,000: whoever has the list hands it over whenever it has changed.
//! - `publisher` makes the proxy's targets of addresses for both.
//!
//! Nobody here starts, signals or stops a process. An edit of the list is no deploy.

mod addresses;
mod driver;
mod handle;
mod picture;
mod publisher;
mod record;
mod schedule;
mod set;
#[cfg(test)]
mod tests;
mod voice;

pub use addresses::{Addresses, Targets};
pub use driver::{Parts, TargetSet};
pub use handle::Handle;
pub(super) use handle::health_of;
pub(super) use schedule::after;
pub use set::may_be_out;
