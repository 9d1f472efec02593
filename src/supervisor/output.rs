//! What the runs of one app print: their pipes, and the memory of the lines.
//!
//! A run's pipes ([`super::pipe`]) are read by the thread of all apps ([`super::reader`]) into the
//! run's log. [`Output`] remembers the logs of the runs that live, and of the last ones that ended.
//! The task of a process group holds its run's [`Reading`]; dropping it ends the reading.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::identity::Identity;
use super::pipe::{self, PipeFolder, RunPipes};
use super::reader::{PipeReading, Reader};
use super::ring::{Printer, RunLog};
use super::{Ids, last};
use crate::wire::{LogLine, LogsRequest};

/// Runs that have ended and are still remembered.
const REMEMBERED: usize = 16;
/// How long a process group's task waits for the reader. It is for the last lines only: nothing
/// else depends on it.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(2);

/// The pipes, their reader, and what is remembered.
#[derive(Debug)]
pub(super) struct Output {
    /// The name of the app, where there are several.
    app: Option<Arc<str>>,
    folder: PipeFolder,
    reader: Arc<Reader>,
    memory: Arc<Mutex<Memory>>,
}

/// The runs whose lines are remembered, oldest first.
#[derive(Debug, Default)]
struct Memory {
    living: Vec<Arc<RunLog>>,
    ended: VecDeque<Arc<RunLog>>,
}

/// The process group task's side of its run's two pipes.
#[derive(Debug)]
pub(super) struct Reading {
    log: Arc<RunLog>,
    pipes: RunPipes,
    /// `None` for a pipe that could not be opened.
    streams: [Option<PipeReading>; 2],
    memory: Arc<Mutex<Memory>>,
}

impl Output {
    pub(super) fn new(app: Option<&str>, folder: PipeFolder, reader: Arc<Reader>) -> Self {
        Self { app: app.map(Arc::from), folder, reader, memory: Arc::default() }
    }

    /// Makes a run's pipes and begins to read them. Returns the app's ends.
    pub(super) async fn open(
        &self,
        tag: &str,
        printer: Printer,
        identity: Option<&Ids>,
    ) -> io::Result<(File, File, Reading)> {
        let pipes = self.folder.of_run(tag);
        let [out, err] = pipes.make(identity)?;
        match self.read([Some(out.reader), Some(err.reader)], printer).await {
            Ok((log, streams)) => Ok((out.app, err.app, self.remember(log, pipes, streams))),
            Err(error) => {
                pipes.remove();
                Err(error)
            }
        }
    }

    /// Goes on reading what a run prints that an earlier daemon started.
    pub(super) async fn reopen(&self, identity: &Identity, printer: Printer) -> io::Result<Reading> {
        let pipes = self.folder.of_run(&identity.tag);
        let ends = pipes.reopen(identity.pid, &printer.release);
        let (log, streams) = self.read(ends, printer).await?;
        Ok(self.remember(log, pipes, streams))
    }

    async fn read(
        &self,
        ends: [Option<File>; 2],
        printer: Printer,
    ) -> io::Result<(Arc<RunLog>, [Option<PipeReading>; 2])> {
        let log = Arc::new(RunLog::new(self.app.clone(), printer));
        let mut streams = [None, None];
        for ((end, stream), reading) in ends.into_iter().zip(pipe::streams()).zip(&mut streams) {
            if let Some(end) = end {
                *reading = Some(self.reader.read(end, stream, &log).await?);
            }
        }
        Ok((log, streams))
    }

    fn remember(&self, log: Arc<RunLog>, pipes: RunPipes, streams: [Option<PipeReading>; 2]) -> Reading {
        lock(&self.memory).living.push(Arc::clone(&log));
        Reading { log, pipes, streams, memory: Arc::clone(&self.memory) }
    }

    /// The last lines of the wanted runs, in the order in which they were read.
    pub(super) fn logs(&self, wanted: &LogsRequest) -> Vec<LogLine> {
        let runs: Vec<Arc<RunLog>> = {
            let memory = lock(&self.memory);
            memory.ended.iter().chain(&memory.living).cloned().collect()
        };
        let asked = runs.iter().filter(|log| log.is_wanted(wanted));
        let mut found: Vec<_> = asked.flat_map(|log| log.numbered()).collect();
        found.sort_by_key(|(number, _)| *number);
        last(found.into_iter().map(|(_, line)| line).collect(), wanted.lines)
    }
}

impl Reading {
    pub(super) fn log(&self) -> &Arc<RunLog> {
        &self.log
    }

    /// Waits until what is in the pipes now is in the log.
    pub(super) async fn catch_up(&self) {
        let both = async {
            for stream in self.streams.iter().flatten() {
                stream.catch_up().await;
            }
        };
        let _ = timeout(CATCH_UP_DEADLINE, both).await;
    }

    /// Removes the pipes: nobody prints any more. Without this they stay for the next daemon.
    pub(super) fn end(self) {
        self.pipes.remove();
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut memory = lock(&self.memory);
        memory.living.retain(|log| !Arc::ptr_eq(log, &self.log));
        if self.log.is_empty() {
            return;
        }
        memory.ended.push_back(Arc::clone(&self.log));
        if memory.ended.len() > REMEMBERED {
            memory.ended.pop_front();
        }
    }
}

/// A panic elsewhere leaves the lists whole: every change is one call.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
