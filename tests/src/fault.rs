//! Disks that fail under a real daemon: `strace` changes what the kernel answers, one system call at a time, so that everything above it
//! is the product as it ships.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::skip;

/// How long a tracer has to let go of what it traces.
const LETS_GO: Duration = Duration::from_secs(2);

/// What becomes of the calls.
pub enum How {
    /// They fail with this error and do nothing.
    Fails(&'static str),
    /// They begin so much later.
    Late(Duration),
}

/// A tracer that does that to a daemon until it is dropped.
pub struct Fault(Child);

impl Fault {
    /// Attaches to every thread of a process, for calls on these files (all files where none is named). `None`, said on stderr, where this
    /// user may not trace it.
    ///
    /// # Panics
    /// There is no `strace`.
    pub fn inject(pid: u32, files: &[PathBuf], calls: &str, how: &How) -> Option<Self> {
        let mut command = Command::new("strace");
        for file in files {
            command.arg("-P").arg(file);
        }
        let inject = match how {
            How::Fails(error) => format!("inject={calls}:error={error}"),
            How::Late(span) => format!("inject={calls}:delay_enter={}", span.as_micros()),
        };
        let mut child = command
            .args(["-f", "-e", &format!("trace={calls}"), "-e", &inject, "-o", "/dev/null", "-p"])
            .arg(pid.to_string())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let mut said = BufReader::new(child.stderr.take().expect("its stderr"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says something");
        if line.contains("attached") {
            // it goes on to say which threads come and go
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            return Some(Self(child));
        }
        child.wait().expect("strace ends");
        skip(line.trim());
        None
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // a tracer that is asked to end lets go of what it traces, one that is killed may take it along
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < LETS_GO && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // one that waits for a thread which it delays itself does not hear that the process is gone
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The files of a log.
///
/// # Panics
/// There is none.
pub fn log_files(state: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(state.join("log")).expect("a log").map(|file| file.expect("a file").path()).collect()
}
