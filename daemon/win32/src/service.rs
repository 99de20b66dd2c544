//! This process as a service: what its manager asks, and what it is told.
//!
//! A process is one service or none, and the system calls it back without a word of whom it calls: that is what the two statics
//! are for, and the only place for any. In a process that is no service nothing is said and nobody asks.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::windows::io::{AsRawHandle as _, IntoRawHandle as _},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use windows_service::{
    service::{ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType},
    service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle},
    service_dispatcher,
};
use windows_sys::Win32::System::Console::{STD_ERROR_HANDLE, SetStdHandle};

use crate::text::done;

/// How long the manager waits for the next word while it starts or stops.
const PATIENCE: Duration = Duration::from_secs(30);
/// A log that is larger gives way to a new one; one old one is kept.
const LOG: u64 = 10 << 20;

/// What the service does; its answer is its exit code, 0 for well.
type Work = Box<dyn FnOnce() -> u32 + Send>;

struct Manager {
    name: String,
    work: Mutex<Option<Work>>,
}

struct Running {
    status: ServiceStatusHandle,
    stop: watch::Sender<bool>,
}

static MANAGER: OnceLock<Manager> = OnceLock::new();
static RUNNING: OnceLock<Running> = OnceLock::new();

windows_service::define_windows_service!(called_back, service_main);

/// Runs `work` as the service `name`. Returns when the service has stopped; to be called once, by a process that the service
/// manager started.
///
/// # Errors
/// This process was not started by the service manager.
pub fn run_service(name: &str, work: impl FnOnce() -> u32 + Send + 'static) -> io::Result<()> {
    let manager = Manager { name: name.to_owned(), work: Mutex::new(Some(Box::new(work))) };
    MANAGER.set(manager).map_err(|_| io::Error::other("this process is a service already"))?;
    service_dispatcher::start(name, called_back).map_err(plain)
}

fn plain(error: windows_service::Error) -> io::Error {
    if let windows_service::Error::Winapi(error) = error { error } else { io::Error::other(error) }
}

fn service_main(_: Vec<OsString>) {
    let Some(manager) = MANAGER.get() else { return };
    let Some(work) = manager.work.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let (stop, _) = watch::channel(false);
    let asked = stop.clone();
    let handler = move |control| {
        if matches!(control, ServiceControl::Stop | ServiceControl::Shutdown) {
            asked.send_replace(true);
        } else if control != ServiceControl::Interrogate {
            return ServiceControlHandlerResult::NotImplemented;
        }
        ServiceControlHandlerResult::NoError
    };
    // without a handle there is nobody to tell anything
    let Ok(status) = service_control_handler::register(&manager.name, handler) else { return };
    let running = RUNNING.get_or_init(|| Running { status, stop });
    running.tell(ServiceState::StartPending, 0);
    let code = work();
    running.tell(ServiceState::Stopped, code);
}

impl Running {
    fn tell(&self, state: ServiceState, code: u32) {
        let is_pending = matches!(state, ServiceState::StartPending | ServiceState::StopPending);
        let is_up = state == ServiceState::Running;
        let _ = self.status.set_service_status(ServiceStatus {
            service_type: ServiceType::OWN_PROCESS,
            current_state: state,
            controls_accepted: if is_up {
                ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN
            } else {
                ServiceControlAccept::empty()
            },
            exit_code: if code == 0 { ServiceExitCode::NO_ERROR } else { ServiceExitCode::ServiceSpecific(code) },
            checkpoint: u32::from(is_pending),
            wait_hint: if is_pending { PATIENCE } else { Duration::ZERO },
            process_id: None,
        });
    }
}

/// Tells the manager that the service is up.
pub fn service_is_up() {
    if let Some(running) = RUNNING.get() {
        running.tell(ServiceState::Running, 0);
    }
}

/// Tells the manager that the service is on its way out.
pub fn service_is_stopping() {
    if let Some(running) = RUNNING.get() {
        running.tell(ServiceState::StopPending, 0);
    }
}

/// Waits until the manager asks the service to stop; for ever where this process is none.
pub async fn service_stop_asked() {
    if let Some(running) = RUNNING.get() {
        let mut stop = running.stop.subscribe();
        // the sender is never dropped
        let _ = stop.wait_for(|asked| *asked).await;
    } else {
        std::future::pending().await
    }
}

/// Sends what this process writes to its standard error, which a service does not have, to the file `path`, and to a fresh one
/// whenever that has grown to 10 MiB; the one before it is kept as `path` with `.old`.
///
/// # Errors
/// The system's; what is written is then lost.
pub fn log_to(path: &Path) -> io::Result<()> {
    let mut log = Log::open(path)?;
    let (mut reader, writer) = io::pipe()?;
    std::thread::Builder::new().name("log".into()).spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(len @ 1..) = reader.read(&mut buffer) {
            log.write(&buffer[..len]);
        }
    })?;
    // SAFETY: the handle is the writing end's, which is open and stays so: nobody owns it from the next line on
    done(unsafe { SetStdHandle(STD_ERROR_HANDLE, writer.as_raw_handle()) })?;
    let _ = writer.into_raw_handle();
    Ok(())
}

struct Log {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), len: file.metadata()?.len(), file })
    }

    /// A disk that refuses loses lines, and nobody waits for it.
    fn write(&mut self, data: &[u8]) {
        if self.len >= LOG {
            let mut old = self.path.as_os_str().to_owned();
            old.push(".old");
            if fs::rename(&self.path, &old).is_ok()
                && let Ok(fresh) = Self::open(&self.path)
            {
                *self = fresh;
            }
        }
        if self.file.write_all(data).is_ok() {
            self.len += data.len() as u64;
        }
    }
}
