//! Where portok's own log goes: to the journal where the process runs under it, else to standard error.
//!
//! Set up once, before anything is logged. Nothing is logged per request: the journal is written with a blocking
//! socket on the calling thread.

use std::os::unix::fs::MetadataExt;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A service manager or a file: with time and level.
    Service,
    /// Somebody at a terminal (`portok run`): short lines.
    Person,
}

/// Whether standard error is connected to the journal: systemd says so in `JOURNAL_STREAM`, as device and inode of
/// the stream (systemd.exec(5)).
pub fn under_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// Sets the log up. `PORTOK_LOG` (`error`, `warn`, `info`, `debug`, `trace`) sets how much is said.
pub fn init(reader: Reader) {
    let level =
        std::env::var("PORTOK_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let registry = tracing_subscriber::registry();
    if reader == Reader::Service
        && under_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let journal =
            journal.with_syslog_identifier("portokd".to_owned()).with_field_prefix(Some("PORTOK".into()));
        // Set up before anything else runs: a second time cannot happen, and losing the log would be the lesser harm.
        let _already_set = registry.with(journal.with_filter(level)).try_init();
        return;
    }
    let fmt = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never);
    let _already_set = match reader {
        Reader::Service => registry.with(fmt.with_filter(level)).try_init(),
        Reader::Person => registry.with(fmt.without_time().compact().with_filter(level)).try_init(),
    };
}
