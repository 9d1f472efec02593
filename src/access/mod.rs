//! The access log: a line for each request.
//!
//! The data plane fills an [`Entry`] while it serves a request, and gives it to a [`Recorder`] at
//! the end. The recorder decides whether the request gets a line, and puts the entry into a bounded
//! queue without ever waiting. A thread of the [`Log`] makes a line of it, in one of three formats,
//! and writes it. A disk that is full or a pipe that nobody reads holds up this thread alone; what
//! is lost meanwhile is counted.
//!
//! | file | what it has |
//! | --- | --- |
//! | `entry` | what is known of a request; bounds of its texts |
//! | `line`, `json`, `combined`, `hipache`, `format` | an entry as a line (pure) |
//! | `record` | which requests get a line, and the queue |
//! | `destination` | the file, opened and opened anew |
//! | `log` | the thread |
//!
//! State: the file is the thread's. It ends when the [`Log`] and every [`Recorder`] of it are gone
//! and what was queued is written.

mod combined;
mod destination;
mod entry;
mod format;
mod hipache;
mod json;
mod line;
mod log;
mod record;

pub use self::entry::{Entry, Text};
pub use self::log::Log;
pub use self::record::Recorder;
