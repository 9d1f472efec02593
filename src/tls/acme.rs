//! Certificates that come by themselves (ACME, RFC 8555).
//!
//! One task orders them, one after another, when the [`schedule`] says so, and puts them into a
//! folder of its own ([`record`]); the keeper finds them there as it finds an operator's. What the
//! server wants as a proof the data plane gives it ([`challenges`]). A failure is logged, shown, and
//! tried again later; whatever serves goes on.
//!
//! State: the task's alone. It hears of another configuration, and looks at the clock at least once
//! a minute. It ends with the daemon; an order that is under way is given up then, and made anew by
//! the next daemon. Without `[tls.acme]` it waits for a configuration that has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::{Account, CertificateIdentifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;

use self::client::Failed;
use self::record::{Home, Record, StoredHost};
use self::schedule::{Host, Life};
use super::face::Face;
use super::pair::Pair;
use crate::config::{Acme, Config, Hosts};

pub(super) use self::record::file_of;

pub(super) mod challenges;
mod client;
mod record;
mod schedule;

/// How often the clock is looked at: it may jump.
const TICK: Duration = Duration::from_secs(60);

/// What a configuration says of ACME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    acme: Acme,
    pub(super) hosts: BTreeSet<String>,
    /// Where the certificates are kept.
    pub(super) folder: PathBuf,
}

impl Plan {
    pub(super) fn of(config: &Config) -> Option<Self> {
        let acme = config.tls.as_ref()?.acme.clone()?;
        let mut hosts: BTreeSet<String> = acme.hosts.iter().cloned().collect();
        if hosts.is_empty() {
            let several = config.apps.iter().flat_map(|several| several.apps.values());
            // An app that speaks TLS itself has certificates of its own.
            let routes = several.chain([&config.app]).map(|app| &app.routes);
            let named = routes.filter(|routes| !routes.passthrough).flat_map(|routes| &routes.hosts);
            // No server vouches for an address, or for a name without a dot.
            hosts.extend(named.filter_map(|hosts| match hosts {
                Hosts::Exact(host) if host.as_str().contains('.') && !host.is_address() => {
                    Some(host.as_str().to_owned())
                }
                Hosts::Exact(_) | Hosts::Below(_) | Hosts::Any => None,
            }));
        }
        Some(Self { acme, hosts, folder: config.state_file.with_extension("acme") })
    }
}

/// What there is to say of a host beside its certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// When its certificate is to be renewed.
    pub(super) renewal: Option<SystemTime>,
    /// Why the last order failed.
    pub(super) error: Option<String>,
}

/// What there is to say of all hosts.
pub(super) type AllTold = Arc<BTreeMap<String, Told>>;

/// The task and what it needs.
pub(super) struct Orderer {
    pub(super) plans: watch::Receiver<Option<Plan>>,
    pub(super) face: Arc<Face>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) told: watch::Sender<AllTold>,
    /// Whether an operator's certificate is for this host.
    pub(super) has_file: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Order(String),
    Ask(String),
    /// Nothing, before so many seconds have passed.
    Nothing(u64),
}

impl Orderer {
    pub(super) async fn run(mut self) {
        loop {
            let plan = self.plans.borrow_and_update().clone();
            let changed = match plan {
                None => {
                    self.told.send_replace(Arc::default());
                    self.plans.changed().await
                }
                Some(plan) => {
                    let mut plans = self.plans.clone();
                    tokio::select! {
                        changed = plans.changed() => changed,
                        () = self.follow(plan) => return,
                    }
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Does what is due, again and again.
    async fn follow(&self, plan: Plan) {
        let mut work = loop {
            match Work::begin(plan.clone(), &self.provider) {
                Ok(work) => break work,
                Err(error) => {
                    let told = Told { renewal: None, error: Some(error) };
                    let all: BTreeMap<_, _> =
                        plan.hosts.iter().map(|host| (host.clone(), told.clone())).collect();
                    if **self.told.borrow() != all {
                        let why = told.error.unwrap_or_default();
                        tracing::error!("certificates do not come by themselves: {why}; it is tried again");
                        self.told.send_replace(Arc::new(all));
                    }
                    tokio::time::sleep(TICK).await;
                }
            }
        };
        loop {
            let now = now();
            self.told.send_replace(Arc::new(work.told()));
            match work.due(now, &self.has_file) {
                Due::Nothing(seconds) => {
                    tokio::time::sleep(Duration::from_secs(seconds.max(1)).min(TICK)).await;
                }
                Due::Order(host) => {
                    let outcome = work.order(&host, now, &self.face, &self.provider).await;
                    work.ordered(&host, outcome);
                }
                Due::Ask(host) => work.ask(&host, now).await,
            }
        }
    }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All that is known while one plan is followed.
struct Work {
    plan: Plan,
    home: Home,
    record: Record,
    lives: BTreeMap<String, Life>,
    account: Option<Account>,
}

impl Work {
    fn begin(plan: Plan, provider: &CryptoProvider) -> Result<Self, String> {
        let home = Home(plan.folder.clone());
        let mut record = home.open().map_err(|error| format!("{}: {error}", plan.folder.display()))?;
        if record.directory != plan.acme.directory {
            // What another server refused or suggested is nothing to this one.
            record.hosts.clear();
            record.directory = plan.acme.directory.clone();
        }
        let life = |host: &String| Some((host.clone(), life_of(&home.pair(host)?, provider)?));
        let lives = plan.hosts.iter().filter_map(life).collect();
        Ok(Self { home, record, lives, account: None, plan })
    }

    fn host(&self, host: &str) -> Host {
        let stored = self.record.hosts.get(host).cloned().unwrap_or_default();
        let StoredHost { failures, failed, limited, asked, suggested, .. } = stored;
        Host { life: self.lives.get(host).copied(), suggested, asked, failures, failed, limited }
    }

    /// What there is to say of each host.
    fn told(&self) -> BTreeMap<String, Told> {
        let told = |host: &String| {
            let known = self.host(host);
            let renewal = known.life.map(|_| UNIX_EPOCH + Duration::from_secs(known.renewal()));
            let error = self.record.hosts.get(host).and_then(|stored| stored.error.clone());
            (host.clone(), Told { renewal, error })
        };
        self.plan.hosts.iter().map(told).collect()
    }

    /// What is to be done first. A host for which an operator has put a certificate needs no other.
    fn due(&self, now: u64, has_file: impl Fn(&str) -> bool) -> Due {
        let hosts: Vec<_> = self.plan.hosts.iter().filter(|host| !has_file(host)).collect();
        let first = |moment: &dyn Fn(&str) -> Option<u64>| {
            hosts.iter().filter_map(|host| Some((moment(host)?, *host))).min()
        };
        let may_order = schedule::next_order(now, &self.record.orders);
        let order = first(&|host| Some(self.host(host).due(now).max(may_order)));
        let question = first(&|host| self.host(host).question(now));
        match (order, question) {
            (Some((at, host)), _) if at <= now => Due::Order(host.clone()),
            (_, Some((at, host))) if at <= now => Due::Ask(host.clone()),
            (order, question) => {
                let next = order.into_iter().chain(question).map(|(at, _)| at).min();
                Due::Nothing(next.map_or(TICK.as_secs(), |next| next - now))
            }
        }
    }

    /// The account at the server.
    async fn account(&mut self) -> Result<Account, Failed> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let (account, new) = client::account(&self.plan.acme, self.record.account.as_ref()).await?;
        if let Some(new) = new {
            self.record.account = Some(new);
            self.save();
        }
        self.account = Some(account.clone());
        Ok(account)
    }

    async fn order(
        &mut self,
        host: &str,
        now: u64,
        face: &Face,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Life, Failed> {
        let account = self.account().await?;
        // Before it is made: a daemon that is killed in the middle has made it.
        self.record.orders.retain(|at| schedule::counts(now, *at));
        self.record.orders.push(now);
        self.save();
        // A server takes one certificate for another once: after a failure that may have happened.
        let known = self.host(host);
        let former = known.suggested.filter(|_| known.failures == 0).and_then(|_| self.identifier(host));
        let what = (host, self.plan.acme.challenge);
        let issued = client::order(&account, what, former, (face.challenges(), provider)).await?;
        let life = life_of(issued.as_file().as_bytes(), provider)
            .ok_or_else(|| Failed::from("the server sends a certificate that cannot be used".to_owned()))?;
        let kept = self.home.keep(host, &issued);
        kept.map_err(|error| Failed::from(format!("the certificate cannot be kept: {error}")))?;
        Ok(life)
    }

    /// Notes how an order went.
    fn ordered(&mut self, host: &str, outcome: Result<Life, Failed>) {
        let stored = self.record.hosts.entry(host.to_owned()).or_default();
        match outcome {
            Ok(life) => {
                *stored = StoredHost::default();
                self.lives.insert(host.to_owned(), life);
                tracing::info!(host, "a certificate has come");
            }
            Err(Failed { why, limited }) => {
                stored.failures = stored.failures.saturating_add(1);
                (stored.failed, stored.limited) = (now(), limited);
                stored.error = Some(why.clone());
                // Another account may be needed; a fault of the network costs one more question.
                self.account = None;
                let wait = self.host(host).due(now()).saturating_sub(now());
                let wait = humantime::format_duration(Duration::from_secs(wait));
                tracing::error!(host, "no certificate has come: {why}; it is tried again in {wait}");
            }
        }
        self.save();
    }

    /// Asks the server when the certificate of `host` is to be renewed.
    async fn ask(&mut self, host: &str, now: u64) {
        let answer = match (self.account().await, self.identifier(host)) {
            (Ok(account), Some(certificate)) => client::renewal(&account, &certificate).await,
            (Err(failed), _) => Err(failed),
            (_, None) => Ok(None),
        };
        let stored = self.record.hosts.entry(host.to_owned()).or_default();
        stored.asked = Some(now);
        match answer {
            Ok(suggested) => stored.suggested = suggested,
            Err(failed) => tracing::debug!(host, "the server tells nothing of the renewal: {failed}"),
        }
        self.save();
    }

    /// By what the server knows the certificate of `host`.
    fn identifier(&self, host: &str) -> Option<CertificateIdentifier<'static>> {
        let certificate = CertificateDer::from_pem_slice(&self.home.pair(host)?).ok()?;
        CertificateIdentifier::try_from(&certificate).ok().map(CertificateIdentifier::into_owned)
    }

    fn save(&self) {
        if let Err(error) = self.home.save(&self.record) {
            tracing::error!("{}: the record of ACME cannot be written: {error}", self.home.0.display());
        }
    }
}

/// From when until when the pair in a file holds; `None`: it is none.
fn life_of(file: &[u8], provider: &CryptoProvider) -> Option<Life> {
    let facts = Pair::read(file, file, provider).ok()?.facts;
    Some(Life { begins: seconds(facts.not_before), ends: seconds(facts.not_after) })
}
