//! A thread's connections to one target over HTTP/2.
//!
//! State: owned by this thread. One connection is opened at a time; who needs one meanwhile waits
//! for it, because it has room for many. A connection that the app wants no more streams on (GOAWAY)
//! leaves the list, and what is on it goes on.
//!
//! The order that matters: whoever waits creates its wait first, then looks for room. A dropped
//! waiter passes its wake-up on.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use tokio::sync::Notify;

use super::link::Link;
pub(in crate::proxy) use super::link::{Place, Unopened};
use crate::config::Upstream;
use crate::proxy::target::Permit;
use crate::proxy_header::Introduction;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Links {
    /// Those that take further streams, the oldest first. A request takes the first with room, so
    /// that those that are not needed fall idle.
    list: RefCell<Vec<Rc<Link>>>,
    is_opening: Cell<bool>,
    /// Rings when there may be room.
    changed: Rc<Notify>,
}

impl Links {
    /// A place on a connection that has room, without waiting, if `permit` gives the right to it.
    pub(in crate::proxy) fn at_hand(&self, permit: impl FnOnce() -> Option<Permit>) -> Option<Place> {
        let link = self.with_room()?;
        Some(link.place(permit()?, false))
    }

    /// A place on a connection to `addr`, on a `fresh` one if that is wanted, which says `whose` it
    /// is; the caller has the deadline.
    pub(in crate::proxy) async fn place(
        &self,
        addr: SocketAddr,
        permit: Permit,
        fresh: bool,
        (settings, whose): (&Upstream, Option<Introduction>),
    ) -> Result<Place, Unopened> {
        loop {
            let changed = pin!(self.changed.notified());
            let mut changed = changed;
            changed.as_mut().enable();
            if !fresh && let Some(link) = self.with_room() {
                return Ok(link.place(permit, false));
            }
            if fresh || !self.is_opening.get() {
                let _opening = Opening::begin(self);
                let link = Link::open(addr, (settings, whose), self.changed.clone()).await?;
                if !link.has_room() {
                    let none = "the app takes no stream on a new connection";
                    return Err(Unopened::Io(io::Error::other(none)));
                }
                if settings.keepalive {
                    self.list.borrow_mut().push(link.clone());
                }
                return Ok(link.place(permit, true));
            }
            changed.await;
        }
    }

    /// The first connection with room.
    fn with_room(&self) -> Option<Rc<Link>> {
        let mut list = self.list.borrow_mut();
        list.retain(|link| link.is_open());
        list.iter().find(|link| link.has_room()).cloned()
    }

    /// Whether there is none.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Drops connections that are over, and of those without a stream the ones that were idle since
    /// before `oldest`, or are more than `most`.
    pub(in crate::proxy) fn sweep(&self, oldest: u64, most: usize) {
        let mut idle = 0;
        let mut is_kept = |link: &Rc<Link>| match link.idle_since() {
            _ if !link.is_open() => false,
            None => true,
            Some(since) => {
                idle += 1;
                since >= oldest && idle <= most
            }
        };
        let dropped: Vec<_> = self.list.borrow_mut().extract_if(.., |link| !is_kept(link)).collect();
        drop(dropped);
    }
}

/// A connection is being opened.
struct Opening<'a> {
    links: &'a Links,
    /// Another one was being opened already.
    was: bool,
}

impl<'a> Opening<'a> {
    fn begin(links: &'a Links) -> Self {
        Self { links, was: links.is_opening.replace(true) }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.links.is_opening.set(self.was);
        self.links.changed.notify_waiters();
    }
}
