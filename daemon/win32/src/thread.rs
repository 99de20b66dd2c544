//! Threads that go before others.

use std::io;

use windows_sys::Win32::System::Threading::{GetCurrentThread, SetThreadPriority, THREAD_PRIORITY_HIGHEST};

use crate::text::done;

/// The calling thread goes before all others of this class from now on; threads and processes that it makes do not.
///
/// # Errors
/// What the system says.
pub fn go_first() -> io::Result<()> {
    // SAFETY: a pseudo handle of the calling thread, and a number
    done(unsafe { SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_HIGHEST) })
}
