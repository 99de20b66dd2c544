//! Text as Windows takes it.

use std::{
    ffi::OsStr,
    io,
    os::windows::ffi::{OsStrExt as _, OsStringExt as _},
};

/// UTF-16 with its NUL.
///
/// # Errors
/// A NUL within would cut it short.
pub(crate) fn wide(text: impl AsRef<OsStr>) -> io::Result<Vec<u16>> {
    let mut units: Vec<u16> = text.as_ref().encode_wide().collect();
    if units.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a NUL within a name"));
    }
    units.push(0);
    Ok(units)
}

/// The text of UTF-16 units without their NUL.
pub(crate) fn narrow(units: &[u16]) -> String {
    std::ffi::OsString::from_wide(units).to_string_lossy().into_owned()
}

/// What a call that answers FALSE on failure came to.
pub(crate) fn done(answer: windows_sys::core::BOOL) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
