//! Out of a task's directory: first all that is to be taken is looked at, then it is copied.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use swarm_proto::{limits, manifest::check_path};

use super::{Owner, PIECE, make, make_private};
use crate::host::below::{Below, Listing};

/// What is at a path below a task's directory.
pub(crate) enum Found {
    File(Regular),
    Directory(Listing),
    /// It is a link, or lies behind one.
    Link,
    /// A pipe, a socket, a device.
    Other,
}

/// A file, open to be read.
pub(crate) struct Regular {
    pub(crate) file: File,
    pub(crate) len: u64,
    pub(crate) is_executable: bool,
}

/// What one attempt may leave.
#[derive(Clone, Copy)]
struct Bounds {
    files: usize,
    bytes: u64,
}

const BOUNDS: Bounds = Bounds { files: limits::FILES, bytes: limits::BLOB };

/// Copies what was declared from `dir` to `to`, which is made. `must_be_there`: one that is missing is an error; otherwise it is left out.
/// Stops where `is_revoked` becomes true.
///
/// # Errors
/// Which path, and why. Then nothing is at `to`.
pub(crate) fn collect(
    paths: &[String],
    must_be_there: bool,
    dir: &Path,
    to: &Path,
    owner: &impl Owner,
    is_revoked: &AtomicBool,
) -> Result<(), String> {
    let below = owner.act(|| Below::new(dir));
    Collection { below, to, owner, is_revoked, bounds: BOUNDS }.run(paths, must_be_there)
}

struct Collection<'a, O> {
    below: Below,
    to: &'a Path,
    owner: &'a O,
    is_revoked: &'a AtomicBool,
    bounds: Bounds,
}

/// What is to be copied.
#[derive(Default)]
struct Plan {
    files: BTreeSet<String>,
    bytes: u64,
}

impl<O: Owner> Collection<'_, O> {
    fn run(&self, paths: &[String], must_be_there: bool) -> Result<(), String> {
        // what an earlier try left
        let _ = fs::remove_dir_all(self.to);
        let plan = self.owner.act(|| self.plan(paths, must_be_there))?;
        let done = self.copy_all(&plan);
        if done.is_err() {
            let _ = fs::remove_dir_all(self.to);
        }
        done
    }

    fn plan(&self, paths: &[String], must_be_there: bool) -> Result<Plan, String> {
        let mut plan = Plan::default();
        for path in paths {
            match self.look(path, &mut plan) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && !must_be_there => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(format!("'{path}' is not there")),
                done => done.map_err(|e| format!("'{path}': {e}"))?,
            }
        }
        Ok(plan)
    }

    /// A file, or all that is below a directory.
    fn look(&self, declared: &str, plan: &mut Plan) -> io::Result<()> {
        let mut waiting = vec![declared.to_owned()];
        while let Some(path) = waiting.pop() {
            self.go_on()?;
            match self.below.find(&path)? {
                Found::File(file) => self.add(path, file.len, plan)?,
                Found::Directory(_) if path.len() > limits::PATH => {
                    return Err(io::Error::other(format!("there is a path of more than {} bytes", limits::PATH)));
                }
                Found::Directory(listing) => listing.names(|name| {
                    waiting.push(format!("{path}/{name}"));
                    if waiting.len() > self.bounds.files { Err(self.too_many()) } else { Ok(()) }
                })?,
                Found::Link if path == declared => {
                    return Err(io::Error::other("it is a link or lies behind one, and links are not followed"));
                }
                Found::Link => {}
                Found::Other => return Err(io::Error::other(format!("'{path}' is neither a file nor a directory"))),
            }
        }
        Ok(())
    }

    fn add(&self, path: String, len: u64, plan: &mut Plan) -> io::Result<()> {
        check_path(&path).map_err(|problem| io::Error::other(problem.why))?;
        if plan.files.insert(path) {
            plan.bytes = plan.bytes.saturating_add(len);
        }
        if plan.files.len() > self.bounds.files {
            return Err(self.too_many());
        }
        self.check_bytes(plan.bytes)
    }

    fn copy_all(&self, plan: &Plan) -> Result<(), String> {
        make_private(self.to).map_err(|e| e.to_string())?;
        let (mut bytes, mut buffer) = (0, vec![0; PIECE]);
        for path in &plan.files {
            self.copy(path, &mut bytes, &mut buffer).map_err(|e| format!("'{path}': {e}"))?;
        }
        Ok(())
    }

    fn copy(&self, path: &str, bytes: &mut u64, buffer: &mut [u8]) -> io::Result<()> {
        let Found::File(Regular { file, len, is_executable }) = self.owner.act(|| self.below.find(path))? else {
            return Err(io::Error::other("it was a file, and became something else"));
        };
        // it may have grown since it was looked at, and may still grow
        *bytes = bytes.saturating_add(len);
        self.check_bytes(*bytes)?;
        let mut source = file.take(len);
        let target = self.to.join(path);
        target.parent().map_or(Ok(()), make_private)?;
        let mut target = make(&target, if is_executable { 0o700 } else { 0o600 })?;
        loop {
            self.go_on()?;
            match source.read(buffer)? {
                0 => return Ok(()),
                count => target.write_all(&buffer[..count])?,
            }
        }
    }

    fn go_on(&self) -> io::Result<()> {
        if self.is_revoked.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn check_bytes(&self, bytes: u64) -> io::Result<()> {
        let most = self.bounds.bytes;
        let refuse = || io::Error::other(format!("what it leaves has {bytes} bytes or more, and may have {most}"));
        if bytes > most { Err(refuse()) } else { Ok(()) }
    }

    fn too_many(&self) -> io::Error {
        io::Error::other(format!("there are more than {} files", self.bounds.files))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::tests::Me, *};

    fn paths(list: &[&str]) -> Vec<String> {
        list.iter().map(|path| (*path).to_owned()).collect()
    }

    fn collected(list: &[&str], must_be_there: bool, dir: &Path, to: &Path) -> Result<(), String> {
        collect(&paths(list), must_be_there, dir, to, &Me, &AtomicBool::new(false))
    }

    /// A root to be kept, a directory to take from, and where to.
    fn places() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (dir, to) = (root.path().join("work"), root.path().join("left").join("j1.0-1.1"));
        fs::create_dir(&dir).unwrap();
        (root, dir, to)
    }

    #[test]
    fn what_was_declared_is_collected() {
        let (_root, dir, to) = places();
        fs::create_dir_all(dir.join("out/deep")).unwrap();
        for (path, text) in [("one", "1"), ("out/two", "2"), ("out/deep/three", "3"), ("other", "4")] {
            fs::write(dir.join(path), text).unwrap();
        }
        collected(&["one", "out", "out/two"], true, &dir, &to).unwrap();
        for (path, text) in [("one", "1"), ("out/two", "2"), ("out/deep/three", "3")] {
            assert_eq!(fs::read_to_string(to.join(path)).unwrap(), text);
        }
        assert!(!to.join("other").exists());
        let why = collected(&["one", "none"], true, &dir, &to).unwrap_err();
        assert!(why.contains("'none' is not there") && !to.exists(), "{why}");
        collected(&["one", "none"], false, &dir, &to).unwrap();
        assert!(to.join("one").exists());
        let why = collect(&paths(&["one"]), true, &dir, &to, &Me, &AtomicBool::new(true)).unwrap_err();
        assert!(why.contains("'one'") && !to.exists(), "{why}");
    }

    #[test]
    fn more_than_may_be_is_refused_before_anything_is_copied() {
        let (_root, dir, to) = places();
        fs::create_dir_all(dir.join("out/deep")).unwrap();
        for path in ["out/a", "out/deep/b", "c"] {
            fs::write(dir.join(path), "1234").unwrap();
        }
        let within = |files, bytes| {
            let (bounds, is_revoked) = (Bounds { files, bytes }, AtomicBool::new(false));
            Collection { below: Below::new(&dir), to: &to, owner: &Me, is_revoked: &is_revoked, bounds }
                .run(&paths(&["out", "c", "c"]), true)
        };
        within(3, 12).unwrap();
        for (files, bytes, want) in [(2, 12, "'c': there are more than 2 files"), (1, 12, "more than 1 files"), (3, 11, "and may have 11")]
        {
            let why = within(files, bytes).unwrap_err();
            assert!(why.contains(want) && !to.exists(), "{why}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_large_hole_is_refused_at_once() {
        let (_root, dir, to) = places();
        fs::write(dir.join("small"), "small").unwrap();
        File::create(dir.join("hole")).unwrap().set_len(4 << 40).unwrap();
        let begun = std::time::Instant::now();
        let why = collected(&["small", "hole"], true, &dir, &to).unwrap_err();
        assert!(why.contains("'hole': what it leaves has 4398046511109 bytes or more") && !to.exists(), "{why}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_file_is_refused_and_links_lead_nowhere() {
        use std::os::unix::fs::symlink;
        let (root, dir, to) = places();
        fs::create_dir_all(dir.join("out")).unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        for (target, link) in [("..", "out/up"), ("../../secret", "out/secret"), ("none", "out/hangs"), ("out", "way"), ("out/a", "same")] {
            symlink(target, dir.join(link)).unwrap();
        }
        fs::write(dir.join("out/a"), "a").unwrap();
        collected(&["out"], true, &dir, &to).unwrap();
        let names: Vec<_> = fs::read_dir(to.join("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
        for link in ["way", "way/a", "same", "out/secret", "out/up/out/a"] {
            for must_be_there in [true, false] {
                let why = collected(&[link], must_be_there, &dir, &to).unwrap_err();
                assert!(why.contains(&format!("'{link}': it is a link")) && !to.exists(), "{why}");
            }
        }
        fs::write(dir.join("out/a:b"), "").unwrap();
        assert!(collected(&["out"], true, &dir, &to).unwrap_err().contains("not every system"));
        fs::create_dir(dir.join("pipes")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipes/pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in ["pipes/pipe", "pipes"] {
            assert!(collected(&[path], true, &dir, &to).unwrap_err().contains("'pipes/pipe' is neither a file"));
        }
    }
}
