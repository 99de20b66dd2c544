//! Room on a volume.

use std::{io, path::Path};

use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;

use crate::text::{done, wide};

/// Bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// In all, for this user.
    pub total: u64,
    /// Left, for this user.
    pub free: u64,
}

/// Room on the volume that holds the directory `dir`; quotas count.
///
/// # Errors
/// The system's: no such directory, no such volume.
pub fn space_of(dir: &Path) -> io::Result<Space> {
    let name = wide(dir)?;
    let mut space = Space { total: 0, free: 0 };
    // SAFETY: `name` ends with a NUL, both places outlive the call, and a null third place is allowed
    done(unsafe { GetDiskFreeSpaceExW(name.as_ptr(), &mut space.free, &mut space.total, std::ptr::null_mut()) })?;
    Ok(space)
}
