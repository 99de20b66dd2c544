//! Single processes: resumed once they are in their job, asked to stop.

use std::{
    io,
    mem::{size_of, zeroed},
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
};

use windows_sys::Win32::{
    Foundation::INVALID_HANDLE_VALUE,
    System::{
        Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent},
        Diagnostics::ToolHelp::{CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next},
        Threading::{OpenThread, ResumeThread, THREAD_SUSPEND_RESUME},
    },
};

use crate::text::done;

/// Lets a process run that was made suspended. It has one thread then, which only a list of all threads of the host tells.
///
/// # Errors
/// It has no thread, or its thread is not ours to resume.
pub fn resume(pid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only
    let list = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
    if list == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle was just opened for us, and nobody else closes it
    let list = unsafe { OwnedHandle::from_raw_handle(list) };
    // SAFETY: the structure is of numbers only
    let mut entry: THREADENTRY32 = unsafe { zeroed() };
    entry.dwSize = size_of::<THREADENTRY32>() as u32;
    // SAFETY: the list is open, and the entry says its own size
    let mut is_there = unsafe { Thread32First(list.as_raw_handle(), &mut entry) };
    while is_there != 0 {
        if entry.th32OwnerProcessID == pid {
            return resume_thread(entry.th32ThreadID);
        }
        // SAFETY: as above
        is_there = unsafe { Thread32Next(list.as_raw_handle(), &mut entry) };
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the process has no thread"))
}

fn resume_thread(id: u32) -> io::Result<()> {
    // SAFETY: takes numbers only
    let handle = unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, id) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle was just opened for us, and nobody else closes it
    let thread = unsafe { OwnedHandle::from_raw_handle(handle) };
    // SAFETY: the handle is a thread's that may be resumed
    let before = unsafe { ResumeThread(thread.as_raw_handle()) };
    if before == u32::MAX { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends Ctrl-Break to a process group that shares our console, named by the process that leads it. A program that does not
/// listen for it ends by it.
///
/// # Errors
/// There is no such group at our console, or we have none.
pub fn ask_to_stop(group: u32) -> io::Result<()> {
    // SAFETY: takes numbers only
    done(unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, group) })
}
