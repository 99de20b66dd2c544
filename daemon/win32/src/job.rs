//! Job objects: processes that end together.
//!
//! What a process in a job starts is in the job too, and cannot leave it. Jobs nest, so a process may be in several.

use std::{
    io,
    mem::{size_of, zeroed},
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
    ptr::{null, null_mut},
};

use tokio::process::Child;
use windows_sys::Win32::System::{
    JobObjects::{
        AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
        JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectBasicAccountingInformation, JobObjectExtendedLimitInformation, OpenJobObjectW,
        QueryInformationJobObject, SetInformationJobObject, TerminateJobObject,
    },
    SystemServices::JOB_OBJECT_TERMINATE,
    Threading::GetCurrentProcess,
};

use crate::text::{done, wide};

/// A job whose processes die with the last handle of it.
pub struct Job(OwnedHandle);

impl Job {
    /// An empty job, by name where others are to find it.
    ///
    /// # Errors
    /// The system's.
    pub fn create(name: Option<&str>) -> io::Result<Self> {
        let name = name.map(wide).transpose()?;
        // SAFETY: the name ends with a NUL or is null, and null attributes mean the default
        let handle = unsafe { CreateJobObjectW(null(), name.as_ref().map_or(null(), |name| name.as_ptr())) };
        let job = Self::owned(handle)?;
        // SAFETY: the structure is of numbers only, and all zero means no limit
        let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = unsafe { zeroed() };
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        let len = size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32;
        // SAFETY: the handle is a job's, and the structure is the one that belongs to the class
        done(unsafe {
            SetInformationJobObject(job.0.as_raw_handle(), JobObjectExtendedLimitInformation, (&raw const limits).cast(), len)
        })?;
        Ok(job)
    }

    /// Ends all processes of the job of that name; whether there was one. Only whoever made it may.
    ///
    /// # Errors
    /// The system's.
    pub fn end_named(name: &str) -> io::Result<bool> {
        let name = wide(name)?;
        // SAFETY: the name ends with a NUL
        match Self::owned(unsafe { OpenJobObjectW(JOB_OBJECT_TERMINATE, 0, name.as_ptr()) }) {
            Ok(job) => job.end().map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn owned(handle: *mut std::ffi::c_void) -> io::Result<Self> {
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle was just opened for us, and nobody else closes it
        Ok(Self(unsafe { OwnedHandle::from_raw_handle(handle) }))
    }

    /// Takes a process in, and with it all that it will start.
    ///
    /// # Errors
    /// It has ended, or is in a job with which this one cannot be nested.
    pub fn adopt(&self, child: &Child) -> io::Result<()> {
        let process = child.raw_handle().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has ended"))?;
        // SAFETY: both handles are open for as long as their owners are borrowed
        done(unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), process) })
    }

    /// Takes this process in: it dies with the job, and so does all that it starts from now on.
    ///
    /// # Errors
    /// As [`Job::adopt`].
    pub fn adopt_this_process(&self) -> io::Result<()> {
        // SAFETY: the job is open, and the pseudo handle of this process is always good
        done(unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), GetCurrentProcess()) })
    }

    /// How many of its processes live.
    ///
    /// # Errors
    /// The system's.
    pub fn living(&self) -> io::Result<u32> {
        // SAFETY: the structure is of numbers only
        let mut counts: JOBOBJECT_BASIC_ACCOUNTING_INFORMATION = unsafe { zeroed() };
        let len = size_of::<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION>() as u32;
        let class = JobObjectBasicAccountingInformation;
        // SAFETY: the handle is a job's, the structure is the one that belongs to the class, and a null length is allowed
        done(unsafe { QueryInformationJobObject(self.0.as_raw_handle(), class, (&raw mut counts).cast(), len, null_mut()) })?;
        Ok(counts.ActiveProcesses)
    }

    /// Ends every process in it. They are gone a moment later: see [`Job::living`].
    ///
    /// # Errors
    /// The system's.
    pub fn end(&self) -> io::Result<()> {
        // SAFETY: the handle is a job's
        done(unsafe { TerminateJobObject(self.0.as_raw_handle(), 1) })
    }
}
