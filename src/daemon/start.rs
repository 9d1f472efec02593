//! How a daemon begins: its place, the long-lived tasks, and the order among them.
//!
//! The orderings that matter: the place and what the data plane needs before anything is started,
//! the records before the first request. A failure on the way ends the process. A
//! successor that fails leaves the apps to the daemon before it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::access_log::AccessLog;
use super::admin_server::AdminServer;
use super::background::Background;
use super::configuration::Configuration;
use super::listeners::{self, Listeners};
use super::place::Place;
use super::signals::Signals;
use super::succession::Predecessor;
use super::successor::Program;
use super::{Daemon, Foreground, Options, StartError, complain, handover, upkeep};
use crate::admin;
use crate::apps::{self, Apps, Waiting};
use crate::config::Config;
use crate::config::watch::Watch;
use crate::hooks;
use crate::logging;
use crate::proxy::{self, Plane};
use crate::release::records::Records;
use crate::supervisor::{self, Sink};
use crate::systemd::{Manager, Passed};
use crate::tls::Certificates;

/// How long a first probe of an unmanaged app may hold back the first request.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// The same for a successor, while the daemon before it still answers.
const FIRST_PROBE_OF_A_SUCCESSOR: Duration = Duration::from_secs(15);

/// What a daemon gets from whoever started it.
pub(super) struct Inheritance {
    pub(super) passed: Passed,
    /// The daemon that it succeeds.
    pub(super) predecessor: Option<Predecessor>,
    /// How it was started.
    pub(super) program: Option<Program>,
}

impl Daemon {
    pub(super) async fn start(
        options: Options,
        config: Config,
        watch: Option<Watch>,
        inheritance: Inheritance,
    ) -> Result<Self, StartError> {
        let Inheritance { passed, mut predecessor, program } = inheritance;
        let Options { sources, foreground } = options;
        // Some apps are as they were configured last.
        let look_again = !sources.kept.is_empty();
        make_unreadable();
        let open_files = open_files_of_apps(predecessor.is_some());
        let signals = Signals::catch(foreground.is_some())?;
        let manager =
            Manager::from_env().map_err(StartError::io("start the thread that tells the service manager"))?;
        let Place { records, sockets, listeners, stale } =
            Place::take(passed, predecessor.as_mut(), &config).await?;
        let lock = records.lock();
        let alone = CancellationToken::new();
        if predecessor.is_none() {
            keep(&manager, &listeners, &stale);
            alone.cancel();
        }
        let common = Arc::new(common(&config, foreground.is_some(), open_files)?);
        common.avoid(listeners::named_ports(&config));
        let counters = proxy::Counters::new(config.proxy.threads);
        let access = AccessLog::open(&config.access, &counters)?;
        let configuration = Configuration::new(sources, config);
        let mut background = Background::new();
        let (fresh, control) = (foreground.is_some(), (&configuration, &mut background, alone.clone()));
        let (board, apps, waiting) =
            apps_of(control, records, Arc::clone(&common), &listeners, &counters, fresh).await?;
        let certificates = certificates(&configuration.current(), &mut background)?;
        board.show(certificates.face());
        let bind = if predecessor.is_some() { admin::replace_socket } else { admin::bind_socket };
        let (listen, shown) = (listeners.follow(), &certificates);
        let admin = AdminServer::open(&configuration, &apps, &counters, shown, listen, bind)?;
        board.record(access.recorder(&configuration.current().access));
        // Nothing that runs later can take what it needs.
        let plane = Plane::prepare(sockets, board, counters, admin.public())
            .map_err(StartError::io("start the data plane"))?;
        let (coordinators, edits) = begin(waiting, watch, &mut background, look_again);
        // Connections wait in the kernel's queue meanwhile.
        let first = if predecessor.is_some() { FIRST_PROBE_OF_A_SUCCESSOR } else { FIRST_PROBE };
        apps.ready_to_serve(first).await;
        let plane = plane.begin();
        if plane.is_err() && predecessor.is_none() {
            // What has been started meanwhile does not stay behind. A successor's is another
            // daemon's.
            apps.shut_down().await;
            let _ended = apps.stop_all().await;
        }
        let plane = plane.map_err(StartError::io("start the data plane"))?;
        if let Some(predecessor) = predecessor {
            let predecessor = predecessor.succeed(manager.listens()).await?;
            keep(&manager, &listeners, &stale);
            background.until_over(predecessor.until_gone(alone.clone()));
        }
        upkeep::start(&mut background, &manager, &plane, &apps);
        announce(foreground.as_ref(), &configuration.current(), &listeners);
        Ok(Self {
            configuration,
            listeners,
            lock,
            program: program.filter(|_| foreground.is_none()),
            open_files,
            alone,
            manager,
            plane,
            common,
            apps,
            certificates,
            coordinators,
            admin,
            background,
            access,
            edits,
            signals,
        })
    }
}

/// Makes the apps from their records, on a board of their own, with the task that runs their hooks.
async fn apps_of(
    (configuration, background, alone): (&Configuration, &mut Background, CancellationToken),
    records: Records,
    common: Arc<supervisor::Common>,
    listeners: &Listeners,
    counters: &Arc<proxy::Counters>,
    fresh: bool,
) -> Result<(Arc<proxy::Board>, Apps, Waiting), StartError> {
    let config = configuration.current();
    let (listen, unbound) = (listeners.follow(), listeners.failed());
    let bound = listen.borrow().clone();
    let redis = apps::redis_of(&config, &bound).await;
    let (board, route) = proxy::Board::new(Arc::clone(&config), Arc::clone(counters.service()));
    let (hook_sender, hooks) = hooks::start(background.over());
    background.run(hooks);
    background.until_over(supervisor::reap_orphans());
    let (apps, waiting) = Apps::boot(apps::Parts {
        config,
        common,
        board: Arc::clone(&board),
        redis,
        listen,
        unbound,
        route,
        counters: Arc::clone(counters),
        records,
        notify: Arc::new(move |event, app| hook_sender.send(event, app)),
        fresh,
        alone,
    })?;
    Ok((board, apps, waiting))
}

/// Reads the certificates, and keeps them as their files are.
fn certificates(config: &Config, background: &mut Background) -> Result<Certificates, StartError> {
    let (certificates, keeper) = Certificates::start(config).map_err(StartError::Randomness)?;
    background.until_over(keeper);
    Ok(certificates)
}

/// Lets the apps' coordinators run, and watches the configuration file.
fn begin(
    waiting: Waiting,
    watch: Option<Watch>,
    background: &mut Background,
    look_again: bool,
) -> (apps::Coordinators, mpsc::Receiver<()>) {
    let coordinators = waiting.run();
    // One slot: an edit that waits stands for all later ones.
    let (edited, edits) = mpsc::channel(1);
    if look_again {
        let _one_waits_already = edited.try_send(());
    }
    if let Some(watch) = watch {
        background.until_over(watch.run(edited));
    }
    (coordinators, edits)
}

/// Gives the listening sockets to the service manager, once that has dropped what it keeps under
/// the names of stale ones.
fn keep(manager: &Manager, listeners: &Listeners, stale: &BTreeSet<String>) {
    for name in stale {
        manager.forget(name);
    }
    listeners.keep(manager);
}

/// Keeps the token in this process's environment from other processes, the app above all
/// (prctl(2)).
fn make_unreadable() {
    if let Err(errno) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("cannot make the process unreadable for others: {errno}");
    }
}

/// What the supervisors of all apps share.
fn common(
    config: &Config,
    foreground: bool,
    open_files: Option<u64>,
) -> Result<supervisor::Common, StartError> {
    let sink = match (foreground, logging::under_journal()) {
        (true, _) => Sink::Stdout,
        (false, true) => Sink::Journal,
        (false, false) => Sink::Stderr,
    };
    supervisor::Common::start(supervisor::Settings {
        instance: config.name.clone(),
        run_dir: config.run_dir.clone(),
        env: std::env::vars_os().collect(),
        keeper: true,
        sink,
        open_files,
    })
    .map_err(StartError::io("start the supervisor"))
}

/// Raises this process's limit of open files, and returns what the apps get. A successor's own was
/// raised before it was started; it is told the apps' limit.
fn open_files_of_apps(is_successor: bool) -> Option<u64> {
    let raised = raise_open_files();
    let told = std::env::var(handover::OPEN_FILES).ok().and_then(|limit| limit.parse().ok());
    told.filter(|_| is_successor).or(raised)
}

/// Raises the soft limit of open files to the hard one: every request needs two. Returns what it
/// was.
fn raise_open_files() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| soft));
    raised.inspect_err(|errno| tracing::warn!("cannot raise the limit of open files: {errno}")).ok()
}

/// Says that the daemon serves.
fn announce(foreground: Option<&Foreground>, config: &Config, listeners: &Listeners) {
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "listening on {listeners}");
    if let Some(foreground) = foreground {
        invite(foreground, config, listeners.bound());
    }
}

/// Shows what to do next to a person at the terminal.
fn invite(foreground: &Foreground, config: &Config, bound: SocketAddr) {
    let unspecified = bound.ip().is_unspecified();
    let reachable = if unspecified { SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())) } else { bound };
    let instance =
        if config.name == "default" { String::new() } else { format!(" --instance {}", config.name) };
    let command = config.app.app.command.as_ref().map(ToString::to_string).unwrap_or_default();
    let program = &foreground.program;
    let command = command.replace('\'', r"'\''");
    let lines = [
        ("your app answers at", format!("http://{reachable}")),
        ("release the next version", format!("{program}{instance} deploy --cmd '{command}'")),
        ("see how it is", format!("{program}{instance} status")),
    ];
    complain("");
    for (what, how) in lines {
        complain(&format!("  {what:<24}  {how}"));
    }
    complain("");
}
