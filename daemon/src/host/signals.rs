//! What asks the daemon to stop.

/// Waits for SIGTERM or Ctrl-C; says which.
#[cfg(unix)]
pub(crate) async fn stop_asked() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("a handler can be set at start");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler can be set at start");
    tokio::select! {
        biased;
        _ = term.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn stop_asked() -> &'static str {
    tokio::signal::ctrl_c().await.expect("a handler can be set at start");
    "Ctrl-C"
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

#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_parent() {}
