//! The task that keeps certificates as their files are.
//!
//! State: the [`Keeper`]'s alone, with what was found last and what became of it. It is told of
//! another configuration, looks when files may have changed, and when a certificate expires. It
//! ends when the last [`Certificates`] is dropped. What it decides is the [`Shelf`]'s.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::acme::{AllTold, Orderer, Plan, Told};
use super::face::Face;
use super::files::{Found, Id, Places};
use super::pair::Pair;
use super::server::{Shown, Speaker};
use super::shelf::{Shelf, empty_row};
use super::store::Store;
use super::voice;
use crate::config::watch::Bell;
use crate::config::{Config, TlsVersion};
use crate::wire::{self, CertificateRow, CertificateSource, CertificateState};

/// How long reading all files may take.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// How often the time is looked at: a clock may jump.
const TICK: Duration = Duration::from_secs(60);

/// The certificates of a daemon, for those who ask about them.
#[derive(Debug, Clone)]
pub struct Certificates {
    face: Arc<Face>,
    standing: watch::Receiver<Arc<Standing>>,
    told: watch::Receiver<AllTold>,
    orders: mpsc::Sender<Order>,
    plans: watch::Sender<Option<Plan>>,
}

/// How all certificates stand.
#[derive(Debug, Default)]
struct Standing {
    shelf: Shelf,
    default: Option<String>,
}

/// What a configuration says of certificates.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    places: Places,
    default: Option<String>,
    oldest: TlsVersion,
    /// Whether HTTP/2 is spoken inside.
    http2: bool,
    /// Whether anybody is shown any.
    is_used: bool,
}

/// Has the certificates follow another configuration.
#[derive(Debug)]
struct Order {
    wanted: Wanted,
    done: oneshot::Sender<()>,
}

impl Certificates {
    /// Reads the certificates of `config`, and returns the task that keeps them.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn start(config: &Config) -> Result<(Self, impl Future<Output = ()> + use<>), rustls::Error> {
        let (orders, ordered) = mpsc::channel(1);
        let (told, standing) = watch::channel(Arc::<Standing>::default());
        let (plans, planned) = watch::channel(Plan::of(config));
        let (tell, told_of_acme) = watch::channel(AllTold::default());
        let face = Arc::new(Face::default());
        let mut keeper = Keeper {
            speaker: Speaker::new()?,
            face: Arc::clone(&face),
            told,
            ordered,
            bell: Bell::new("the certificates' folder"),
            wanted: Wanted::of(config),
            found: Arc::default(),
            looking: None,
            shown: None,
        };
        keeper.arm();
        let found = keeper.wanted.places.look(&keeper.found, keeper.speaker.provider());
        keeper.found(found);
        let stands = standing.clone();
        let orderer = Orderer {
            plans: planned,
            face: Arc::clone(&face),
            provider: Arc::clone(keeper.speaker.provider()),
            told: tell,
            has_file: Box::new(move |host| stands.borrow().shelf.has_file_for(host, SystemTime::now())),
        };
        let both = async {
            tokio::join!(keeper.run(), orderer.run());
        };
        Ok((Self { face, standing, told: told_of_acme, orders, plans }, both))
    }

    /// What clients are shown.
    pub fn face(&self) -> Arc<Face> {
        Arc::clone(&self.face)
    }

    /// All certificates with their state, by name.
    pub fn rows(&self) -> Vec<CertificateRow> {
        let standing = self.standing.borrow();
        let mut rows = standing.shelf.rows(standing.default.as_deref(), SystemTime::now());
        for (host, Told { renewal, error }) in &**self.told.borrow() {
            let is_it =
                |row: &&mut CertificateRow| row.source == CertificateSource::Acme && row.name == *host;
            if let Some(row) = rows.iter_mut().find(is_it) {
                row.renew_at = renewal.map(wire::rfc3339);
                row.error = row.error.take().or_else(|| error.clone());
            } else if !standing.shelf.has_file_for(host, SystemTime::now()) {
                let (source, state) = (CertificateSource::Acme, CertificateState::Ordered);
                let (names, error) = (vec![host.clone()], error.clone());
                rows.push(CertificateRow { source, state, names, error, ..empty_row(host.clone()) });
            }
        }
        rows
    }

    /// Follows another configuration, and returns once its certificates are shown.
    pub async fn configure(&self, config: &Config) {
        self.plans.send_if_modified(|plan| {
            let next = Plan::of(config);
            let differs = *plan != next;
            *plan = next;
            differs
        });
        let (done, wait) = oneshot::channel();
        if self.orders.send(Order { wanted: Wanted::of(config), done }).await.is_ok() {
            // It ends with the daemon alone.
            let _ = wait.await;
        }
    }
}

/// The certificates that a daemon with this configuration would have, by the files as they are.
///
/// # Errors
/// The system has no randomness.
pub fn survey(config: &Config) -> Result<Vec<CertificateRow>, rustls::Error> {
    let (speaker, now) = (Speaker::new()?, SystemTime::now());
    let Wanted { places, default, .. } = Wanted::of(config);
    let found = places.look(&Found::default(), speaker.provider());
    Ok(Shelf::default().next(&found, &places, now).rows(default.as_deref(), now))
}

impl Wanted {
    fn of(config: &Config) -> Self {
        Self {
            places: Places::of(config),
            default: config.tls.as_ref().and_then(|tls| tls.default.clone()),
            oldest: config.tls.as_ref().map_or(TlsVersion::V12, |tls| tls.min_version),
            http2: config.proxy.http2,
            is_used: config.tls.is_some(),
        }
    }
}

/// What clients are shown.
struct ShownNow {
    pairs: Vec<(Id, Arc<Pair>)>,
    default: Option<Id>,
    /// The oldest version that is spoken, and whether HTTP/2 is spoken inside.
    spoken: (TlsVersion, bool),
}

impl PartialEq for ShownNow {
    fn eq(&self, other: &Self) -> bool {
        let mut both = self.pairs.iter().zip(&other.pairs);
        (&self.default, self.spoken, self.pairs.len()) == (&other.default, other.spoken, other.pairs.len())
            && both.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1))
    }
}

struct Keeper {
    speaker: Speaker,
    face: Arc<Face>,
    told: watch::Sender<Arc<Standing>>,
    ordered: mpsc::Receiver<Order>,
    bell: Bell,
    wanted: Wanted,
    found: Arc<Found>,
    /// A look that takes too long.
    looking: Option<JoinHandle<Found>>,
    /// What was shown last.
    shown: Option<ShownNow>,
}

impl Keeper {
    async fn run(mut self) {
        enum Turn {
            Ordered(Option<Order>),
            Rung,
            Time,
        }
        loop {
            let wait = self.until_next_change();
            let turn = tokio::select! {
                order = self.ordered.recv() => Turn::Ordered(order),
                () = self.bell.rung(), if self.wanted.is_used => Turn::Rung,
                () = sleep(wait) => Turn::Time,
            };
            match turn {
                Turn::Ordered(None) => return,
                Turn::Ordered(Some(Order { wanted, done })) => {
                    self.wanted = wanted;
                    self.look().await;
                    let _asker_gone = done.send(());
                }
                Turn::Rung => self.look().await,
                Turn::Time => self.settle(),
            }
        }
    }

    /// How long nothing changes by the time alone.
    fn until_next_change(&self) -> Duration {
        let now = SystemTime::now();
        let next = self.told.borrow().shelf.next_change(now);
        let wait = next.and_then(|next| next.duration_since(now).ok());
        wait.map_or(TICK, |wait| wait.min(TICK))
    }

    /// Watches where the files lie. Before a look, so that a later change wakes again.
    fn arm(&mut self) {
        if self.wanted.is_used {
            self.bell.arm(self.wanted.places.way());
        }
    }

    /// Reads the files. Where that takes too long all stays as it is, until it is done.
    async fn look(&mut self) {
        self.arm();
        let (places, before) = (self.wanted.places.clone(), Arc::clone(&self.found));
        let provider = Arc::clone(self.speaker.provider());
        let mut looking = match self.looking.take() {
            Some(looking) if !looking.is_finished() => looking,
            _ => tokio::task::spawn_blocking(move || places.look(&before, &provider)),
        };
        match timeout(LOOK_WITHIN, &mut looking).await {
            Ok(Ok(found)) => self.found(found),
            Ok(Err(error)) => tracing::error!(%error, "the certificates could not be read"),
            Err(_elapsed) => {
                tracing::error!("the certificates could not be read within {LOOK_WITHIN:?}");
                self.looking = Some(looking);
            }
        }
    }

    /// Decides by what was found.
    fn found(&mut self, found: Found) {
        self.found = Arc::new(found);
        self.settle();
    }

    /// Shows what is to be shown by now, and says what has changed.
    fn settle(&mut self) {
        let now = SystemTime::now();
        let before = self.told.borrow().clone();
        let shelf = before.shelf.next(&self.found, &self.wanted.places, now);
        let default = self.wanted.default.clone();
        self.show(&shelf, now);
        let former = before.shelf.rows(before.default.as_deref(), now);
        voice::tell(&former, &shelf.rows(default.as_deref(), now), self.wanted.is_used);
        self.told.send_replace(Arc::new(Standing { shelf, default }));
    }

    /// Shows the certificates to clients.
    fn show(&mut self, shelf: &Shelf, now: SystemTime) {
        let serving = shelf.serving(now);
        let default = self.wanted.default.as_deref().and_then(|name| shelf.named(name)).cloned();
        let is_it = |(id, pair): &(&Id, &Arc<Pair>)| ((*id).clone(), Arc::clone(pair));
        let spoken = (self.wanted.oldest, self.wanted.http2);
        let wanted = ShownNow { pairs: serving.iter().map(is_it).collect(), default, spoken };
        if self.shown.as_ref() == Some(&wanted) {
            return;
        }
        let show = |(id, pair): &(Id, Arc<Pair>)| match self.speaker.show(pair, spoken.0, spoken.1) {
            Ok(shown) => Some((id.clone(), Arc::clone(pair), Arc::new(shown))),
            Err(error) => {
                tracing::error!(certificate = id.name(), %error, "certificate: it cannot be shown");
                None
            }
        };
        let all: Vec<_> = wanted.pairs.iter().filter_map(show).collect();
        let is_default = |(id, ..): &&(Id, Arc<Pair>, Arc<Shown>)| wanted.default.as_ref() == Some(id);
        let default = all.iter().find(is_default).map(|(_, _, shown)| Arc::clone(shown));
        let by_names = all.iter().map(|(_, pair, shown)| (&pair.facts.names[..], Arc::clone(shown)));
        self.face.change(Store::new(by_names, default));
        self.shown = Some(wanted);
    }
}
