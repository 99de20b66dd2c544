//! What was named, walked: every file, what it will be called, and whether a manifest takes it. Nothing is sent yet.
//!
//! Links and special files are refused by name, never followed or left out in silence: what a task finds must be what was meant.

use std::{fs, io, path::PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use swarm_client::Client;
use swarm_proto::{
    Code, Digest, Problem, limits,
    manifest::{FileEntry, Manifest, Tree},
};

use super::{AT_ONCE, is_executable, put_file, unreadable};
use crate::{progress::Bar, session::patiently, words::source::Source};

/// Files that were found and can be put.
#[derive(Debug)]
pub struct Draft {
    sources: Vec<Source>,
    /// Where each is, and its entry but for the digest.
    files: Vec<(PathBuf, FileEntry)>,
    tree: Tree,
}

fn refuse(path: &std::path::Path, why: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, format!("{} was not put", path.display()), why)
}

impl Draft {
    /// Walks what was named.
    ///
    /// # Errors
    /// [`Code::BadRequest`] naming what cannot be read or taken.
    pub fn of(sources: &[Source]) -> Result<Self, Problem> {
        let mut files = Vec::new();
        for source in sources {
            let count = files.len();
            walk(source, &mut files)?;
            if files.len() == count {
                return Err(refuse(&source.path, "there is no file in it"));
            }
        }
        let manifest = Manifest::new(files.iter().map(|(_, entry)| entry.clone()).collect())?;
        let size = manifest.encode().len();
        if size > limits::MANIFEST {
            let why = format!("their names take {size} bytes, at most {} are taken", limits::MANIFEST);
            return Err(Problem::new(Code::BadRequest, "the list of files is not acceptable", why));
        }
        Ok(Self { sources: sources.to_vec(), files, tree: manifest.tree(Digest::default()) })
    }

    /// What was named.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What it will be, its name left blank.
    pub const fn tree(&self) -> Tree {
        self.tree
    }

    /// Puts each file, then the manifest. `encrypt`: they are kept encrypted.
    ///
    /// # Errors
    /// A file cannot be read, or the daemon does not take it.
    pub async fn put(self, client: &Client, encrypt: bool) -> Result<Tree, Problem> {
        let bar = &Bar::new(Some(self.tree.bytes));
        let put = async |(path, entry): (PathBuf, FileEntry)| {
            let put = patiently(async || put_file(client, &path, encrypt, bar).await).await?;
            Ok(FileEntry { size: put.size, digest: put.digest, ..entry })
        };
        let files = stream::iter(self.files).map(put).buffer_unordered(AT_ONCE).try_collect().await?;
        let manifest = Manifest::new(files)?;
        let encoded = bytes::Bytes::from(manifest.encode());
        let put = patiently(async || client.put_bytes(encoded.clone(), encrypt).await).await?;
        Ok(manifest.tree(put.digest))
    }
}

fn walk(source: &Source, files: &mut Vec<(PathBuf, FileEntry)>) -> Result<(), Problem> {
    let mut open = vec![(source.path.clone(), source.name.clone())];
    while let Some((path, name)) = open.pop() {
        let unreadable = |e: io::Error| unreadable(&path, &e);
        let metadata = fs::symlink_metadata(&path).map_err(unreadable)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let part = entry.file_name().into_string().map_err(|_| refuse(&entry.path(), "its name is not UTF-8"))?;
                open.push((entry.path(), if name.is_empty() { part } else { format!("{name}/{part}") }));
            }
            continue;
        }
        if metadata.is_symlink() {
            return Err(refuse(&path, "it is a link").hint("put what it points to"));
        }
        if !metadata.is_file() {
            return Err(refuse(&path, "it is neither a file nor a directory"));
        }
        if name.is_empty() {
            return Err(refuse(&path, "it is a file, and a file needs a name"));
        }
        if files.len() == limits::FILES {
            return Err(refuse(&source.path, format!("there are more than {} files", limits::FILES)));
        }
        let executable = is_executable(&metadata);
        files.push((path, FileEntry { path: name, size: metadata.len(), digest: Digest::default(), executable }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::words::source;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("data/deep/er")).unwrap();
        fs::create_dir(dir.path().join("data/empty")).unwrap();
        for (path, text) in [("tool", "x"), ("data/a", "aa"), ("data/deep/er/b", "bbb")] {
            fs::write(dir.path().join(path), text).unwrap();
        }
        dir
    }

    /// The names that come of what is typed, `@` being the directory.
    fn names(dir: &Path, typed: &[&str]) -> Result<Vec<String>, String> {
        let typed = typed.iter().map(|word| word.replace('@', dir.to_str().unwrap()));
        let sources: Vec<_> = typed.map(|word| source::parse(&word).unwrap()).collect();
        let mut names: Vec<_> =
            Draft::of(&sources).map_err(|problem| problem.to_string())?.files.into_iter().map(|(_, entry)| entry.path).collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn directories_bring_their_names_unless_told_otherwise() {
        let dir = tree();
        for (typed, wanted) in [
            (&["@/tool"][..], &["tool"][..]),
            (&["@/tool=bin/t"], &["bin/t"]),
            (&["@/data"], &["data/a", "data/deep/er/b"]),
            (&["@/data/"], &["a", "deep/er/b"]),
            (&["@/data/."], &["a", "deep/er/b"]),
            (&["@/data=."], &["a", "deep/er/b"]),
            (&["@/data=in/x"], &["in/x/a", "in/x/deep/er/b"]),
            (&["@/data/deep/.."], &["a", "deep/er/b"]),
            (&["@/data/", "@/tool"], &["a", "deep/er/b", "tool"]),
        ] {
            assert_eq!(names(dir.path(), typed).unwrap(), wanted, "{typed:?}");
        }
    }

    #[test]
    fn what_it_will_be_is_known_before_anything_is_sent() {
        let dir = tree();
        let draft = Draft::of(&[Source { path: dir.path().into(), name: String::new() }]).unwrap();
        assert_eq!(draft.tree(), Tree { manifest: Digest::default(), files: 3, bytes: 6 });
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        let dir = tree();
        for (typed, said) in [
            (&["@/nothing"][..], "nothing cannot be read"),
            (&["@/data/empty"], "there is no file in it"),
            (&["@/tool=."], "a file needs a name"),
            (&["@/tool=../x"], "no names of files"),
            (&["@/tool=a?"], "not every system can store"),
            (&["@/tool", "@/data/a=Tool"], "one file where upper and lower case are the same"),
            (&["@/tool=x", "@/data=x"], "needs a directory of that name"),
        ] {
            let problem = names(dir.path(), typed).unwrap_err();
            assert!(problem.contains(said), "{typed:?}: {problem}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_and_odd_files_are_refused_and_programs_stay_programs() {
        use std::os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, fs::symlink, net::UnixListener};
        let dir = tree();
        let is_program = |draft: &Draft| draft.files[0].1.executable;
        let tool = [Source { path: dir.path().join("tool"), name: "t".into() }];
        assert!(!is_program(&Draft::of(&tool).unwrap()));
        fs::set_permissions(&tool[0].path, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(is_program(&Draft::of(&tool).unwrap()));
        symlink("a", dir.path().join("data/link")).unwrap();
        for typed in ["@/data", "@/data/link"] {
            let problem = names(dir.path(), &[typed]).unwrap_err();
            assert!(problem.contains("data/link was not put\n  why: it is a link"), "{problem}");
        }
        let _socket = UnixListener::bind(dir.path().join("data/deep/socket")).unwrap();
        assert!(names(dir.path(), &["@/data/deep"]).unwrap_err().contains("neither a file nor a directory"));
        let odd = dir.path().join("odd");
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        assert!(names(dir.path(), &["@/odd"]).unwrap_err().contains("not UTF-8"));
    }
}
