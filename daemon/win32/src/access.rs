//! Who may touch what is ours: the system, the host's administrators, and the user this process runs as. Nobody else.
//!
//! Said as a protected access list, which inherits nothing: below %ProgramData% every user may read what inherits.

use std::{
    io,
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
    path::Path,
    ptr::{null, null_mut},
};

use windows_sys::Win32::{
    Foundation::LocalFree,
    Security::{
        ACL,
        Authorization::{
            ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1, SE_FILE_OBJECT,
            SetNamedSecurityInfoW,
        },
        DACL_SECURITY_INFORMATION, GetSecurityDescriptorDacl, GetTokenInformation, PROTECTED_DACL_SECURITY_INFORMATION,
        PSECURITY_DESCRIPTOR, TOKEN_QUERY, TOKEN_USER, TokenUser,
    },
    System::Threading::{GetCurrentProcess, OpenProcessToken},
};

use crate::text::{done, narrow, wide};

/// Longest token of a user: a SID has at most 68 bytes.
const TOKEN: usize = 256;

/// Makes a directory and all that will be in it private.
///
/// # Errors
/// The directory cannot be made, or is another user's.
pub fn make_private(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let descriptor = Descriptor::ours(Inherit::ByContents)?;
    let name = wide(dir)?;
    let what = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
    let list = descriptor.list()?;
    // SAFETY: `name` ends with a NUL, `list` belongs to `descriptor`, which lives on; the null parts are not asked to change
    let code = unsafe { SetNamedSecurityInfoW(name.as_ptr(), SE_FILE_OBJECT, what, null_mut(), null_mut(), list, null()) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}

/// Whether an access list goes on to what a directory holds.
#[derive(Clone, Copy)]
pub(crate) enum Inherit {
    ByNothing,
    ByContents,
}

/// A security descriptor, freed when it is dropped.
pub(crate) struct Descriptor(PSECURITY_DESCRIPTOR);

impl Descriptor {
    /// The system's, the administrators' and this user's.
    pub(crate) fn ours(inherit: Inherit) -> io::Result<Self> {
        let flags = match inherit {
            Inherit::ByNothing => "",
            Inherit::ByContents => "OICI",
        };
        let words = ["SY", "BA", &user()?].map(|who| format!("(A;{flags};GA;;;{who})")).concat();
        let words = wide(format!("D:P{words}"))?;
        let mut descriptor = null_mut();
        // SAFETY: `words` ends with a NUL; the call makes the descriptor and writes where it is; a null size is allowed
        done(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(words.as_ptr(), SDDL_REVISION_1, &mut descriptor, null_mut())
        })?;
        Ok(Self(descriptor))
    }

    pub(crate) const fn as_ptr(&self) -> PSECURITY_DESCRIPTOR {
        self.0
    }

    fn list(&self) -> io::Result<*const ACL> {
        let (mut is_there, mut list, mut is_default) = (0, null_mut(), 0);
        // SAFETY: the descriptor is whole, and the three places outlive the call
        done(unsafe { GetSecurityDescriptorDacl(self.0, &mut is_there, &mut list, &mut is_default) })?;
        Ok(list)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it was allocated for us by the call that made it, and is freed once
        unsafe { LocalFree(self.0) };
    }
}

/// The user of this process, as `S-1-5-..`.
fn user() -> io::Result<String> {
    let mut token = null_mut();
    // SAFETY: the pseudo handle of this process is always good, and `token` outlives the call
    done(unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &mut token) })?;
    // SAFETY: the handle was just opened for us and nobody else closes it
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let mut buffer = [0u64; TOKEN / 8];
    let mut used = 0;
    // SAFETY: the buffer has TOKEN bytes, aligned for the structure that begins it
    done(unsafe { GetTokenInformation(token.as_raw_handle(), TokenUser, buffer.as_mut_ptr().cast(), TOKEN as u32, &mut used) })?;
    // SAFETY: the call has just put a TOKEN_USER at the front of the buffer, which is aligned for it
    let sid = unsafe { buffer.as_ptr().cast::<TOKEN_USER>().read() }.User.Sid;
    let mut text = null_mut();
    // SAFETY: the SID lies in the buffer, which is alive; `text` outlives the call
    done(unsafe { ConvertSidToStringSidW(sid, &mut text) })?;
    let mut len = 0;
    // SAFETY: the text ends with a NUL, and no unit after it is read
    while unsafe { *text.add(len) } != 0 {
        len += 1;
    }
    // SAFETY: `len` units were just read one by one
    let words = narrow(unsafe { std::slice::from_raw_parts(text, len) });
    // SAFETY: allocated for us by the call that made it, and freed once
    unsafe { LocalFree(text.cast()) };
    Ok(words)
}
