//! The listening sockets of the daemon: a duplicate of each, as long as connections are accepted.
//!
//! The data plane accepts from duplicates of its own. These are for the service manager, which
//! keeps them, and for a successor.
//!
//! A change of what is listened on has two parts: [`Listeners::prepare`] binds everything that is
//! new, and [`Listeners::change`] accepts there, then leaves what is gone. Whatever can fail fails
//! before anything is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::sync::watch;

use crate::apps::Failures;
use crate::config::{Config, overlaps};
use crate::proxy::{self, ListenerId, Plane};
use crate::systemd::Manager;

/// The most listeners: as many sockets as go to a successor in one message, with the lock and the
/// daemon's standard error.
const MOST: usize = 250;

/// How often an address is tried again that an app cannot have.
pub(super) const AGAIN: Duration = Duration::from_secs(3);

/// How often, and after which time, an address is tried again that was left a moment ago.
const LEFT_BEHIND_FOR: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(100)];

/// A listener and its socket.
pub(super) type Listening = (ListenerId, TcpListener);

/// See the module.
pub(super) struct Listeners {
    /// The instance's first one is the first.
    open: Vec<Listening>,
    /// Where they accept, in the same order.
    bound: watch::Sender<Vec<SocketAddr>>,
    /// The same when it was last logged.
    told: Vec<SocketAddr>,
    /// The addresses of apps' own that cannot be had.
    failed: watch::Sender<Failures>,
    /// Where those accept that were passed to this daemon: others may have these sockets too. What
    /// it has bound itself nobody goes on with once it is left.
    passed: BTreeSet<SocketAddr>,
}

/// What is to be listened on, with a socket for each listener that is new.
pub(super) struct Prepared {
    /// Those that can be had.
    wanted: Vec<ListenerId>,
    new: Vec<Listening>,
    /// The others, and why.
    failed: BTreeMap<ListenerId, io::Error>,
}

impl Prepared {
    /// Binds what is `wanted`, but for what is `open` already, and what was `claimed` for it.
    pub(super) fn bind(wanted: &[ListenerId], open: &[Listening], mut claimed: Vec<Listening>) -> Self {
        let mut prepared = Self { wanted: Vec::new(), new: Vec::new(), failed: BTreeMap::new() };
        let all: Vec<_> = wanted.iter().map(|id| id.addr()).collect();
        for &id in wanted {
            let claimed = claimed.extract_if(.., |(of, _)| *of == id).next().map(|(_, socket)| socket);
            if prepared.wanted.contains(&id) {
                continue;
            }
            match prepared.socket(id, open, claimed, &all) {
                Ok(new) => {
                    prepared.wanted.push(id);
                    prepared.new.extend(new.map(|socket| (id, socket)));
                }
                Err(error) => {
                    prepared.failed.insert(id, error);
                }
            }
        }
        prepared
    }

    /// The socket of a listener; `None`: it is open.
    fn socket(
        &self,
        id: ListenerId,
        open: &[Listening],
        claimed: Option<TcpListener>,
        all: &[SocketAddr],
    ) -> io::Result<Option<TcpListener>> {
        if self.wanted.len() >= MOST {
            return Err(io::Error::other(format!("no more than {MOST} addresses are possible")));
        }
        let addr = id.addr();
        if !id.is_of_the_instance()
            && let Some(instances) = self.instances().find(|instances| overlaps(instances.addr(), addr))
        {
            let key = if matches!(instances, ListenerId::Tls(_)) { "tls.listen" } else { "listen" };
            return Err(io::Error::other(format!("it is the instance's ({key} = \"{}\")", instances.addr())));
        }
        if open.iter().any(|(of, _)| *of == id) {
            return Ok(None);
        }
        // An address that changes hands keeps its socket, with all who wait in its queue.
        let former = open.iter().find(|(of, _)| of.addr() == addr && addr.port() != 0);
        match (claimed, former) {
            (Some(claimed), _) => Ok(Some(claimed)),
            (None, Some((_, former))) => former.try_clone().map(Some),
            (None, None) => proxy::bind_beside(addr, all).map(Some),
        }
    }

    /// The instance's own listeners.
    fn instances(&self) -> impl Iterator<Item = ListenerId> {
        self.wanted.iter().copied().filter(|id| id.is_of_the_instance())
    }

    /// The instance's own address that cannot be had, and why. What an app cannot have is that
    /// app's trouble, and left out.
    pub(super) fn refusal(&mut self) -> Option<(SocketAddr, io::Error)> {
        let id = *self.failed.keys().find(|id| id.is_of_the_instance())?;
        self.failed.remove(&id).map(|error| (id.addr(), error))
    }

    /// Takes the sockets out that apps get for themselves, so that nothing is accepted from them
    /// yet. Their queues take connections.
    pub(super) fn hold_back(&mut self) -> Vec<Listening> {
        let held: Vec<_> = self.new.extract_if(.., |(id, _)| !id.is_of_the_instance()).collect();
        self.wanted.retain(|id| held.iter().all(|(held, _)| held != id));
        held
    }

    /// The addresses that apps cannot have for themselves, each with the reason.
    fn failures(&self) -> Failures {
        let why = |(id, error): (&ListenerId, &io::Error)| {
            let again = humantime::format_duration(AGAIN);
            (id.addr(), format!("cannot listen on {}: {error}; it is tried again every {again}", id.addr()))
        };
        self.failed.iter().map(why).collect()
    }
}

/// What the daemon is to listen on: the instance's addresses in their order, the plain ones first,
/// then those that apps have for themselves.
pub(super) fn wanted(config: &Config, own: &BTreeSet<SocketAddr>) -> Vec<ListenerId> {
    let instances = config.listen.iter().copied().map(ListenerId::Instance);
    let encrypted = config.tls.iter().flat_map(|tls| &tls.listen).copied().map(ListenerId::Tls);
    instances.chain(encrypted).chain(own.iter().copied().map(ListenerId::App)).collect()
}

/// The ports that a configuration names for something else than the apps that portok starts: where
/// portok listens, and where others serve on this host's loopback addresses.
pub(super) fn named_ports(config: &Config) -> BTreeSet<u16> {
    let apps = || config.apps.iter().flat_map(|several| several.apps.values());
    let own = apps().flat_map(|app| &app.routes.listen).copied().chain(config.own_addresses());
    let here = apps().flat_map(|app| app.targets.iter().flatten()).filter(|target| target.ip().is_loopback());
    own.chain(here.copied())
        .map(|addr| addr.port())
        .chain(config.app.app.target)
        .filter(|port| *port != 0)
        .collect()
}

impl Listeners {
    /// Keeps duplicates of the first sockets, and gives them back for the data plane. `passed`:
    /// where those accept that were passed to this daemon.
    ///
    /// # Errors
    /// The kernel's own: descriptors ran out.
    pub(super) fn of(prepared: Prepared, passed: BTreeSet<SocketAddr>) -> io::Result<(Self, Vec<Listening>)> {
        let open = duplicates(&prepared.new)?;
        let told = addresses(&open)?;
        let bound = watch::Sender::new(told.clone());
        let failed = watch::Sender::new(prepared.failures());
        Ok((Self { open, bound, told, failed, passed }, prepared.new))
    }

    /// Where the first listener of the instance accepts.
    pub(super) fn bound(&self) -> SocketAddr {
        self.bound.borrow()[0]
    }

    /// Where all of them accept, that of [`Self::bound`] first.
    pub(super) fn follow(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.bound.subscribe()
    }

    /// The addresses that apps cannot have for themselves, each with the reason.
    pub(super) fn failed(&self) -> watch::Receiver<Failures> {
        self.failed.subscribe()
    }

    /// Binds what is wanted and not open. Nothing changes by it.
    pub(super) fn prepare(&self, wanted: &[ListenerId]) -> Prepared {
        Prepared::bind(wanted, &self.open, Vec::new())
    }

    /// Listens on what is wanted and `bound` already, or can be bound, and leaves what is not
    /// wanted. Addresses of apps' own that cannot be had are noted. Logs where they accept, if that
    /// has changed.
    ///
    /// # Errors
    /// With the address of the instance that nothing can be accepted from. Nothing has changed
    /// then.
    pub(super) async fn arrange(
        &mut self,
        wanted: &[ListenerId],
        bound: Vec<Listening>,
        plane: &Plane,
        manager: &Manager,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let prepared = Prepared::bind(wanted, &self.open, bound);
        let leaves_some = self.open.iter().any(|(id, _)| !wanted.contains(id));
        let in_the_way = leaves_some && !prepared.failed.is_empty();
        let mut failures = self.change(prepared, plane, manager).await?;
        // What has been left may have been in the way, and still be: a child that is just being
        // started has every socket until its execve(2).
        for pause in LEFT_BEHIND_FOR.into_iter().filter(|_| in_the_way) {
            if failures.is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            failures = self.change(self.prepare(wanted), plane, manager).await?;
        }
        self.failed.send_if_modified(|known| {
            let differs = *known != failures;
            *known = failures;
            differs
        });
        if self.told != *self.bound.borrow() {
            self.told.clone_from(&self.bound.borrow());
            tracing::info!("listening on {self}");
        }
        Ok(())
    }

    /// Accepts from what is new, then leaves what is not wanted any more. Returns the addresses
    /// that apps cannot have.
    ///
    /// # Errors
    /// With the address of the instance that nothing can be accepted from. Nothing has changed
    /// then.
    pub(super) async fn change(
        &mut self,
        mut prepared: Prepared,
        plane: &Plane,
        manager: &Manager,
    ) -> Result<Failures, (SocketAddr, io::Error)> {
        let mut kept = listen(&mut prepared, plane).await?;
        let failures = prepared.failures();
        let wanted = prepared.wanted;
        let is_same = kept.is_empty() && self.open.iter().map(|(id, _)| id).eq(&wanted);
        if is_same {
            return Ok(failures);
        }
        self.forget(manager);
        let stay: Vec<_> = self.open.iter().filter(|(id, _)| wanted.contains(id)).chain(&kept).collect();
        let stay: BTreeSet<_> = stay.iter().filter_map(|(_, socket)| socket.local_addr().ok()).collect();
        // An address that changes hands keeps its socket.
        proxy::last_call(&self.own(|addr| !stay.contains(&addr))).await;
        self.passed.retain(|addr| stay.contains(addr));
        for (id, _) in self.open.extract_if(.., |(id, _)| !wanted.contains(id)) {
            plane.leave(id).await;
        }
        kept.append(&mut self.open);
        kept.sort_by_key(|(id, _)| wanted.iter().position(|wanted| wanted == id));
        self.open = kept;
        if let Ok(bound) = addresses(&self.open) {
            self.bound.send_replace(bound);
        }
        self.keep(manager);
        Ok(failures)
    }

    /// Gives all sockets to the service manager.
    pub(super) fn keep(&self, manager: &Manager) {
        for (name, socket) in self.named('-') {
            manager.keep(&name, socket);
        }
    }

    /// Lets the service manager drop what it keeps.
    pub(super) fn forget(&self, manager: &Manager) {
        for (name, _) in self.named('-') {
            manager.forget(&name);
        }
    }

    /// The sockets for a successor, by the names under which they are handed over.
    ///
    /// # Errors
    /// None is open, or the kernel's own.
    pub(super) fn for_successor(&self) -> io::Result<Vec<(String, TcpListener)>> {
        if self.open.is_empty() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.named(':').map(|(name, socket)| Ok((name, socket.try_clone()?))).collect()
    }

    /// Each socket by its name: `listen` is the first, as a socket unit passes it, and any other
    /// has its address behind that, in a form that the service manager allows.
    fn named(&self, between: char) -> impl Iterator<Item = (String, &TcpListener)> {
        self.open.iter().enumerate().map(move |(place, (id, socket))| match place {
            0 => ("listen".to_owned(), socket),
            _ => (format!("listen{between}{}", id.addr().to_string().replace(':', "-")), socket),
        })
    }

    /// The sockets that this daemon has bound itself, of those that `are_meant` by where they
    /// accept.
    fn own(&self, are_meant: impl Fn(SocketAddr) -> bool) -> Vec<&TcpListener> {
        let is_own = |socket: &&TcpListener| {
            socket.local_addr().is_ok_and(|addr| !self.passed.contains(&addr) && are_meant(addr))
        };
        self.open.iter().map(|(_, socket)| socket).filter(is_own).collect()
    }

    /// Lets nobody new in, before the daemon ends and nobody goes on with its sockets. A service
    /// manager may have them for the next daemon.
    pub(super) async fn last_call(&self, manager: &Manager) {
        if !manager.listens() {
            proxy::last_call(&self.own(|_| true)).await;
        }
    }

    /// Closes the sockets. As long as one is open, its queue takes connections.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }
}

impl fmt::Display for Listeners {
    /// Where they accept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.bound.borrow().iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

/// Accepts from all that is new, or from none; but for the addresses that an app cannot have, which
/// become failures. Returns duplicates.
async fn listen(prepared: &mut Prepared, plane: &Plane) -> Result<Vec<Listening>, (SocketAddr, io::Error)> {
    let mut kept: Vec<Listening> = Vec::new();
    for (id, socket) in std::mem::take(&mut prepared.new) {
        let accepting = match socket.try_clone() {
            Ok(duplicate) => plane.listen(id, socket).await.map(|()| duplicate),
            Err(error) => Err(error),
        };
        match (accepting, id) {
            (Ok(duplicate), _) => kept.push((id, duplicate)),
            (Err(error), ListenerId::App(_)) => {
                prepared.wanted.retain(|wanted| *wanted != id);
                prepared.failed.insert(id, error);
            }
            (Err(error), ListenerId::Instance(addr) | ListenerId::Tls(addr)) => {
                for (begun, _) in kept {
                    plane.leave(begun).await;
                }
                return Err((addr, error));
            }
        }
    }
    Ok(kept)
}

fn duplicates(sockets: &[Listening]) -> io::Result<Vec<Listening>> {
    sockets.iter().map(|(id, socket)| Ok((*id, socket.try_clone()?))).collect()
}

fn addresses(sockets: &[Listening]) -> io::Result<Vec<SocketAddr>> {
    sockets.iter().map(|(_, socket)| socket.local_addr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn bound(prepared: &Prepared) -> Vec<SocketAddr> {
        prepared.new.iter().map(|(_, socket)| socket.local_addr().unwrap()).collect()
    }

    #[test]
    fn an_address_that_an_app_cannot_have_holds_up_nobody_else() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap();
        let any = addr("127.0.0.1:0");
        let wanted = [ListenerId::Instance(any), ListenerId::App(taken), ListenerId::App(any)];
        let mut prepared = Prepared::bind(&wanted, &[], Vec::new());
        assert!(prepared.refusal().is_none());
        assert_eq!(prepared.failures().into_keys().collect::<Vec<_>>(), [taken]);
        assert_eq!(bound(&prepared).len(), 2);
        let mut refused = Prepared::bind(&[ListenerId::Instance(taken)], &[], Vec::new());
        assert_eq!(refused.refusal().unwrap().0, taken);
    }

    #[test]
    fn an_address_that_changes_hands_keeps_its_socket() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let open = [(ListenerId::Instance(addr), socket)];
        let mut prepared = Prepared::bind(&[ListenerId::App(addr)], &open, Vec::new());
        assert!(prepared.refusal().is_none() && prepared.failed.is_empty());
        assert_eq!(bound(&prepared), [addr]);
        assert!(Prepared::bind(&[ListenerId::Instance(addr)], &open, Vec::new()).new.is_empty());
    }

    #[test]
    fn what_the_instance_listens_on_is_no_app_s() {
        let any = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = any.local_addr().unwrap().port();
        let [all, here] = ["0.0.0.0", "127.0.0.1"].map(|ip| addr(&format!("{ip}:{port}")));
        drop(any);
        let prepared = Prepared::bind(&[ListenerId::Instance(all), ListenerId::App(here)], &[], Vec::new());
        assert_eq!(bound(&prepared), [all]);
        assert!(prepared.failures()[&here].contains("it is the instance's"), "{:?}", prepared.failed);
    }

    #[test]
    fn sockets_of_apps_are_held_back_and_used_later() {
        let any = addr("127.0.0.1:0");
        let wanted = [ListenerId::Instance(any), ListenerId::App(any)];
        let mut prepared = Prepared::bind(&wanted, &[], Vec::new());
        let own = bound(&prepared)[1];
        let held = prepared.hold_back();
        assert_eq!((bound(&prepared).len(), held.len()), (1, 1));
        assert_eq!(prepared.wanted, [ListenerId::Instance(any)]);
        let prepared = Prepared::bind(&wanted, &prepared.new, held);
        assert_eq!(bound(&prepared), [own]);
    }

    #[test]
    fn both_families_can_have_one_port() {
        let free = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let both = [addr(&format!("0.0.0.0:{free}")), addr(&format!("[::]:{free}"))];
        let mut prepared = Prepared::bind(&both.map(ListenerId::Instance), &[], Vec::new());
        assert!(prepared.refusal().is_none(), "{:?}", prepared.failed);
        assert_eq!(bound(&prepared), both);
    }

    #[test]
    fn there_are_no_more_than_can_be_handed_over() {
        let any: Vec<_> = (1..=254).map(|last| ListenerId::App(([127, 0, 0, last], 0).into())).collect();
        let prepared = Prepared::bind(&any, &[], Vec::new());
        assert_eq!((prepared.new.len(), prepared.failed.len()), (MOST, 254 - MOST));
    }
}
