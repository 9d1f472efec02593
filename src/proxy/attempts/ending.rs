//! Whether an app that broke a connection without an answer is ending.
//!
//! The kernel closes what a killed process had open from the newest to the oldest: its connections
//! are reset before its listener is closed. A connection that is opened in between is accepted, and
//! reset a moment later. So one that comes about proves that the app lives only when it stays.

use std::io;
use std::time::Duration;

use super::Attempts;
use crate::proxy::clock;
use crate::proxy::upstream::connection::Connection;
use crate::proxy::upstream::pool::LocalTarget;

/// How long a connection has to stay. A process closes all it had within less.
const STAYS: Duration = Duration::from_millis(25);

/// How many connections that do not stay prove an end as well as a refused one does.
const BROKEN: usize = 3;

/// What was found.
pub(super) enum Ending {
    /// Nobody listens there any more, or soon nobody will.
    Ends,
    /// It goes on. This connection to it has stayed.
    Lives(Connection),
    /// It could not be asked in time.
    Unknown,
}

impl Attempts<'_> {
    /// Asks the app at `local`, until `whole_by` at most.
    pub(super) async fn ending(&self, local: &LocalTarget, whole_by: u64) -> Ending {
        let upstream = &self.service.settings.app.upstream;
        let by = clock::after(upstream.connect_timeout).min(whole_by);
        for _ in 0..BROKEN {
            let Some(permit) = local.target.permit(upstream.max_connections) else { return Ending::Unknown };
            let open = Connection::open(local.target.addr(), permit, upstream, self.whose());
            match self.exchange.until(by, open).await {
                Some(Ok(connection)) => {
                    if tokio::time::timeout(STAYS, connection.breaks()).await.is_err() {
                        return Ending::Lives(connection);
                    }
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Ending::Ends,
                Some(Err(_)) | None => return Ending::Unknown,
            }
        }
        Ending::Ends
    }
}
