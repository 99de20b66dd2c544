//! What Linux has and neither std nor a safe crate offers: threads that go before all others.
//!
//! A room of its own, like `swarm-win32`, because its manifest does not forbid `unsafe`: every call here that the compiler cannot check
//! stands with the reason why it holds, and everything that is exported is safe. On other systems it is empty.
#![cfg(target_os = "linux")]

use std::{fs, io, mem::zeroed, path::Path};

/// The lowest real-time priority: before everything that shares time, behind everything that the host itself put higher.
const LOWEST: libc::c_int = 1;

/// The calling thread goes before all threads of ordinary priority from now on (`SCHED_RR` at priority 1, sched(7)). Threads and
/// processes that it makes are ordinary again (`SCHED_RESET_ON_FORK`). The kernel keeps a part of each second for ordinary threads
/// (`/proc/sys/kernel/sched_rt_runtime_us`), so that a fault here does not take the host away.
///
/// # Errors
/// `PermissionDenied` where neither `RLIMIT_RTPRIO` (`LimitRTPRIO=` in a unit) nor `CAP_SYS_NICE` allows it.
pub fn go_first() -> io::Result<()> {
    // SAFETY: the structure is of numbers only
    let mut param: libc::sched_param = unsafe { zeroed() };
    param.sched_priority = LOWEST;
    // The system call itself: musl answers its wrapper with ENOSYS, because POSIX means the process where Linux means the thread.
    // SAFETY: 0 is the calling thread; the structure lives through the call, which only reads it
    let done = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes of memory that this process may use, by its control groups (cgroups(7), either version) and its limits (getrlimit(2)): the
/// least of them. `None`: nothing holds it to less than the host has.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    least(group_limits(&groups, Path::new("/sys/fs/cgroup")), process_limits(&limits))
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// What the groups of the process and those above them allow; `root` is where they are mounted.
fn group_limits(groups: &str, root: &Path) -> Option<u64> {
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        // a container sees its own group as the root, whatever its path says
        let places = Path::new(path.trim_start_matches('/')).ancestors().map(|group| mount.join(group).join(file));
        places.filter_map(|place| fs::read_to_string(place).ok()?.trim().parse::<u64>().ok()).min()
    };
    groups.lines().filter_map(of).min()
}

/// What the table of /proc/self/limits (proc(5)) says of data and of address space.
fn process_limits(table: &str) -> Option<u64> {
    let of = |name: &str| table.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    least(of("Max data size"), of("Max address space"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_least_of_what_holds_it_counts() {
        let dir = std::env::temp_dir().join(format!("swarm-linux-{}", std::process::id()));
        for (group, file, text) in [
            ("", "memory.max", "max\n"),
            ("a", "memory.max", "4096\n"),
            ("a/b", "memory.max", "max\n"),
            ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/c", "memory.limit_in_bytes", "1024\n"),
        ] {
            fs::create_dir_all(dir.join(group)).unwrap();
            fs::write(dir.join(group).join(file), text).unwrap();
        }
        let of = |groups: &str| group_limits(groups, &dir);
        assert_eq!(of("0::/a/b\n"), Some(4096), "a group above it");
        assert_eq!(of("0::/elsewhere\n"), None);
        assert_eq!(of("5:cpu,cpuacct:/a\n4:memory:/c\n0::/a/b\n"), Some(1024));
        assert_eq!(of("4:memory:/not/seen/here\n"), Some(9_223_372_036_854_771_712), "the root of what a container sees");
        assert_eq!(of("nonsense\n:\n"), None);
        let table = |data: &str, space: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax data size   {data}  unlimited  bytes\nMax address space {space}  {space} bytes\n"
            )
        };
        assert_eq!(process_limits(&table("unlimited", "unlimited")), None);
        assert_eq!(process_limits(&table("268435456", "unlimited")), Some(268_435_456));
        assert_eq!(process_limits(&table("268435456", "1000")), Some(1_000));
        fs::remove_dir_all(&dir).unwrap();
        assert!(memory_limit().is_none_or(|limit| limit > 1 << 20), "the one that it has");
    }

    /// The policy of the calling thread: field 41 of proc(5)'s stat.
    fn policy() -> String {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(41 - 3).unwrap().to_owned()
    }

    #[test]
    fn only_the_thread_that_asks_goes_first_and_not_what_it_makes() {
        thread::spawn(|| match go_first() {
            Ok(()) => {
                assert_eq!(policy(), libc::SCHED_RR.to_string());
                let made = thread::spawn(policy).join().unwrap();
                assert_eq!(made, libc::SCHED_OTHER.to_string());
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                assert_eq!(policy(), libc::SCHED_OTHER.to_string());
            }
        })
        .join()
        .unwrap();
        assert_eq!(policy(), libc::SCHED_OTHER.to_string());
    }
}
