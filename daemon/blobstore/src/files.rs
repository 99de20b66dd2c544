//! Files as the store needs them: read and written at a place, without a cursor; room taken before it is used.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// Opens for reading and writing; makes it when it is not there.
pub(crate) fn open_or_make(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// What direct I/O is aligned to, in memory and in the file; every disk's sector divides it.
const ALIGNED: usize = 4096;

/// Memory that direct I/O takes. It is cleared once, and then goes round.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// So many bytes, of any content.
    pub(crate) fn resize(&mut self, len: usize) -> &mut [u8] {
        if self.memory.len() < len + ALIGNED {
            self.memory = vec![0; len + ALIGNED];
        }
        self.len = len;
        let start = self.start();
        &mut self.memory[start..start + len]
    }

    fn start(&self) -> usize {
        self.memory.as_ptr().align_offset(ALIGNED).min(ALIGNED)
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start()..self.start() + self.len]
    }
}

/// Opens a file again, to be written past the page cache: what is large would only push everything else out of it, and would have to
/// be written all the same. `None` where the file system does not take that.
#[cfg(target_os = "linux")]
pub(crate) fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

/// Only Linux has it in this form.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open_direct(_: &Path) -> Option<File> {
    None
}

/// Whether direct I/O takes these bytes.
pub(crate) fn is_aligned(data: &[u8]) -> bool {
    data.len().is_multiple_of(ALIGNED) && data.as_ptr().align_offset(ALIGNED) == 0
}

/// Makes a file that must not be there yet.
pub(crate) fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// `len` bytes from `at`, in memory that is empty; what they fill of it is not cleared before.
#[cfg(unix)]
pub(crate) fn read(file: &File, at: u64, len: usize, mut data: Vec<u8>) -> io::Result<Vec<u8>> {
    data.reserve_exact(len);
    while data.len() < len {
        let from = at + data.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut data), from) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    data.truncate(len);
    Ok(data)
}

/// `len` bytes from `at`, in memory that is empty.
#[cfg(windows)]
pub(crate) fn read(file: &File, at: u64, len: usize, mut data: Vec<u8>) -> io::Result<Vec<u8>> {
    data.resize(len, 0);
    read_at(file, &mut data, at)?;
    Ok(data)
}

/// Fills `buf` from `at`.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buf: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, at)
}

/// Fills `buf` from `at`.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut buf: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buf, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => {
                buf = &mut buf[got..];
                at += got as u64;
            }
        }
    }
    Ok(())
}

/// Writes all of `data` at `at`.
#[cfg(unix)]
pub(crate) fn write_at(file: &File, data: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, at)
}

/// Writes all of `data` at `at`.
#[cfg(windows)]
pub(crate) fn write_at(file: &File, mut data: &[u8], mut at: u64) -> io::Result<()> {
    while !data.is_empty() {
        let put = std::os::windows::fs::FileExt::seek_write(file, data, at)?;
        data = &data[put..];
        at += put as u64;
    }
    Ok(())
}

/// Has the file system set `size` bytes aside, so that a transfer that was begun does not end for want of room. Where the file
/// system cannot, the file only grows to that size.
pub(crate) fn set_aside(file: &File, size: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if size > 0 {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(e) => return Err(e.into()),
        }
    }
    file.set_len(size)
}

/// Whether there is nothing but zeros in it.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    const ZEROS: [u8; ALIGNED] = [0; ALIGNED];
    data.chunks(ALIGNED).all(|piece| *piece == ZEROS[..piece.len()])
}

/// Makes a hole in a file, which reads as zeros and gives its room back; answers whether this file system can.
pub(crate) fn clear(file: &File, at: u64, len: u64) -> bool {
    #[cfg(target_os = "linux")]
    {
        let how = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        len > 0 && rustix::fs::fallocate(file, how, at, len).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, at, len);
        false
    }
}

/// What is in a directory.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// The files in directories below one; what lies beside these is nobody's.
pub(crate) fn on_shelves(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for shelf in list(dir)?.into_iter().filter(|path| path.is_dir()) {
        paths.extend(list(&shelf)?);
    }
    Ok(paths)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return File::open(dir)?.sync_all();
    // NTFS journals names by itself, and a directory cannot be opened as a file
    #[cfg(windows)]
    {
        let _ = dir;
        Ok(())
    }
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A whole file; `None` when it is not there or is longer than `limit`.
pub(crate) fn read_small(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() <= limit => fs::read(path).map(Some),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Names this run of the host's kernel: what a file that was never synced says is only true while it lasts. Empty where the host
/// does not tell, and then nothing of the kind is true of the past.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
