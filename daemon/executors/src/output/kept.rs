//! Files of kept output: how they are named, what is missing from them, and which go when there are too many.
//!
//! `j17.3-120.1.stdout` holds the first [`KEPT_OUTPUT`] bytes of a stream, or more until that is a blob, and exists once there is one
//! byte. `j17.3-120.1.written` exists when more was written than was kept, or than the ledger holds: it says how much, and by which
//! checksum it is known that a kept part is what was written. So one that changed on the disk is nobody's answer.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use swarm_proto::{Fence, TaskId, limits::KEPT_OUTPUT, peer::Stream};

use crate::protocol::STREAMS;

type Key = (TaskId, Fence);

/// What a small file takes on disk.
const BLOCK: u64 = 4096;

/// How much of a stream was written, and how much of that is in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
    pub(crate) kept_bytes: u64,
    /// CRC-32 of what is in the file.
    pub(crate) crc: u32,
}

/// A kept part, or what says how much there was, is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} has changed on the disk", .0.display())]
pub(crate) struct Changed(pub(crate) PathBuf);

/// Of these bytes behind others of that checksum.
pub(crate) fn crc_after(crc: u32, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(data);
    hasher.finalize()
}

pub(crate) fn stem((task, fence): Key) -> String {
    format!("{task}-{fence}")
}

pub(crate) fn path(dir: &Path, key: Key, stream: Stream) -> PathBuf {
    let kind = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    dir.join(format!("{}.{kind}", stem(key)))
}

fn written_path(dir: &Path, key: Key) -> PathBuf {
    dir.join(format!("{}.written", stem(key)))
}

pub(crate) fn save_written(dir: &Path, key: Key, written: [Written; 2]) -> io::Result<()> {
    let line = |of: Written| format!("{} {} {} {}\n", of.bytes, of.lines, of.kept_bytes, of.crc);
    let text: String = written.into_iter().map(line).collect();
    let check = crc_after(0, text.as_bytes());
    fs::write(written_path(dir, key), format!("{text}{check}\n"))
}

/// `None`: the files are all there is.
pub(crate) fn load_written(dir: &Path, key: Key) -> Result<Option<[Written; 2]>, Changed> {
    let path = written_path(dir, key);
    let Ok(bytes) = fs::read(&path) else { return Ok(None) };
    // one that a power cut kept from being written says nothing
    if bytes.is_empty() {
        return Ok(None);
    }
    let written = std::str::from_utf8(&bytes).ok().and_then(written_in);
    written.map(Some).ok_or(Changed(path))
}

pub(crate) fn written_in(text: &str) -> Option<[Written; 2]> {
    let (both, check) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    if check.parse() != Ok(crc_after(crc_after(0, both.as_bytes()), b"\n")) {
        return None;
    }
    let mut numbers = both.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
    let mut next = || {
        let (bytes, lines, kept_bytes) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Written { bytes, lines, kept_bytes, crc: u32::try_from(numbers.next()??).ok()? })
    };
    Some([next()?, next()?])
}

/// Whether the kept part of a stream still is what was written. More than is cut back to is not looked at: it is on its way to be a
/// blob, which is verified.
pub(crate) fn check(dir: &Path, key: Key, stream: Stream, written: Written) -> Result<(), Changed> {
    if written.kept_bytes == 0 || written.kept_bytes > KEPT_OUTPUT {
        return Ok(());
    }
    let path = path(dir, key, stream);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(_) => return Err(Changed(path)),
    };
    let (mut crc, mut len, mut piece) = (0, 0, vec![0; 64 << 10]);
    let mut file = file.take(written.kept_bytes);
    while let Ok(count) = file.read(&mut piece)
        && count > 0
    {
        (crc, len) = (crc_after(crc, &piece[..count]), len + count as u64);
    }
    if (len, crc) == (written.kept_bytes, written.crc) { Ok(()) } else { Err(Changed(path)) }
}

/// Cuts files back to [`KEPT_OUTPUT`]. Answers how much less there is. Whoever reads one goes on with what it was.
pub(crate) fn shorten(dir: &Path, key: Key, written: [Written; 2]) -> io::Result<u64> {
    let (mut shorter, mut freed) = (written, 0);
    let is_long = |of: &Written| of.kept_bytes > KEPT_OUTPUT;
    let part = |stream| path(dir, key, stream).with_extension(format!("part{}", u8::from(stream == Stream::Stderr)));
    for (stream, of) in STREAMS.into_iter().zip(&mut shorter).filter(|(_, of)| is_long(of)) {
        freed += of.kept_bytes - KEPT_OUTPUT;
        (of.kept_bytes, of.crc) = (KEPT_OUTPUT, copy_begin(&path(dir, key, stream), &part(stream))?);
    }
    // first what says that they are not all: it is true of the longer ones too
    save_written(dir, key, shorter)?;
    for (stream, _) in STREAMS.into_iter().zip(written).filter(|(_, of)| is_long(of)) {
        fs::rename(part(stream), path(dir, key, stream))?;
    }
    Ok(freed)
}

/// The first [`KEPT_OUTPUT`] bytes of a file into another, and their checksum.
fn copy_begin(from: &Path, to: &Path) -> io::Result<u32> {
    let (mut from, mut to) = (fs::File::open(from)?.take(KEPT_OUTPUT), fs::File::create(to)?);
    let (mut crc, mut piece) = (0, vec![0; 64 << 10]);
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(crc),
            count => {
                crc = crc_after(crc, &piece[..count]);
                to.write_all(&piece[..count])?;
            }
        }
    }
}

pub(crate) fn key_of(name: &str) -> Option<Key> {
    let (task, rest) = name.split_once('-')?;
    let (fence, _kind) = rest.rsplit_once('.')?;
    Some((task.parse().ok()?, fence.parse().ok()?))
}

/// What a file of `len` bytes counts for.
pub(crate) const fn weight(len: u64) -> u64 {
    if len < BLOCK { BLOCK } else { len }
}

/// Removes the oldest output until at most `keep` bytes are left, never that of `live` attempts. Answers what is left.
pub(crate) fn collect(dir: &Path, keep: u64, live: &BTreeSet<Key>) -> io::Result<u64> {
    let mut files: Vec<(SystemTime, u64, Option<Key>, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        let key = entry.file_name().to_str().and_then(key_of);
        files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), weight(meta.len()), key, entry.path()));
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, ..)| bytes).sum();
    for (_, bytes, key, path) in files {
        if total <= keep {
            break;
        }
        if key.is_some_and(|key| live.contains(&key)) {
            continue;
        }
        fs::remove_file(path)?;
        total -= bytes;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use swarm_proto::{AttemptNo, JobId, LogIndex};

    use super::*;

    fn key(job: u64) -> Key {
        (TaskId { job: JobId(job), index: 3 }, Fence { index: LogIndex(9), attempt: AttemptNo(1) })
    }

    #[test]
    fn a_file_s_name_says_whose_it_is() {
        assert_eq!(path(Path::new("d"), key(4), Stream::Stderr), Path::new("d/j4.3-9.1.stderr"));
        assert_eq!(key_of("j4.3-9.1.stderr"), Some(key(4)));
        assert_eq!(key_of("lost+found"), None);
    }

    #[test]
    fn the_oldest_go_first_and_live_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        for job in 1..=4u64 {
            let file = path(dir.path(), key(job), Stream::Stdout);
            fs::write(&file, vec![0; 10_000]).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(job);
            fs::File::options().append(true).open(&file).unwrap().set_modified(at).unwrap();
        }
        assert_eq!(collect(dir.path(), 20_000, &BTreeSet::from([key(1)])).unwrap(), 20_000);
        let there = |job| path(dir.path(), key(job), Stream::Stdout).exists();
        assert_eq!([1, 2, 3, 4].map(there), [true, false, false, true]);
    }

    #[test]
    fn what_is_large_is_cut_back_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (out, err) = (vec![7; KEPT_OUTPUT as usize + 5], b"err");
        let of = |data: &[u8]| Written { bytes: data.len() as u64, lines: 5, kept_bytes: data.len() as u64, crc: crc_after(0, data) };
        fs::write(path(dir.path(), key(1), Stream::Stdout), &out).unwrap();
        fs::write(path(dir.path(), key(1), Stream::Stderr), err).unwrap();
        let open = fs::File::open(path(dir.path(), key(1), Stream::Stdout)).unwrap();
        assert_eq!(shorten(dir.path(), key(1), [of(&out), of(err)]).unwrap(), 5);
        let len = |stream| fs::metadata(path(dir.path(), key(1), stream)).unwrap().len();
        assert_eq!((len(Stream::Stdout), len(Stream::Stderr), open.metadata().unwrap().len()), (KEPT_OUTPUT, 3, KEPT_OUTPUT + 5));
        let [stdout, stderr] = load_written(dir.path(), key(1)).unwrap().unwrap();
        let shorter = Written { kept_bytes: KEPT_OUTPUT, crc: of(&out[..KEPT_OUTPUT as usize]).crc, ..of(&out) };
        assert_eq!((stdout, stderr), (shorter, of(err)));
        for (stream, of) in STREAMS.into_iter().zip([stdout, stderr]) {
            check(dir.path(), key(1), stream, of).unwrap();
        }
    }

    #[test]
    fn what_was_written_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_written(dir.path(), key(1)), Ok(None));
        let written = [Written { bytes: 7, lines: 1, kept_bytes: 3, crc: 9 }, Written::default()];
        save_written(dir.path(), key(1), written).unwrap();
        assert_eq!(load_written(dir.path(), key(1)), Ok(Some(written)));
        let path = written_path(dir.path(), key(1));
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            assert_eq!(load_written(dir.path(), key(1)), Err(Changed(path.clone())), "bit {bit}");
        }
    }

    #[test]
    fn a_kept_part_that_changed_on_the_disk_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), key(1), Stream::Stderr);
        let bytes: Vec<u8> = (0..300u16).map(|n| n.to_le_bytes()[0]).collect();
        let written = Written { bytes: 900, lines: 5, kept_bytes: 300, crc: crc_after(crc_after(0, &bytes[..7]), &bytes[7..]) };
        fs::write(&path, &bytes).unwrap();
        assert_eq!(check(dir.path(), key(1), Stream::Stderr, written), Ok(()));
        let is_found = || assert_eq!(check(dir.path(), key(1), Stream::Stderr, written), Err(Changed(path.clone())));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            is_found();
        }
        fs::write(&path, &bytes[..299]).unwrap();
        is_found();
        fs::remove_file(&path).unwrap();
        is_found();
    }
}
