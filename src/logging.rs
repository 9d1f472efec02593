//! Where portok's own log goes: to the journal where the process runs under it, else to standard
//! error.
//!
//! In the journal every event names its instance (`PORTOK_APP`) and has its subject in fields
//! (`PORTOK_RELEASE`, `PORTOK_PHASE`, `PORTOK_PID`, ...): `journalctl PORTOK_RELEASE=v7` shows the
//! life of a release.
//!
//! Set up once, before anything is logged; how much is logged can change later. Nothing is logged
//! per request, because the journal is written with a blocking socket on the calling thread.
//! Standard error is written by a thread of its own behind a bounded queue: a pipe that nobody
//! reads may cost lines, but never blocks the control plane.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogLevel, LogLevels};
use crate::plain;

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A service manager or a file: with time and level.
    Service,
    /// Somebody at a terminal (`portok run`): short lines.
    Person,
}

/// Whether standard error is connected to the journal: `JOURNAL_STREAM` names the device and the
/// inode of the journal's stream (systemd.exec(5)).
pub fn under_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// Lines that may wait for a reader.
const QUEUE: usize = 4096;

/// Keeps the log's thread. When it is dropped, what is queued is written, within a second.
#[derive(Debug)]
#[must_use = "without it nothing is written"]
pub struct Log {
    _worker: Option<WorkerGuard>,
}

/// Changes how much is logged. The log is the process's, and there is one.
static LEVELS: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Logs what `levels` say from now on.
pub fn set_levels(levels: &LogLevels) {
    // Without a log there is nothing to change.
    let _no_log = LEVELS.get().map(|handle| handle.reload(targets(levels)));
}

fn targets(levels: &LogLevels) -> Targets {
    let parts = levels.parts.iter().map(|(part, level)| (format!("portok::{part}"), filter(*level)));
    Targets::new()
        .with_default(filter(levels.level))
        .with_target("h2", of_clients(filter(levels.level)))
        .with_targets(parts)
}

/// How much is logged of what h2 says about its peers. It warns of frames, and whoever sends
/// them could fill the log: they show where everything about a connection does.
fn of_clients(level: LevelFilter) -> LevelFilter {
    if level >= LevelFilter::DEBUG { level } else { level.min(LevelFilter::ERROR) }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Sets up the log of the instance `app`, with these `levels` at first.
pub fn init(reader: Reader, app: &str, levels: &LogLevels) -> Log {
    let (level, handle) = reload::Layer::new(targets(levels));
    let _first = LEVELS.set(handle);
    let registry = tracing_subscriber::registry();
    if reader == Reader::Service
        && under_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let journal = journal
            .with_syslog_identifier("portokd".to_owned())
            .with_field_prefix(Some("PORTOK".into()))
            .with_custom_fields([("PORTOK_APP", app)])
            .with_priority_mappings(priorities());
        // Fails only the second time, which does not happen.
        let _already_set = registry.with(journal.with_filter(level)).try_init();
        return Log { _worker: None };
    }
    let (writer, worker) =
        NonBlockingBuilder::default().buffered_lines_limit(QUEUE).lossy(true).finish(io::stderr());
    let has_colour = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let fmt = tracing_subscriber::fmt::layer()
        .with_writer(move || Harmless { to: writer.clone(), has_colour })
        .with_target(false)
        .with_ansi(has_colour);
    let _already_set = match reader {
        Reader::Service => registry.with(fmt.with_filter(level)).try_init(),
        Reader::Person => registry.with(fmt.without_time().compact().with_filter(level)).try_init(),
    };
    Log { _worker: Some(worker) }
}

/// Makes quotes of an app or a client harmless for a terminal. Each event is one write.
struct Harmless {
    to: NonBlocking,
    has_colour: bool,
}

impl Write for Harmless {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = plain::log_line(&String::from_utf8_lossy(line), self.has_colour);
        self.to.write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The levels by syslog's own names (syslog(3)): info is not notice.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    }
}
