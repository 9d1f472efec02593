//! The tasks of a coordinator: everything that takes time, and reports by a [`Message`] when it is
//! done.
//!
//! The coordinator owns them and joins each one. A task that still runs at the coordinator's end is
//! cancelled.

use std::future::Future;

use tokio::task::{AbortHandle, JoinSet};

use super::message::{Message, Reports};

/// The running tasks.
#[derive(Debug)]
pub(super) struct Tasks {
    running: JoinSet<()>,
    reports: Reports,
}

impl Tasks {
    /// No task yet; later ones send to `reports`.
    pub(super) fn new(reports: Reports) -> Self {
        Self { running: JoinSet::new(), reports }
    }

    /// Where a task sends its messages.
    pub(super) fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Runs `task`.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.running.spawn(task)
    }

    /// Runs `task` and sends the message that it ends with.
    pub(super) fn spawn_for(&mut self, task: impl Future<Output = Message> + Send + 'static) -> AbortHandle {
        let reports = self.reports();
        self.spawn(async move { report(&reports, task.await).await })
    }

    /// Joins a task that has ended. Never returns while none runs. Cancel safe.
    pub(super) async fn join_next(&mut self) {
        match self.running.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!("a task of the coordinator panicked: {error}");
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    /// Cancels what runs.
    pub(super) fn abort_all(&mut self) {
        self.running.abort_all();
    }

    /// Joins all of them.
    pub(super) async fn join_all(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Sends `message` to the coordinator. It does nothing once the coordinator has ended.
pub(super) async fn report(reports: &Reports, message: Message) {
    let _coordinator_gone = reports.send(message).await;
}
