//! How a daemon begins: what it takes over or binds, the long-lived tasks, and the order among them.
//!
//! The ordering that matters: the place (the state's lock) before the port, the port before anything is started, the record before
//! the first request. What fails on the way ends the process; a successor that fails leaves the apps to the daemon before it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use super::succession::Predecessor;
use super::{Daemon, Foreground, Options, StartError, complain, handover, open_socket, upgrade, upkeep};
use crate::admin::{self, Admin};
use crate::config::Config;
use crate::config::watch::Watch;
use crate::hooks;
use crate::logging;
use crate::proxy::{self, Plane};
use crate::release::store::{Found, Store};
use crate::release::{self, Coordinator};
use crate::supervisor::{self, Sink, Supervisor};
use crate::systemd::{self, Manager, Passed};
use crate::wire;

/// How long a first probe of somebody else's app may hold back the first request.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// The same for a successor, while the daemon before it still answers.
const FIRST_PROBE_OF_A_SUCCESSOR: Duration = Duration::from_secs(15);

/// Where a daemon comes from.
pub(super) struct Origin {
    pub(super) passed: Passed,
    /// The one that it succeeds.
    pub(super) predecessor: Option<Predecessor>,
    /// How it was started.
    pub(super) program: Option<upgrade::Program>,
}

impl Daemon {
    pub(super) async fn start(
        options: Options,
        config: Config,
        watch: Option<Watch>,
        origin: Origin,
    ) -> Result<Self, StartError> {
        let Origin { passed, mut predecessor, program } = origin;
        // The token in this process's environment is nobody else's business, the app's least of all (prctl(2)).
        if let Err(errno) = nix::sys::prctl::set_dumpable(false) {
            tracing::warn!("cannot make the process unreadable for others: {errno}");
        }
        let raised = raise_open_files();
        // A successor's was raised before it was started.
        let told = std::env::var(handover::OPEN_FILES).ok().and_then(|limit| limit.parse().ok());
        let open_files = predecessor.as_ref().and(told).or(raised);
        let foreground = options.foreground.is_some();
        let signals = Signals::catch(foreground)?;
        let manager = Manager::from_env().map_err(io("start the thread that tells the service manager"))?;
        let Place { store, found, listener, public, bound, stale } =
            Place::take(passed, predecessor.as_mut(), &config).await?;
        let lock = store.lock();
        let keep = {
            let manager = manager.clone();
            move |public: &TcpListener| {
                if stale {
                    manager.forget();
                }
                manager.keep(public);
            }
        };
        if predecessor.is_none() {
            keep(&public);
        }
        let common = Arc::new(common(&config, foreground, open_files)?);
        let recorded: Vec<_> = found.record.runs.iter().map(|run| run.identity.clone()).collect();
        common.remove_pipes_but(&recorded);
        let mark = found.mark.clone().map_or_else(supervisor::new_mark, Ok);
        let mark = mark.map_err(io("read the kernel's random numbers"))?;
        let supervisor = Supervisor::for_app(&common, mark).map_err(io("start the supervisor"))?;

        let stats = proxy::Stats::new(config.proxy.threads);
        let (switchboard, route) = proxy::switchboard();
        let loaded = wire::ConfigStatus {
            file: config.file.as_ref().map(|file| file.display().to_string()),
            loaded_at: wire::rfc3339(SystemTime::now()),
            error: None,
            app_in_force: None,
        };
        // From here on the file that was read is the one that counts: one that vanishes is an error, not an instance
        // without a file.
        let mut sources = options.sources;
        if let Some(file) = &config.file {
            sources.file = Some(file.clone());
        }
        let (config, configs) = watch::channel(Arc::new(config));
        let (config_status, config_statuses) = watch::channel(loaded);
        let (listen, listens) = watch::channel(bound);
        let over = CancellationToken::new();
        let alone = CancellationToken::new();
        if predecessor.is_none() {
            alone.cancel();
        }
        let mut background = JoinSet::new();
        let (hook_sender, hooks) = hooks::start(configs.clone(), over.clone());
        background.spawn(hooks);
        until(&over, &mut background, supervisor::reap_orphans());
        let (coordinator, app) = Coordinator::new(release::Parts {
            config: configs.clone(),
            supervisor: Arc::new(supervisor),
            stats: Arc::clone(&stats),
            route,
            store,
            found,
            notify: Box::new(move |event| hook_sender.send(event)),
            fresh: foreground,
            alone: alone.clone(),
        });
        let (reload, reloads) = mpsc::channel(1);
        let (upgrade, upgrades) = mpsc::channel(1);
        let admin = Admin::new(admin::Parts {
            app: app.clone(),
            config: configs.clone(),
            config_status: config_statuses,
            stats: Arc::clone(&stats),
            reload,
            upgrade,
            listen: listens,
            started_at: SystemTime::now(),
            control: tokio::runtime::Handle::current(),
        });
        let bind = if predecessor.is_some() { admin::replace_socket } else { admin::bind_socket };
        let socket = open_socket(&configs.borrow().clone(), &admin, bind)?;
        let coordinator = tokio::spawn(coordinator.run());
        // One slot: an edit that waits stands for all later ones.
        let (edited, edits) = mpsc::channel(1);
        if let Some(watch) = watch {
            until(&over, &mut background, watch.run(edited));
        }
        // Connections wait in the kernel's queue meanwhile.
        let first = if predecessor.is_some() { FIRST_PROBE_OF_A_SUCCESSOR } else { FIRST_PROBE };
        let routed = async {
            app.first_probe().await;
            // What it said is dealt with.
            app.beat().await;
        };
        let _unanswered = tokio::time::timeout(first, routed).await;
        let reserved = Arc::new(admin::Public::new(Arc::clone(&admin)));
        let plane = match Plane::start(listener, configs.clone(), switchboard, stats, reserved) {
            Ok(plane) => plane,
            Err(error) => {
                // What has been started meanwhile does not stay behind, unless it is another daemon's.
                if predecessor.is_none() {
                    app.shut_down().await;
                    app.stop_all().await;
                }
                return Err(io("start the data plane")(error));
            }
        };
        if let Some(mut predecessor) = predecessor {
            predecessor.serving().await?;
            if let Err(error) = predecessor.until_main().await {
                // The service manager starts another one, which takes over what runs.
                if manager.listens() {
                    return Err(error);
                }
                tracing::warn!("{error}: going on alone");
            }
            keep(&public);
            until(&over, &mut background, predecessor.until_gone(alone.clone()));
        }
        tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "listening on {bound}");
        let voice = over.child_token();
        if manager.listens() {
            until(&voice, &mut background, upkeep::follow_status(manager.clone(), app.clone()));
        }
        if let Some(every) = systemd::watchdog() {
            let alive = upkeep::prove_alive(manager.clone(), every, plane.pulse(), app.clone());
            until(&voice, &mut background, alive);
        }
        if let Some(foreground) = &options.foreground {
            invite(foreground, &configs.borrow(), bound);
        }
        Ok(Self {
            sources,
            config,
            config_status,
            listen,
            public: Some(public),
            lock,
            program: program.filter(|_| !foreground),
            open_files,
            alone,
            manager,
            plane,
            common,
            app,
            coordinator,
            admin,
            socket,
            over,
            voice,
            background,
            reloads,
            upgrades,
            edits,
            signals,
        })
    }
}

/// What only one daemon can have: the state, and the socket that is listened on.
struct Place {
    store: Store,
    found: Found,
    listener: TcpListener,
    /// The socket once more.
    public: TcpListener,
    bound: SocketAddr,
    /// The service manager keeps sockets that nobody wants any more.
    stale: bool,
}

impl Place {
    /// Takes it over from whoever has it, or makes it. The state before the port: a second daemon hears that it is one. A
    /// successor has its socket first, and the state once its predecessor lets go of it.
    async fn take(
        passed: Passed,
        predecessor: Option<&mut Predecessor>,
        config: &Config,
    ) -> Result<Self, StartError> {
        let claimed = passed.claim(config.listen);
        let bind = || {
            proxy::bind(config.listen).map_err(|source| StartError::Listen { addr: config.listen, source })
        };
        let ((store, found), listener) = match predecessor {
            None => {
                let opened = Store::open_when_free(&config.state_file, None).await?;
                (opened, claimed.listener.map_or_else(bind, Ok)?)
            }
            Some(predecessor) => {
                let listener = claimed.listener.map_or_else(bind, Ok)?;
                let lock = predecessor.stand_by(config).await?;
                (Store::open_when_free(&config.state_file, lock).await?, listener)
            }
        };
        let stale = claimed.stale.join(", ");
        if !stale.is_empty() {
            tracing::warn!("closed what was passed to the daemon and is not at {}: {stale}", config.listen);
        }
        let bound = listener.local_addr().map_err(io("read the listening address"))?;
        let public = listener.try_clone().map_err(io("keep the listening socket"))?;
        Ok(Self { store, found, listener, public, bound, stale: !stale.is_empty() })
    }
}

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
    .map_err(io("start the supervisor"))
}

fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::Io { operation, source }
}

/// Starts `work`, which ends when it has ended or `over` is cancelled.
fn until(
    over: &CancellationToken,
    background: &mut JoinSet<()>,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let over = over.clone();
    background.spawn(async move {
        over.run_until_cancelled(work).await;
    });
}

/// Raises the soft limit of open files to the hard one: every request needs two. Gives back what it was, for the apps.
fn raise_open_files() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| soft));
    raised.inspect_err(|errno| tracing::warn!("cannot raise the limit of open files: {errno}")).ok()
}

/// Says what to do next, where somebody sits before it.
fn invite(foreground: &Foreground, config: &Config, bound: SocketAddr) {
    let unspecified = bound.ip().is_unspecified();
    let reachable = if unspecified { SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())) } else { bound };
    let instance =
        if config.name == "default" { String::new() } else { format!(" --instance {}", config.name) };
    let command = config.app.command.as_ref().map(ToString::to_string).unwrap_or_default();
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
