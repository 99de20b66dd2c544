//! What Linux has and neither std nor a safe crate offers: threads that go before all others.
//!
//! A room of its own, like `swarm-win32`, because its manifest does not forbid `unsafe`: every call here that the compiler cannot check
//! stands with the reason why it holds, and everything that is exported is safe. On other systems it is empty.
#![cfg(target_os = "linux")]

use std::{io, mem::zeroed};

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

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

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
