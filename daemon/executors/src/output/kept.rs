//! Files of kept output: how they are named, what is missing from them, and which go when there are too many.
//!
//! `j17.3-120.1.stdout` holds the first [`KEPT_OUTPUT`] bytes of a stream, or more until that is a blob, and exists once there is one
//! byte. `j17.3-120.1.written` exists when more was written than was kept, and says how much.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
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

pub(crate) fn save_written(dir: &Path, key: Key, [out, err]: [Written; 2]) -> io::Result<()> {
    let text = format!("{} {} {}\n{} {} {}\n", out.bytes, out.lines, out.kept_bytes, err.bytes, err.lines, err.kept_bytes);
    fs::write(written_path(dir, key), text)
}

/// `None`: the files are all there is.
pub(crate) fn load_written(dir: &Path, key: Key) -> Option<[Written; 2]> {
    written_in(&fs::read_to_string(written_path(dir, key)).ok()?)
}

pub(crate) fn written_in(text: &str) -> Option<[Written; 2]> {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse().ok());
    let mut next = || Some(Written { bytes: numbers.next()??, lines: numbers.next()??, kept_bytes: numbers.next()?? });
    Some([next()?, next()?])
}

/// Cuts files back to [`KEPT_OUTPUT`]. Answers how much less there is. Whoever reads one goes on with what it was.
pub(crate) fn shorten(dir: &Path, key: Key, written: [Written; 2]) -> io::Result<u64> {
    // first what says that they are not all
    save_written(dir, key, written.map(|of| Written { kept_bytes: of.kept_bytes.min(KEPT_OUTPUT), ..of }))?;
    let mut freed = 0;
    for (stream, of) in STREAMS.into_iter().zip(written).filter(|(_, of)| of.kept_bytes > KEPT_OUTPUT) {
        let (path, part) = (path(dir, key, stream), dir.join(format!("{}.part", stem(key))));
        io::copy(&mut fs::File::open(&path)?.take(KEPT_OUTPUT), &mut fs::File::create(&part)?)?;
        fs::rename(&part, &path)?;
        freed += of.kept_bytes - KEPT_OUTPUT;
    }
    Ok(freed)
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
        let of = |bytes| Written { bytes, lines: 5, kept_bytes: bytes };
        fs::write(path(dir.path(), key(1), Stream::Stdout), vec![7; KEPT_OUTPUT as usize + 5]).unwrap();
        fs::write(path(dir.path(), key(1), Stream::Stderr), b"err").unwrap();
        let open = fs::File::open(path(dir.path(), key(1), Stream::Stdout)).unwrap();
        assert_eq!(shorten(dir.path(), key(1), [of(KEPT_OUTPUT + 5), of(3)]).unwrap(), 5);
        let len = |stream| fs::metadata(path(dir.path(), key(1), stream)).unwrap().len();
        assert_eq!((len(Stream::Stdout), len(Stream::Stderr), open.metadata().unwrap().len()), (KEPT_OUTPUT, 3, KEPT_OUTPUT + 5));
        let [stdout, stderr] = load_written(dir.path(), key(1)).unwrap();
        assert_eq!((stdout, stderr), (Written { kept_bytes: KEPT_OUTPUT, ..of(KEPT_OUTPUT + 5) }, of(3)));
    }

    #[test]
    fn what_was_written_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_written(dir.path(), key(1)), None);
        let written = [Written { bytes: 7, lines: 1, kept_bytes: 3 }, Written::default()];
        save_written(dir.path(), key(1), written).unwrap();
        assert_eq!(load_written(dir.path(), key(1)), Some(written));
    }
}
