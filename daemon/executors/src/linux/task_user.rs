//! As whom tasks run, where that is not the keeper's own user.
//!
//! ```text
//!   daemon   user swarmd, no capability              node.key, the ledger: its own, mode 0700
//!   keeper   user swarmd, CAP_SETUID and CAP_KILL     starts, finds and ends what runs as somebody else
//!   tasks    user swarm-task, nothing                 their directories below its home
//! ```
//! The keeper stays who it is. A task's process changes its user between fork and exec, for good. What the keeper itself does in
//! a task's name (making and removing a working directory, making the pipes that a task may want to open by name, reading a
//! task's environment in /proc) it does with the *effective* user id of the tasks, on one thread and for that moment: who may
//! send a signal is judged by the real and the saved id, so no task can ever kill the keeper. Nothing is done to a task's files
//! with a power that its user lacks, so a link laid by a task leads nowhere that the task could not have gone.
//!
//! What it costs: a fork where an unchanged user has `vfork`, so that the shortest tasks start at about half the rate (0.45 to 0.63
//! measured, 900 a second on two busy cores). The user comes from /etc/passwd and /etc/group; directory services are not asked.

use std::{io, path::PathBuf};

use rustix::{
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

/// What a keeper needs to start and end the processes of another user. It gives back all else.
const NEEDED: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::KILL);

/// One user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Beside `gid`: what opens a graphics card, for one.
    pub groups: Vec<u32>,
    /// Working directories are made below it; it must be there, and belong to the user.
    pub home: PathBuf,
}

/// Tasks cannot run as this user; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TaskUserError {
    /// There is no such user in /etc/passwd.
    #[error("there is no user '{0}' in /etc/passwd")]
    Unknown(String),
    /// Tasks never run as root.
    #[error("'{0}' is root, and tasks never run as root")]
    Root(String),
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
}

impl TaskUser {
    /// Looks the user up in this host's files.
    ///
    /// # Errors
    /// [`TaskUserError`].
    pub fn find(name: &str) -> Result<Self, TaskUserError> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|error| TaskUserError::File { path: path.into(), error });
        Self::parse(name, &read("/etc/passwd")?, &read("/etc/group")?)
    }

    pub(crate) fn parse(name: &str, passwd: &str, group: &str) -> Result<Self, TaskUserError> {
        let unknown = || TaskUserError::Unknown(name.to_owned());
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name)).ok_or_else(unknown)?;
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, uid, gid, _, home, ..] = fields.as_slice() else { return Err(unknown()) };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { return Err(unknown()) };
        if uid == 0 {
            return Err(TaskUserError::Root(name.to_owned()));
        }
        let of_group = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, id, members] = fields.as_slice() else { return None };
            members.split(',').any(|member| member == name).then(|| id.parse().ok()).flatten()
        };
        let groups = group.lines().filter_map(of_group).collect();
        Ok(Self { name: name.to_owned(), uid, gid, groups, home: PathBuf::from(home) })
    }

    /// Gives this process the user's groups, and takes from it every capability but the two that it needs. Before any other thread
    /// is there: what is done here is the thread's, and those that come after inherit it.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups)?;
        let gid = Gid::from_raw(self.gid);
        set_thread_res_gid(gid, gid, gid)?;
        if !capabilities(None)?.permitted.contains(NEEDED) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it lacks CAP_SETUID or CAP_KILL"));
        }
        // what is not ambient does not pass to a program that is started
        clear_ambient_capability_set()?;
        // without CAP_SETGID the library's own setgroups, which would take the groups away again, changes nothing
        set_capabilities(None, CapabilitySets { effective: NEEDED, permitted: NEEDED, inheritable: CapabilitySet::empty() })?;
        set_thread_res_uid(None, Uid::from_raw(self.uid), None)?;
        set_thread_res_uid(None, rustix::process::getuid(), None)?;
        Ok(())
    }

    /// The directory of a keeper's working directories: its own, should two of them serve one user.
    pub(super) fn work_dir(&self, keeper: &str) -> PathBuf {
        self.home.join("work").join(keeper)
    }

    /// Why the home directory will not do, for people.
    pub(super) fn explain_home(&self, error: &io::Error) -> String {
        format!("{} of the user {}, where tasks work: {error}", self.home.display(), self.name)
    }
}

/// Does it with the effective user id of the tasks, on this thread. `None`: tasks run as we do.
pub(crate) fn acting_as<T>(user: Option<&TaskUser>, work: impl FnOnce() -> T) -> T {
    let Some(user) = user else { return work() };
    let me = rustix::process::getuid();
    set_thread_res_uid(None, Uid::from_raw(user.uid), None).expect("it was tried when the keeper began");
    let done = work();
    set_thread_res_uid(None, me, None).expect("the saved user id is ours");
    done
}

impl crate::files::Owner for Option<&TaskUser> {
    fn act<T>(&self, work: impl FnOnce() -> T) -> T {
        acting_as(*self, work)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nswarm-task:x:997:996::/var/lib/swarm-task:/usr/sbin/nologin\nodd:x:1\ntoor:x:0:0::/:\n";
    const GROUP: &str = "render:x:104:a,swarm-task\nvideo:x:44:swarm-task\nother:x:7:swarm-tasks\nswarm-task:x:996:\n";

    #[test]
    fn a_user_is_found_with_its_groups() {
        let user = TaskUser::parse("swarm-task", PASSWD, GROUP).unwrap();
        let want = TaskUser { name: "swarm-task".into(), uid: 997, gid: 996, groups: vec![104, 44], home: "/var/lib/swarm-task".into() };
        assert_eq!(user, want);
        assert_eq!(user.work_dir("ab"), Path::new("/var/lib/swarm-task/work/ab"));
    }

    #[test]
    fn what_tasks_cannot_run_as_is_named() {
        let why = |name| TaskUser::parse(name, PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(why("nobody"), "there is no user 'nobody' in /etc/passwd");
        assert_eq!(why("odd"), "there is no user 'odd' in /etc/passwd");
        assert_eq!(why("toor"), "'toor' is root, and tasks never run as root");
    }
}
