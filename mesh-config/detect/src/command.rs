//! Other programs, asked with a bound on their time and on what they may say.

use std::{
    ffi::OsStr,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// What a program said.
pub(crate) struct Said {
    pub(crate) is_success: bool,
    pub(crate) out: Vec<u8>,
    pub(crate) complaint: String,
}

/// Why nothing was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There is no such program.
    Missing,
    /// It could not be started, said too much or took too long.
    Failed(String),
}

/// Bytes of standard error that are kept.
const COMPLAINT: usize = 512;

/// Runs a program to its end. One that is late or says more than `most` is killed.
pub(crate) fn ask(program: &Path, args: &[&str], most: usize, time: Duration) -> Result<Said, Silence> {
    let until = Instant::now() + time;
    let mut command = Command::new(program);
    command.args(args.iter().map(OsStr::new)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() == std::io::ErrorKind::NotFound {
        true => Silence::Missing,
        false => Silence::Failed(e.to_string()),
    })?;
    let out = child.stdout.take().map(|pipe| collect(pipe, most));
    let complaint = child.stderr.take().map(|pipe| collect(pipe, COMPLAINT));
    let heard = out.map(|rx| rx.recv_timeout(until.saturating_duration_since(Instant::now())));
    let silence = match heard {
        Some(Ok(Some(out))) => match wait(&mut child, until) {
            Some(is_success) => {
                let words = complaint.and_then(|rx| rx.recv_timeout(Duration::from_millis(100)).ok()).flatten().unwrap_or_default();
                let complaint = String::from_utf8_lossy(&words).lines().next().unwrap_or_default().trim().to_owned();
                return Ok(Said { is_success, out, complaint });
            }
            None => format!("it took more than {} s", time.as_secs()),
        },
        Some(Ok(None)) => format!("it said more than {most} bytes"),
        Some(Err(_)) | None => format!("it took more than {} s", time.as_secs()),
    };
    // it may have ended meanwhile, which is as well
    let _ = child.kill();
    let _ = child.wait();
    Err(Silence::Failed(silence))
}

/// Reads a pipe to its end on a thread of its own. `None`: there was more than `most`, which for complaints is cut.
fn collect(mut pipe: impl Read + Send + 'static, most: usize) -> mpsc::Receiver<Option<Vec<u8>>> {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.by_ref().take(most as u64 + 1).read_to_end(&mut bytes);
        let is_whole = read.is_ok() && bytes.len() <= most;
        // whoever gave up waiting needs nothing
        let _ = tx.send((is_whole || most == COMPLAINT).then_some(bytes));
    });
    rx
}

fn wait(child: &mut Child, until: Instant) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => return None,
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str, most: usize) -> Result<Said, Silence> {
        ask(Path::new("/bin/sh"), &["-c", script], most, Duration::from_millis(700))
    }

    #[test]
    fn a_program_is_heard_within_bounds() {
        let said = sh("echo yes; echo no >&2; exit 3", 100).unwrap_or_else(|silence| panic!("{silence:?}"));
        assert_eq!((said.out.as_slice(), said.complaint.as_str(), said.is_success), (&b"yes\n"[..], "no", false));
        assert_eq!(ask(Path::new("/nonexistent/program"), &[], 1, crate::TIME).err(), Some(Silence::Missing));
        assert!(matches!(sh("echo 12345", 5), Err(Silence::Failed(why)) if why.contains("more than 5 bytes")));
        assert!(sh("printf 12345", 5).is_ok());
    }

    #[test]
    fn one_that_hangs_or_never_stops_talking_is_ended() {
        let start = Instant::now();
        assert!(matches!(sh("exec sleep 60", 100), Err(Silence::Failed(why)) if why.contains("took more")));
        assert!(matches!(sh("exec yes", 100), Err(Silence::Failed(why)) if why.contains("more than 100 bytes")));
        // closes what is listened to and goes on
        assert!(matches!(sh("exec >&-; exec sleep 60", 100), Err(Silence::Failed(why)) if why.contains("took more")));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
