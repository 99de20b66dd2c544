//! Named pipes that only we, the host's administrators and the system may open.

use std::{ffi::OsStr, io, mem::size_of};

use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;

use crate::access::{Descriptor, Inherit};

/// One more instance of the pipe `name`, which waits for a client of this host. To be called inside a tokio runtime.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] where `is_first` and the pipe is there already, or where it is another user's.
pub fn listen(name: &OsStr, is_first: bool) -> io::Result<NamedPipeServer> {
    let descriptor = Descriptor::ours(Inherit::ByNothing)?;
    let mut attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor.as_ptr(),
        bInheritHandle: 0,
    };
    let mut options = ServerOptions::new();
    options.first_pipe_instance(is_first).reject_remote_clients(true);
    // SAFETY: `attributes` is a whole SECURITY_ATTRIBUTES, and its descriptor lives until after the call
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast()) }
}
