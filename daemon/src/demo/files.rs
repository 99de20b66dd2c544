//! The files the demo works on.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use swarm_client::Client;
use swarm_proto::{
    Code, Problem,
    manifest::{FileEntry, Manifest, Tree, check_path},
};

use super::AT_ONCE;

/// Most files of one demo.
const MOST: usize = 500;
/// With fewer than this, files are made up.
const FEWEST: usize = 60;
/// Larger files are left out: the demo is about many tasks, not about reading.
const LARGEST: u64 = 8 << 20;
/// Directories looked into before what was found must do.
const DIRS: usize = 10_000;

/// A directory, and files in it by relative path.
pub(crate) struct Files {
    dir: PathBuf,
    items: Vec<String>,
    /// Holds made-up files; removed with this.
    _made_up: Option<tempfile::TempDir>,
}

impl Files {
    /// Files below `dir`, without hidden ones and `target`; made-up ones where there are too few.
    pub(crate) fn choose(dir: &Path) -> Result<Self, Problem> {
        let unreadable = |e: std::io::Error| Problem::new(Code::BadRequest, format!("{} cannot be read", dir.display()), e.to_string());
        let dir = dir.canonicalize().map_err(unreadable)?;
        if !dir.is_dir() {
            return Err(Problem::new(
                Code::BadRequest,
                format!("{} is no directory", dir.display()),
                "the demo works on the files of a directory",
            ));
        }
        let mut items = walk(&dir);
        // as a manifest orders them, and so the tasks
        items.sort_unstable();
        if items.len() >= FEWEST { Ok(Self { dir, items, _made_up: None }) } else { Self::make_up() }
    }

    fn make_up() -> Result<Self, Problem> {
        let failed = |e: std::io::Error| Problem::new(Code::Internal, "the demo's files are not made", e.to_string());
        let made_up = tempfile::Builder::new().prefix("swarm-demo-").tempdir().map_err(failed)?;
        let mut items = Vec::new();
        for n in 0..2 * FEWEST {
            let item = format!("file-{n:03}.txt");
            let text: String = (0..=n * 7).map(|line| format!("line {line} of file {n}\n")).collect();
            std::fs::write(made_up.path().join(&item), text).map_err(failed)?;
            items.push(item);
        }
        Ok(Self { dir: made_up.path().to_owned(), items, _made_up: Some(made_up) })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn items(&self) -> &[String] {
        &self.items
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Puts them all, and a list of them.
    pub(crate) async fn put(&self, client: &Client) -> Result<Tree, Problem> {
        let one = async |item: &String| {
            let put = client.put_bytes(self.read(item)?.into(), false).await?;
            Ok::<_, Problem>(FileEntry { path: item.clone(), size: put.size, digest: put.digest, executable: false })
        };
        let files = stream::iter(&self.items).map(one).buffer_unordered(AT_ONCE).try_collect().await?;
        let manifest = Manifest::new(files)?;
        let put = client.put_bytes(manifest.encode().into(), false).await?;
        Ok(manifest.tree(put.digest))
    }

    fn read(&self, item: &str) -> Result<Vec<u8>, Problem> {
        std::fs::read(self.dir.join(item)).map_err(|e| Problem::new(Code::Internal, format!("{item} cannot be read"), e.to_string()))
    }

    /// What the task of this file should print.
    pub(crate) fn compute(&self, item: &str) -> Result<String, Problem> {
        let bytes = self.read(item)?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let hash: String = digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{} {lines} {hash}", bytes.len()))
    }
}

/// Regular files whose names can be stored on every system.
fn walk(dir: &Path) -> Vec<String> {
    let (mut found, mut names) = (Vec::new(), BTreeSet::new());
    let mut dirs = std::collections::VecDeque::from([dir.to_owned()]);
    let mut looked = 0;
    while let Some(next) = dirs.pop_front() {
        looked += 1;
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && looked + dirs.len() < DIRS {
                dirs.push_back(entry.path());
            } else if kind.is_file() && entry.metadata().is_ok_and(|meta| meta.len() <= LARGEST) {
                let path = entry.path();
                let Some(item) = path.strip_prefix(dir).ok().and_then(Path::to_str) else { continue };
                if found.len() == MOST {
                    return found;
                }
                if check_path(item).is_ok() && names.insert(item.to_lowercase()) {
                    found.push(item.to_owned());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_too_few_files_is_made_up_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("one"), "1\n").expect("written");
        let files = Files::choose(dir.path()).expect("chosen");
        assert_eq!(files.len(), 2 * FEWEST);
        assert_eq!(files.compute("file-000.txt").expect("read").split(' ').take(2).collect::<Vec<_>>(), ["17", "1"]);
    }

    #[test]
    fn hidden_files_and_target_are_skipped_and_the_number_is_bounded() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in [".git", "target", "src"] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
            for n in 0..MOST + 1 {
                std::fs::write(dir.path().join(name).join(format!("f{n}")), "x").expect("written");
            }
        }
        let files = Files::choose(dir.path()).expect("chosen");
        assert_eq!(files.len(), MOST);
        assert!(files.items().iter().all(|item| item.starts_with("src/")));
    }
}
