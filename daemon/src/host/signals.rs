//! What asks the daemon to stop.

/// Waits for SIGTERM or Ctrl-C; says which. What comes from the call on is heard, whenever the answer is waited for.
#[cfg(unix)]
pub(crate) fn stop_asked() -> impl Future<Output = &'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("a handler can be set at start");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler can be set at start");
    async move {
        tokio::select! {
            biased;
            _ = term.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits for what a console sends (Ctrl-C, Ctrl-Break, its window's end, the host's shutdown) or the service manager.
#[cfg(windows)]
pub(crate) async fn stop_asked() -> &'static str {
    use tokio::signal::windows;
    const SET: &str = "a handler can be set at start";
    let (mut interrupt, mut stop) = (windows::ctrl_c().expect(SET), windows::ctrl_break().expect(SET));
    let (mut close, mut shutdown) = (windows::ctrl_close().expect(SET), windows::ctrl_shutdown().expect(SET));
    tokio::select! {
        biased;
        _ = interrupt.recv() => "Ctrl-C",
        _ = stop.recv() => "Ctrl-Break",
        _ = close.recv() => "the console was closed",
        _ = shutdown.recv() => "the host shuts down",
        () = swarm_win32::service_stop_asked() => "the service manager",
    }
}

/// Has the kernel end this process when the one that started it ends, however it ends.
#[cfg(target_os = "linux")]
pub(crate) fn end_with_parent() {
    let parent = rustix::process::getppid();
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // the parent may have ended before the line above
    if rustix::process::getppid() != parent {
        std::process::exit(0);
    }
}

/// The one that starts this process has it in a job, and the system ends the job with it.
#[cfg(windows)]
pub(crate) fn end_with_parent() {}
