//! Carries files into working directories and out of them, on threads of its own: it can take long, and starting short tasks must not
//! wait for it.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use swarm_proto::ledger::End;

use super::{
    super::protocol::Key,
    spawn::{Order, Spawner},
};
use crate::files::{collect, stage};

/// More would only share the disk.
const THREADS: usize = 2;
/// Stack of such a thread.
const STACK: usize = 256 << 10;

/// What an attempt is to leave.
pub(super) struct Leaving {
    pub(super) key: Key,
    /// Its directory.
    pub(super) work: PathBuf,
    /// As declared; or why that is not known.
    pub(super) paths: Result<Vec<String>, String>,
    /// Whether one that is missing makes the attempt a failed one.
    pub(super) must_be_there: bool,
    pub(super) to: PathBuf,
}

/// What an attempt left is where the daemon finds it, or why not.
pub(super) type Left = (Key, Result<(), String>);

enum Errand {
    In(Order),
    Out(Leaving),
}

impl Errand {
    const fn key(&self) -> Key {
        match self {
            Self::In(order) => order.key,
            Self::Out(leaving) => leaving.key,
        }
    }
}

struct Shared {
    errands: Mutex<VecDeque<Errand>>,
    is_there: Condvar,
    /// Errands that were begun, and whether nobody wants them any more.
    under_way: Mutex<Vec<(Key, Arc<AtomicBool>)>>,
    left: Mutex<Vec<Left>>,
    spawner: Spawner,
    wake: Arc<OwnedFd>,
}

/// The threads. They end with the process.
pub(super) struct Porter(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what is behind it is whole after each line that holds the lock
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Porter {
    pub(super) fn new(spawner: Spawner, wake: Arc<OwnedFd>) -> std::io::Result<Self> {
        let (errands, under_way, left) = (Mutex::default(), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { errands, is_there: Condvar::new(), under_way, left, spawner, wake });
        for _ in 0..THREADS {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("files".into()).stack_size(STACK).spawn(move || shared.work())?;
        }
        Ok(Self(shared))
    }

    /// Brings an order's inputs, and has its process made then.
    pub(super) fn bring(&self, order: Order) {
        self.send(Errand::In(order));
    }

    /// Takes away what an attempt left; [`Porter::left`] tells when that is done.
    pub(super) fn take(&self, leaving: Leaving) {
        self.send(Errand::Out(leaving));
    }

    fn send(&self, errand: Errand) {
        lock(&self.0.errands).push_back(errand);
        self.0.is_there.notify_one();
    }

    /// Takes an order back; false: it was begun, and fails as soon as that is seen, or is the spawner's already. What was to be taken
    /// away is not, and [`Porter::left`] tells that soon.
    pub(super) fn revoke(&self, key: Key) -> bool {
        let mut errands = lock(&self.0.errands);
        let at = errands.iter().position(|errand| errand.key() == key);
        match at.and_then(|at| errands.remove(at)) {
            Some(Errand::In(_)) => return true,
            Some(Errand::Out(Leaving { key, work, .. })) => {
                drop(errands);
                self.0.is_taken(key, work, Err("it was stopped".into()));
                return true;
            }
            None => {}
        }
        for (_, is_revoked) in lock(&self.0.under_way).iter().filter(|(of, _)| *of == key) {
            is_revoked.store(true, Ordering::Relaxed);
        }
        false
    }

    pub(super) fn left(&self) -> Vec<Left> {
        std::mem::take(&mut lock(&self.0.left))
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut errands = lock(&self.errands);
            let errand = loop {
                match errands.pop_front() {
                    Some(errand) => break errand,
                    None => errands = self.is_there.wait(errands).unwrap_or_else(PoisonError::into_inner),
                }
            };
            let is_revoked = Arc::new(AtomicBool::new(false));
            // before anybody can look for it in the queue again
            lock(&self.under_way).push((errand.key(), Arc::clone(&is_revoked)));
            drop(errands);
            match errand {
                Errand::In(order) => self.bring(order, &is_revoked),
                Errand::Out(leaving) => self.take(leaving, &is_revoked),
            }
            // not by its key: what was brought may have run, and be on its way out
            lock(&self.under_way).retain(|(_, of)| !Arc::ptr_eq(of, &is_revoked));
        }
    }

    fn bring(&self, mut order: Order, is_revoked: &AtomicBool) {
        let key = order.key;
        let user = self.spawner.user();
        let staged = self.spawner.work_dir().map_err(End::Spawn).and_then(|work| {
            let staged = order.inputs.as_ref().map_or(Ok(()), |inputs| stage(inputs, &work, &user, is_revoked));
            if staged.is_err() {
                self.spawner.take_back(work.clone());
            }
            staged.map(|()| work).map_err(End::Input)
        });
        match staged {
            Ok(work) => {
                order.work = Some(work);
                self.spawner.order(vec![order]);
            }
            Err(end) => self.spawner.fail(key, end),
        }
    }

    fn take(&self, leaving: Leaving, is_revoked: &AtomicBool) {
        let Leaving { key, work, paths, must_be_there, to } = leaving;
        let user = self.spawner.user();
        let left = paths.and_then(|paths| collect(&paths, must_be_there, &work, &to, &user, is_revoked));
        self.is_taken(key, work, left);
    }

    /// All that is wanted of its directory is away, or nothing is.
    fn is_taken(&self, key: Key, work: PathBuf, left: Result<(), String>) {
        self.spawner.take_back(work);
        lock(&self.left).push((key, left));
        // a counter that is full wakes just as well
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}
