//! Runs the built binaries. Their output goes to files, so that no pipe can block them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::procs;
use super::wait::wait_until;

/// The daemon's binary.
pub(crate) const PORTOKD: &str = env!("CARGO_BIN_EXE_portokd");

/// The command line's binary.
pub(crate) const PORTOK: &str = env!("CARGO_BIN_EXE_portok");

/// The result of a finished command.
#[derive(Debug)]
pub(crate) struct Said {
    /// The exit code; 128 plus the number of the signal that ended it.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Panics unless it ended with `code`, and returns it.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Standard output, which must be one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| {
            panic!("not one JSON value ({error}):\n{}\nstderr:\n{}", self.out, self.err)
        })
    }
}

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Starts `program` with exactly the variables `env`. `stem` names its output files.
    #[track_caller]
    pub(crate) fn start(program: &str, words: &[&str], env: &BTreeMap<String, String>, stem: &Path) -> Self {
        Self::start_into(program, words, env, stem, create(&stem.with_extension("err")).into())
    }

    /// The same with a standard error of the test's own, which [`said`](Self::said) does not see.
    #[track_caller]
    pub(crate) fn start_into(
        program: &str,
        words: &[&str],
        env: &BTreeMap<String, String>,
        stem: &Path,
        stderr: Stdio,
    ) -> Self {
        Self::start_over(program, words, env, stem, Stdio::null(), stderr)
    }

    /// The same with a standard input of the test's own too.
    #[track_caller]
    pub(crate) fn start_over(
        program: &str,
        words: &[&str],
        env: &BTreeMap<String, String>,
        stem: &Path,
        stdin: Stdio,
        stderr: Stdio,
    ) -> Self {
        let (out, err) = (stem.with_extension("out"), stem.with_extension("err"));
        let child = Command::new(program)
            .args(words)
            .env_clear()
            .envs(env)
            .stdin(stdin)
            .stdout(create(&out))
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {program}: {error}"));
        Self { child, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        procs::send(self.child.id(), signal);
    }

    /// What it has written so far.
    pub(crate) fn said(&self) -> (String, String) {
        (text(&self.out), text(&self.err))
    }

    /// Its exit code, once it has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.try_wait().expect("a child can be waited for")?;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Said {
        let (out, err) = (self.out.clone(), self.err.clone());

        let explain = || format!("stdout:\n{}\nstderr:\n{}", text(&out), text(&err));
        let code = wait_until("the command ends", explain, || self.code());
        Said { code, out: text(&out), err: text(&err) }
    }
}

pub(crate) fn create(path: &Path) -> File {
    File::create(path).expect("the test's folder takes files")
}

/// A full pipe: writing to it blocks as long as the other end is kept and not read.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("pipes can be made");
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe takes the flag");
    while writer.write(&[b'x'; 512]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("a pipe takes the flag");
    (reader, writer)
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
