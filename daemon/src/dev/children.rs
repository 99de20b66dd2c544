//! Daemons as children of a throw-away swarm: apart from its terminal, asked to stop, gone with it.

use std::io;

use tokio::process::{Child, Command};

/// What holds the children: when it is dropped, or this process ends however, so do they.
#[cfg(unix)]
pub(super) struct Leash;

#[cfg(unix)]
impl Leash {
    #[expect(clippy::unnecessary_wraps, reason = "its twin can fail")]
    pub(super) const fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Starts one. It asks the kernel by itself to end with this process.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        command.process_group(0).spawn()
    }
}

/// Asks it to end in order.
#[cfg(unix)]
pub(super) fn ask_to_stop(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// A job, which ends all that is in it, their keepers too.
#[cfg(windows)]
pub(super) struct Leash(swarm_win32::Job);

#[cfg(windows)]
impl Leash {
    pub(super) fn new() -> io::Result<Self> {
        swarm_win32::Job::create(None).map(Self)
    }

    /// Starts one in a process group of its own, so that Ctrl-C in our terminal is ours alone.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        const NEW_PROCESS_GROUP: u32 = 0x200;
        let child = command.creation_flags(NEW_PROCESS_GROUP).spawn()?;
        self.0.adopt(&child)?;
        Ok(child)
    }
}

/// Asks it to end in order.
#[cfg(windows)]
pub(super) fn ask_to_stop(child: &Child) {
    // without a console it cannot be asked; it is killed then
    let _ = child.id().map(swarm_win32::ask_to_stop);
}
