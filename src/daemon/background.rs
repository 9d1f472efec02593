//! The tasks that run beside the daemon's own loop: hooks, watches, upkeep, sockets that still
//! answer.
//!
//! All of them are joined at the end. Those that talk to the service manager end earlier, once that
//! is another daemon's to talk to.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admin_server::SocketTask;

/// See the module.
pub(super) struct Background {
    /// Cancelled once everything else has ended.
    over: CancellationToken,
    /// Cancelled with it, or once the service manager is another daemon's to talk to.
    voice: CancellationToken,
    tasks: JoinSet<()>,
}

impl Background {
    pub(super) fn new() -> Self {
        let over = CancellationToken::new();
        Self { voice: over.child_token(), over, tasks: JoinSet::new() }
    }

    /// Cancelled once everything else has ended.
    pub(super) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// Runs `work`, which ends by itself once [`Background::over`] is cancelled.
    pub(super) fn run(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Runs `work` until it ends or the daemon does.
    pub(super) fn until_over(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.until(self.over.clone(), work);
    }

    /// Runs `work`, which talks to the service manager.
    pub(super) fn until_silent(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.until(self.voice.clone(), work);
    }

    /// Lets a socket that was replaced answer what is under way.
    pub(super) fn finish(&mut self, former: Option<SocketTask>) {
        if let Some(former) = former {
            self.tasks.spawn(former.end());
        }
    }

    /// Ends what talks to the service manager.
    pub(super) fn fall_silent(&self) {
        self.voice.cancel();
    }

    /// Ends all tasks and joins them.
    pub(super) async fn end(mut self) {
        self.over.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    fn until(&mut self, end: CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            end.run_until_cancelled(work).await;
        });
    }
}
