//! swarmctl as a process, in front of the real API with a scripted daemon behind it.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test ends where its stage does not stand")]

mod broken;
mod fake;
mod files;
mod lists;
mod results;
mod run;
mod submit;

use std::{
    future::Future,
    path::PathBuf,
    process::{Output, Stdio},
    sync::Arc,
};

use fake::Fake;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    task::LocalSet,
};

/// A daemon on a socket of its own, for as long as it lives.
struct Swarm {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
}

/// How a call of swarmctl ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ended {
    #[track_caller]
    fn is(&self, code: i32, stdout: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), stdout), "{self:?}");
    }
}

/// Runs a test in front of a scripted daemon.
fn with_swarm<F: Future<Output = ()>>(test: impl FnOnce(Swarm) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let socket = swarm_api::Socket::bind(&dir.path().join("s"), None).unwrap();
        let backend = Arc::new(fake::Daemon(Arc::clone(&fake)));
        tokio::spawn(swarm_api::serve(socket, backend, std::future::pending()));
        test(Swarm { dir, fake }).await;
    });
}

/// Ctrl-C.
fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

impl Swarm {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmctl"));
        command.args(words).env("SWARM_SOCKET", self.socket()).env_remove("SWARM_CONFIG").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn call(&self, words: &[&str]) -> Ended {
        self.command(words).output().await.unwrap().into()
    }

    /// The same, given something to read.
    async fn call_with(&self, words: &[&str], input: &[u8]) -> Ended {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may refuse before it has read everything.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await.unwrap().into()
    }

    /// The same, interrupted once the daemon is where `is_time` says.
    async fn interrupt(&self, words: &[&str], is_time: impl Future<Output = ()>) -> Ended {
        let child = self.command(words).spawn().unwrap();
        is_time.await;
        interrupt(&child);
        child.wait_with_output().await.unwrap().into()
    }

    /// The same, with something done once its first line was read. What is told of stdout comes after that line.
    async fn after_first_line(&self, words: &[&str], first: &str, then: impl FnOnce(&Child)) -> Ended {
        let mut child = self.command(words).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).await.unwrap();
        assert_eq!(line, first);
        then(&child);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        let ended = Ended::from(child.wait_with_output().await.unwrap());
        Ended { stdout: rest, ..ended }
    }
}
