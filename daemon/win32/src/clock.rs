//! A clock that goes on while the host sleeps.

use std::time::Duration;

use windows_sys::Win32::System::SystemInformation::GetTickCount64;

/// Time since the host started, suspend and hibernation included; the same in every process. It moves in steps of 10 to 16 ms,
/// which is little beside a lease.
pub fn since_boot() -> Duration {
    // SAFETY: takes nothing and only reads a counter
    Duration::from_millis(unsafe { GetTickCount64() })
}
