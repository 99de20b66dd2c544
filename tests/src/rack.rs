//! Disks whose power is cut: an ext4 file system for each host, on loop devices, all in one file that is copied in one step.
//!
//! ```text
//!   shelf.img      XFS, which copies a file of any size in one step, by sharing its blocks
//!     |- rack.img  | disk of host1 | disk of host2 | disk of host3 |     each mounted where a daemon has its state
//!     '- cut.img   the same at one instant: what the disks had, in the midst of a sync too, and nothing of what was in memory
//! ```
//! A copy flushes nothing, stops nobody, and is of all disks at the same moment. Everything is mounted in a mount namespace of the
//! test's own thread, so it goes with the test and its daemons, however they end. Needs root.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::thread::UnshareFlags;

use crate::skip;

/// Disks of one size.
pub struct Rack {
    shelf: PathBuf,
    /// Where each is mounted.
    at: Vec<PathBuf>,
    size: u64,
}

/// A mount namespace for this thread and whatever it starts.
#[expect(deprecated, reason = "what is unsafe about it is another flag, and unsafe code is forbidden here")]
fn own_mounts() -> Result<(), String> {
    rustix::thread::unshare(UnshareFlags::NEWNS).map_err(|e| format!("no mount namespace of its own: {e}"))?;
    run(Command::new("mount").args(["--make-rprivate", "/"]))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|e| format!("{program}: {e}"))?;
    if done.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim())) }
}

/// Of which nothing is on the disk yet.
fn make_file(path: &Path, len: u64) -> Result<(), String> {
    File::create(path).and_then(|file| file.set_len(len)).map_err(|e| format!("{}: {e}", path.display()))
}

impl Rack {
    /// Makes and mounts a disk of `size` bytes at each of these directories; `dir` holds the files. To be called by a test that stays on
    /// one thread, before it starts anything. `None`, said on stderr, where this user or this host cannot.
    pub fn mount(dir: &Path, at: &[&Path], size: u64) -> Option<Self> {
        let rack = Self { shelf: dir.join("shelf"), at: at.iter().map(|at| at.to_path_buf()).collect(), size };
        match rack.make(&dir.join("shelf.img")) {
            Ok(()) => Some(rack),
            Err(why) => {
                skip(&format!("disks whose power is cut: {why}"));
                None
            }
        }
    }

    /// Puts these directories on one disk, which says that it has `size` bytes and takes of this host's only what is written. As
    /// [`Self::mount`], but no power is cut.
    pub fn vast(dir: &Path, at: &[&Path], size: u64) -> Option<Self> {
        let rack = Self { shelf: dir.join("shelf"), at: at.iter().map(|at| at.to_path_buf()).collect(), size };
        let bound = || {
            rack.make_shelf(&dir.join("shelf.img"), size)?;
            for (n, at) in rack.at.iter().enumerate() {
                let place = rack.shelf.join(n.to_string());
                fs::create_dir_all(&place).and_then(|()| fs::create_dir_all(at)).map_err(|e| e.to_string())?;
                run(Command::new("mount").arg("--bind").arg(place).arg(at))?;
            }
            Ok::<_, String>(())
        };
        match bound() {
            Ok(()) => Some(rack),
            Err(why) => {
                skip(&format!("a disk that is larger than this host's: {why}"));
                None
            }
        }
    }

    fn make_shelf(&self, image: &Path, size: u64) -> Result<(), String> {
        own_mounts()?;
        make_file(image, size)?;
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(image))?;
        fs::create_dir_all(&self.shelf).map_err(|e| e.to_string())?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&self.shelf))
    }

    fn make(&self, image: &Path) -> Result<(), String> {
        self.make_shelf(image, 8 << 30)?;
        make_file(&self.image("rack"), self.size * self.at.len() as u64)?;
        for n in 0..self.at.len() {
            let offset = format!("offset={},nodiscard", self.offset(n));
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-b", "4096", "-J", "size=8", "-E", &offset]).arg(self.image("rack"));
            run(mkfs.arg(format!("{}k", self.size >> 10)))?;
        }
        // not before all are made: it makes none in a file that is mounted
        for (n, at) in self.at.iter().enumerate() {
            fs::create_dir_all(at).map_err(|e| e.to_string())?;
            self.mount_one(n)?;
        }
        Ok(())
    }

    fn image(&self, name: &str) -> PathBuf {
        self.shelf.join(name).with_extension("img")
    }

    const fn offset(&self, n: usize) -> u64 {
        n as u64 * self.size
    }

    fn mount_one(&self, n: usize) -> Result<(), String> {
        let part = format!("loop,offset={},sizelimit={}", self.offset(n), self.size);
        run(Command::new("mount").args(["-o", &part]).arg(self.image("rack")).arg(&self.at[n]))
    }

    /// What all disks have at this moment.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn freeze(&self) {
        run(Command::new("cp").arg("--reflink=always").arg(self.image("rack")).arg(self.image("cut"))).expect("a copy in one step");
    }

    /// Puts what all disks had at the last [`Self::freeze`] in their place. Nobody may use them.
    ///
    /// # Panics
    /// Somebody does.
    pub async fn restore_all(&self) {
        for n in 0..self.at.len() {
            self.unmount(n).await;
        }
        fs::rename(self.image("cut"), self.image("rack")).expect("renamed");
        for n in 0..self.at.len() {
            self.mount_one(n).expect("a disk after a power cut");
        }
    }

    /// The same for one of them.
    ///
    /// # Panics
    /// Somebody uses it.
    pub async fn restore_one(&self, n: usize) {
        self.unmount(n).await;
        let share = format!("reflink {} {} {} {}", self.image("cut").display(), self.offset(n), self.offset(n), self.size);
        run(Command::new("xfs_io").args(["-c", &share]).arg(self.image("rack"))).expect("put back in one step");
        self.mount_one(n).expect("a disk after a power cut");
    }

    async fn unmount(&self, n: usize) {
        // what was killed a moment ago may still let go of its files
        crate::eventually("nobody uses the disk", async || run(Command::new("umount").arg(&self.at[n])).ok()).await;
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        for at in self.at.iter().chain([&self.shelf]) {
            let _ = run(Command::new("umount").arg("-l").arg(at));
        }
    }
}
