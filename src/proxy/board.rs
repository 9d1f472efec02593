//! The board: where requests go now, and by which configuration they are served.
//!
//! State: an epoch, and the pointers that it covers: the configuration, which the
//! [`Plane`](super::Plane) writes; which services there are and the routes to them, which whoever
//! keeps the apps writes; and each service's [`Now`], which its [`RouteWriter`] writes. Every
//! data-plane thread reads them through a view of its own (`here.rs`), without a lock. The board
//! lives as long as anybody uses it.
//!
//! A daemon with one app has one service, which gets every request; nothing is looked up for them.
//! A daemon with several apps has a service for each and the routes to them; what would be the one
//! app's service stands for requests that have no app.
//!
//! The orderings that matter:
//! - *publish*: the pointer is stored, then the epoch is counted up, and only then is a former
//!   target retired or closed;
//! - *look*: the epoch is read first, the pointers after it, and the view keeps the epoch that was
//!   read. A pointer stored in between is at most newer than the view's epoch, so the next look
//!   reads it again;
//! - *claim*: a view may still name a former target. It refuses the claim once it is retired or
//!   closed, and whoever sees that flag also sees the epoch that was counted up before it: the look
//!   that follows finds the new pointer.
//!
//! That an app is held and that it serves are values of one pointer, so nobody sees neither of them
//! while one follows the other.
//!
//! What an operator puts in the way of an app's requests ([`Bar`]) stands before where they go: the
//! writer keeps both, and publishes what follows from them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;

use super::address::ListenerId;
use super::bells::Doorbells;
use super::counters::{Counters, ServiceCounters};
use super::crowd::Crowd;
use super::hold::Waiting;
use super::routes::{At, Route, Routes};
use super::spread::Spread;
use super::target::Target;
use super::tiers::Clients;
use crate::access::Recorder;
use crate::config::{Affinity, AppConfig, Config};
use crate::tls::Face;
use crate::wire::Traffic;

/// Where a service's requests go now.
///
/// A single target is the fast path and never pays for several: whoever publishes one member of a
/// set publishes [`Now::One`], unless client connections may be pinned to the set
/// (`drain.affinity`).
#[derive(Debug)]
pub enum Now {
    /// Nowhere: a request gets 503.
    Empty,
    /// The next target is near: a request waits for it, up to the connect timeout, then gets 503.
    /// Published while a crashed app is started again, because its port may be anybody's meanwhile.
    Near,
    /// The app takes none for now: requests are held, within the bounds of `[hold]`.
    Held(Held),
    /// Nowhere, by an operator's word: every request gets this answer.
    Maintenance(Arc<Maintenance>),
    /// To this target. Each tenure has a target of its own: one that was retired or closed is never
    /// published again.
    One(Arc<Target>),
    /// Each to one of several targets. Without members, nothing serves.
    Spread(Arc<Spread>),
}

/// Which requests are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// All of them, those of clients too that are pinned to a target that drains.
    All,
    /// Those that no target is there for.
    Unpinned,
}

/// What every request of an app is answered in maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// The status.
    pub status: u16,
    /// A page in HTML; `None`: portok's own answer.
    pub page: Option<Bytes>,
}

/// What an operator has put in the way of an app's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bar {
    /// They wait.
    Pause,
    /// They are all answered with this.
    Maintenance(Arc<Maintenance>),
}

/// An app as the data plane knows it.
#[derive(Debug)]
pub struct Service {
    /// `None`: the configuration's own app.
    config: Option<ArcSwap<AppConfig>>,
    now: ArcSwap<Now>,
    counters: Arc<ServiceCounters>,
    /// Made when a thread first sees the service: nobody ever asks for most of very many.
    crowd: OnceLock<Arc<Crowd>>,
    /// Made when a request of an app with tiers first comes.
    clients: OnceLock<Box<Clients>>,
    /// Made when a request first waits.
    waiting: OnceLock<Arc<Waiting>>,
}

impl Service {
    fn new(config: Option<Arc<AppConfig>>, counters: Arc<ServiceCounters>) -> Arc<Self> {
        let (config, now) = (config.map(ArcSwap::new), ArcSwap::from_pointee(Now::Empty));
        let (crowd, clients, waiting) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Arc::new(Self { config, now, counters, crowd, clients, waiting })
    }

    /// The app's configuration; `whole` is the daemon's. Part of a look.
    pub(super) fn config(&self, whole: &Config) -> Arc<AppConfig> {
        self.config.as_ref().map_or_else(|| Arc::clone(&whole.app), ArcSwap::load_full)
    }

    /// The name of the app that it is; `None`: the one of an instance.
    pub(super) fn name(&self) -> Option<String> {
        Some(self.config.as_ref()?.load().name.clone())
    }

    /// What its requests stay with; `whole` is the daemon's configuration.
    pub(super) fn affinity(&self, whole: &Config) -> Affinity {
        self.config.as_ref().map_or(whole.app.drain.affinity, |config| config.load().drain.affinity)
    }

    /// Where its requests go now. Part of a look: the epoch is read before.
    pub(super) fn now(&self) -> Arc<Now> {
        self.now.load_full()
    }

    /// The counters of its requests.
    pub fn counters(&self) -> &Arc<ServiceCounters> {
        &self.counters
    }

    /// How many of its requests wait to be let go.
    pub fn waiting(&self) -> usize {
        self.waiting.get().map_or(0, |waiting| waiting.requests())
    }

    /// Its requests that wait, over all threads.
    pub(super) fn queued(&self) -> &Arc<Waiting> {
        self.waiting.get_or_init(Arc::default)
    }

    /// Whose requests it has under way.
    pub(super) fn crowd(&self) -> &Arc<Crowd> {
        self.crowd.get_or_init(|| Crowd::of(self.name()))
    }

    /// Whose requests its tiers count.
    pub(super) fn clients(&self) -> &Clients {
        self.clients.get_or_init(Box::default)
    }
}

/// Where a route leads.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The app. Its requests are counted, and held to its limits, here.
    pub service: Arc<Service>,
    /// What becomes of them.
    pub how: Handling,
}

impl PartialEq for Destination {
    /// Whether both lead to one service, in one way.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.service, &other.service) && self.how == other.how
    }
}

impl Eq for Destination {}

impl Destination {
    /// To the app, as they are.
    pub fn pass(service: Arc<Service>) -> Self {
        Self { service, how: Handling::Pass }
    }
}

/// What becomes of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handling {
    /// They go to the app as they are.
    Pass,
    /// They go to the app without the route's path at the beginning of theirs.
    StripPrefix,
    /// The app is not asked: they are answered with 308 to this scheme and authority, and their own
    /// path and query.
    Redirect(Arc<str>),
}

/// A destination as it is found for a request.
#[derive(Debug)]
pub(super) struct Found {
    /// The service's place.
    pub(super) place: usize,
    pub(super) how: Way,
}

/// [`Handling`], prepared.
#[derive(Debug)]
pub(super) enum Way {
    /// To the app, without so many bytes at the beginning of the path.
    App {
        cut: usize,
    },
    Redirect(Arc<str>),
}

impl Way {
    fn of(at: &At, how: Handling) -> Self {
        match (how, at) {
            (Handling::Redirect(to), _) => Self::Redirect(to),
            // The slash at the end of a path is the beginning of the rest.
            (Handling::StripPrefix, At::Instance { path, .. }) => {
                Self::App { cut: path.trim_end_matches('/').len() }
            }
            (Handling::StripPrefix | Handling::Pass, _) => Self::App { cut: 0 },
        }
    }
}

/// The services of several apps, and the routes to them.
#[derive(Debug)]
pub(super) struct Services {
    services: Vec<Arc<Service>>,
    routes: Routes<Found>,
}

impl Services {
    fn new(routes: Vec<Route<Destination>>) -> Self {
        let mut services: Vec<Arc<Service>> = Vec::new();
        let mut places = HashMap::new();
        let routes = Routes::new(routes.into_iter().map(|Route { at, to: Destination { service, how } }| {
            let place = *places.entry(Arc::as_ptr(&service)).or_insert(services.len());
            if place == services.len() {
                services.push(service);
            }
            let how = Way::of(&at, how);
            Route { at, to: Found { place, how } }
        }));
        Self { services, routes }
    }

    /// Where a request goes: see [`Routes::find`].
    pub(super) fn find<'h>(
        &self,
        listener: &ListenerId,
        host: impl FnOnce() -> Option<&'h [u8]>,
        path: &[u8],
    ) -> Option<&Found> {
        self.routes.find(listener, host, path)
    }

    /// Whether any connection of TLS goes on as it is.
    pub(super) fn has_names(&self) -> bool {
        self.routes.has_names()
    }

    /// Where a connection of TLS goes on as it is: see [`Routes::named`].
    pub(super) fn named(&self, name: &[u8]) -> Option<&Found> {
        self.routes.named(name)
    }

    /// The service at a place that was found.
    pub(super) fn at(&self, place: usize) -> &Arc<Service> {
        &self.services[place]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }
}

/// Of more services than this, whoever publishes lets go last: that takes long, and a request of
/// the thread that did it would wait meanwhile.
const MANY: usize = 1000;

/// What all data-plane threads read.
#[derive(Debug)]
pub struct Board {
    epoch: AtomicU64,
    config: ArcSwap<Config>,
    /// Takes what the access log says of requests.
    recorder: ArcSwapOption<Recorder>,
    own: Arc<Service>,
    services: ArcSwapOption<Services>,
    /// Former services that a thread may still have, where they are [many](MANY).
    former: Mutex<Vec<Arc<Services>>>,
    /// The bytes of all requests that wait.
    held_bytes: AtomicU64,
    /// How the threads are woken, once there are some.
    bells: OnceLock<Arc<Doorbells>>,
    /// What clients are shown over TLS.
    face: OnceLock<Arc<Face>>,
}

impl Board {
    /// A board with one service, whose requests go nowhere yet, and that service's only writer.
    pub fn new(config: Arc<Config>, counters: Arc<ServiceCounters>) -> (Arc<Self>, RouteWriter) {
        let own = Service::new(None, counters);
        let board = Arc::new(Self {
            epoch: AtomicU64::new(0),
            config: ArcSwap::new(config),
            recorder: ArcSwapOption::empty(),
            own: own.clone(),
            services: ArcSwapOption::empty(),
            former: Mutex::default(),
            held_bytes: AtomicU64::new(0),
            bells: OnceLock::new(),
            face: OnceLock::new(),
        });
        (board.clone(), RouteWriter::new(board, own))
    }

    /// Makes the service of one app of several, whose requests go nowhere yet, and its only writer.
    /// It gets requests once it is among the [routes](Self::route). `counters` are those of the
    /// plane; the service has its own among them.
    pub fn add(self: &Arc<Self>, config: Arc<AppConfig>, counters: &Counters) -> (Arc<Service>, RouteWriter) {
        self.add_counted(config, counters.apart())
    }

    /// The same for an app whose requests are counted with those of others.
    pub fn add_counted(
        self: &Arc<Self>,
        config: Arc<AppConfig>,
        counters: Arc<ServiceCounters>,
    ) -> (Arc<Service>, RouteWriter) {
        let service = Service::new(Some(config), counters);
        (service.clone(), RouteWriter::new(self.clone(), service))
    }

    /// Another writer for a service whose former one is gone, because who had it ended by a fault.
    pub fn write_again(self: &Arc<Self>, service: &Arc<Service>) -> RouteWriter {
        RouteWriter::new(self.clone(), service.clone())
    }

    /// Publishes the routes to the services of several apps: every look from now on finds them. A
    /// request that has no route gets 404. Of two routes for the same requests the first counts.
    /// The first call makes the board one of several apps for ever; it belongs before the start of
    /// the [`Plane`](super::Plane).
    pub fn route(&self, routes: Vec<Route<Destination>>) {
        let former = self.services.swap(Some(Arc::new(Services::new(routes))));
        self.advance();
        // Plain values, whole at every moment.
        let mut kept = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|services| Arc::strong_count(services) > 1);
        kept.extend(former.filter(|former| former.len() > MANY));
    }

    /// Counts what was published. A request pays for this load and a comparison.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The one service; with several apps that of requests without a route.
    pub fn own(&self) -> &Arc<Service> {
        &self.own
    }

    /// The services of several apps. `None`: there is one app.
    pub(super) fn services(&self) -> Option<Arc<Services>> {
        self.services.load_full()
    }

    /// Has requests recorded by `recorder`, from the next [configuration](Self::configure) on.
    pub fn record(&self, recorder: Option<Arc<Recorder>>) {
        self.recorder.store(recorder);
    }

    /// Who takes what the access log says of requests. Part of a look.
    pub(super) fn recorder(&self) -> Option<Arc<Recorder>> {
        self.recorder.load_full()
    }

    /// Publishes `config`: every look from now on finds it.
    pub(super) fn configure(&self, config: Arc<Config>) {
        self.config.store(config);
        self.advance();
    }

    /// Publishes the configuration of one app of several.
    pub fn configure_app(&self, service: &Service, config: Arc<AppConfig>) {
        if let Some(former) = &service.config {
            former.store(config);
        }
        self.advance();
    }

    fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Shows clients `face` over TLS. Before there is a plane.
    pub fn show(&self, face: Arc<Face>) {
        let _it_is_the_daemon_s = self.face.set(face);
    }

    /// What clients are shown over TLS.
    pub(super) fn face(&self) -> &Arc<Face> {
        self.face.get_or_init(Arc::default)
    }

    /// Has the threads woken by `bells` when what requests wait for may have come.
    pub(super) fn hang(&self, bells: Arc<Doorbells>) {
        let _there_is_one_plane = self.bells.set(bells);
    }

    /// The bytes of all requests that wait.
    pub(super) fn held_bytes(&self) -> &AtomicU64 {
        &self.held_bytes
    }
}

/// Writes where the requests of one service go. There is one per service and it cannot be cloned.
#[derive(Debug)]
pub struct RouteWriter {
    board: Arc<Board>,
    service: Arc<Service>,
    /// Where they go unless something is in the way.
    meant: Arc<Now>,
    bar: Option<Bar>,
}

impl RouteWriter {
    fn new(board: Arc<Board>, service: Arc<Service>) -> Self {
        let meant = service.now();
        Self { board, service, meant, bar: None }
    }

    /// The service that it writes.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Publishes `now` and returns the one target that it replaces, which is neither retired nor
    /// closed yet: the caller decides which (`retire` after a switch, `close` after a rollback).
    /// Whoever published several knows which of them are over.
    ///
    /// What is in the way of the requests stays there: `now` is in force once it is taken away.
    pub fn set(&mut self, now: Now) -> Option<Arc<Target>> {
        let former = std::mem::replace(&mut self.meant, Arc::new(now));
        self.publish();
        match &*former {
            Now::One(target) => Some(target.clone()),
            _ => None,
        }
    }

    /// Puts `bar` in the way of the requests, or takes away what is; where they are meant to go
    /// does not change.
    pub fn bar(&mut self, bar: Option<Bar>) {
        if self.bar != bar {
            self.bar = bar;
            self.publish();
        }
    }

    /// What becomes of requests now.
    pub fn traffic(&self) -> Traffic {
        match (&self.bar, &*self.meant) {
            (Some(Bar::Maintenance(_)), _) => Traffic::Maintenance,
            (Some(Bar::Pause), _) | (None, Now::Held(_)) => Traffic::Held,
            (None, _) => Traffic::Open,
        }
    }

    /// Whether requests go nowhere, unless something is in the way.
    pub fn is_empty(&self) -> bool {
        matches!(*self.meant, Now::Empty)
    }

    /// How many requests wait to be let go.
    pub fn waiting(&self) -> usize {
        self.service.waiting()
    }

    /// Waits until a request has begun to wait since the last call. Cancel safe.
    pub async fn asked(&self) {
        self.service.queued().asked().await;
    }

    fn publish(&self) {
        let now = match &self.bar {
            None => self.meant.clone(),
            Some(Bar::Pause) => Arc::new(Now::Held(Held::All)),
            Some(Bar::Maintenance(answer)) => Arc::new(Now::Maintenance(answer.clone())),
        };
        self.service.now.store(now);
        self.board.advance();
        // A request counts itself before it looks for the last time, so it is seen here or sees
        // what is published.
        if self.service.waiting() > 0
            && let Some(bells) = self.board.bells.get()
        {
            bells.ring_all();
        }
    }
}
