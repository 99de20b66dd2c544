//! The pace of the disk itself: how long one fdatasync takes, alone and beside two others.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use swarm_proto::{Code, Problem};

/// A file as the log writes it: filled ahead, so that a sync touches no metadata.
const FILE: usize = 8 << 20;
const WRITE: usize = 512;
const TIME: Duration = Duration::from_millis(400);

/// What was measured, in milliseconds.
pub(crate) struct Pace {
    pub(crate) alone: f64,
    pub(crate) three: f64,
    pub(crate) fs: String,
}

/// How long one sync takes, in milliseconds, and how many there are a second of all writers together.
#[derive(Clone, Copy, Debug)]
pub struct Syncs {
    pub p50: f64,
    pub p99: f64,
    pub per_s: f64,
}

/// Measures the disk that holds `dir`.
pub(crate) async fn pace(dir: PathBuf) -> Result<Pace, Problem> {
    let measured = tokio::task::spawn_blocking(move || {
        let fs = filesystem(&dir);
        Ok::<_, std::io::Error>(Pace { alone: writers(&dir, 1)?.p50, three: writers(&dir, 3)?.p50, fs })
    });
    let failed = |why: String| Problem::new(Code::Internal, "the disk is not measured", why);
    measured.await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
}

/// So many writers at once, each with a file of its own in `dir`, for 0.4 s: 512 B and a sync, again and again.
///
/// # Errors
/// The disk's. Files may be left there.
pub fn writers(dir: &Path, count: usize) -> std::io::Result<Syncs> {
    let threads: Vec<_> = (0..count)
        .map(|n| {
            let path = dir.join(format!("pace-{n}"));
            std::thread::spawn(move || one_writer(&path))
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_| std::io::Error::other("a writer panicked"))??);
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let per_s = all.len() as f64 / TIME.as_secs_f64();
    let [p50, p99] = [0.5, 0.99].map(|part| super::load::percentile(&mut all, part));
    Ok(Syncs { p50, p99, per_s })
}

fn one_writer(path: &Path) -> std::io::Result<Vec<f64>> {
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    file.write_all(&vec![0; FILE])?;
    file.sync_all()?;
    let (end, mut at, mut took) = (Instant::now() + TIME, 0, Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&[7; WRITE])?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        at = (at + WRITE as u64) % (FILE as u64 - WRITE as u64);
    }
    fs::remove_file(path)?;
    Ok(took)
}

/// How long one sync takes, half of the time, in milliseconds; `path` is made for it.
pub(crate) fn sync_p50(path: &Path) -> std::io::Result<f64> {
    Ok(super::load::percentile(&mut one_writer(path)?, 0.5))
}

/// The type of the file system that holds a path, as the kernel names it.
pub fn filesystem(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let holding = holding.filter(|(point, _)| path.starts_with(point));
    holding.max_by_key(|(point, _)| point.len()).map_or_else(|| "unknown".into(), |(_, kind)| kind.to_owned())
}

/// Whether what is written there would be in memory only.
pub fn is_memory(path: &Path) -> bool {
    matches!(filesystem(path).as_str(), "tmpfs" | "ramfs" | "devtmpfs")
}
