//! What comes back: into one file, or as a tree of files below a directory.
//!
//! A file is written under another name and then renamed, so whoever finds it finds all of it. A tree never leaves its directory: a
//! manifest's paths have no `..`, and a link where a directory should be is refused. What is there already and is right stays, and of
//! a large file what came of it, so a call that broke off is simply made again.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use swarm_client::Client;
use swarm_proto::{
    Code, Digest, Problem, limits,
    manifest::{FileEntry, Manifest},
};

use super::{AT_ONCE, download::Download, is_executable, is_standard, part::Part};
use crate::{failure::Outcome, output, progress::Bar, view};

/// Bytes that are here or on their way.
pub enum Content {
    Here(Bytes),
    Coming(Box<Download>),
}

impl Content {
    /// The next of them; `None` after the last.
    async fn next(&mut self, bar: &Bar) -> Result<Option<Bytes>, Problem> {
        match self {
            Self::Here(data) => Ok(Some(std::mem::take(data)).filter(|data| !data.is_empty())),
            Self::Coming(download) => {
                let next = download.next().await?;
                bar.learn(download.size());
                Ok(next)
            }
        }
    }
}

fn unwritable(path: &Path, e: &io::Error) -> Problem {
    let code = if e.kind() == io::ErrorKind::StorageFull { Code::NoSpace } else { Code::BadRequest };
    Problem::new(code, format!("{} cannot be written", path.display()), e.to_string())
}

/// All of it into a file, or to standard output for `-`.
///
/// # Errors
/// It broke off, or cannot be written.
pub async fn save(mut content: Content, to: &Path, bar: &Bar) -> Outcome {
    if is_standard(to) {
        // a bar would stand in the middle of what is read
        let is_read_here = io::stdout().is_terminal();
        while let Some(data) = content.next(bar).await? {
            output::bytes(&data)?;
            if !is_read_here {
                bar.0.inc(data.len() as u64);
            }
        }
        return Ok(());
    }
    // a device, a pipe or a link stays what it is
    if fs::symlink_metadata(to).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(to).map_err(|e| unwritable(to, &e))?;
        return Ok(write(&mut content, &file, to, bar).await?);
    }
    Ok(replace(&mut content, to, bar, File::sync_all).await?)
}

async fn write(content: &mut Content, mut file: &File, to: &Path, bar: &Bar) -> Result<(), Problem> {
    while let Some(data) = content.next(bar).await? {
        file.write_all(&data).map_err(|e| unwritable(to, &e))?;
        bar.0.inc(data.len() as u64);
    }
    Ok(())
}

/// All of it into a file, whatever is there now; `finish` sees it before it has its name.
///
/// # Errors
/// It broke off, or cannot be written; what was there still is.
pub async fn replace(content: &mut Content, to: &Path, bar: &Bar, finish: impl Fn(&File) -> io::Result<()>) -> Result<(), Problem> {
    let unwritable = |e: io::Error| unwritable(to, &e);
    let mut part = begin(content, to).await?;
    bar.0.inc(part.len);
    let mut is_found = part.len > 0;
    while let Err(mut problem) = fill(content, &mut part, to, bar).await {
        match content {
            Content::Coming(download) if is_found && download.is_refuted() => {
                output::note(&format!("what an earlier call left of {} is wrong; all of it is got again", download.digest()));
                bar.0.dec(part.len);
                part.clear().map_err(unwritable)?;
                download.go_on(0, blake3::Hasher::new());
                is_found = false;
            }
            Content::Coming(download) => {
                if download.is_refuted() {
                    part.clear().map_err(unwritable)?;
                } else if part.is_kept() {
                    let again = format!("the same again: it goes on after the {} that are here", view::bytes(part.len));
                    problem.hint = if problem.hint.is_empty() { again } else { format!("{}; then {again}", problem.hint) };
                }
                return Err(problem);
            }
            Content::Here(_) => return Err(problem),
        }
    }
    finish(part.file()).and_then(|()| part.rename(to)).map_err(unwritable)
}

/// What there is to write to, with what an earlier call left.
async fn begin(content: &mut Content, to: &Path) -> Result<Part, Problem> {
    let Content::Coming(download) = content else { return Part::beside(to).map_err(|e| unwritable(to, &e)) };
    let (digest, beside) = (download.digest(), to.to_owned());
    let found = tokio::task::spawn_blocking(move || Part::of(digest, &beside)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    let (part, hasher) = found.map_err(|e| unwritable(to, &e))?;
    download.go_on(part.len, hasher);
    Ok(part)
}

async fn fill(content: &mut Content, part: &mut Part, to: &Path, bar: &Bar) -> Result<(), Problem> {
    while let Some(data) = content.next(bar).await? {
        part.write(&data).map_err(|e| unwritable(to, &e))?;
        bar.0.inc(data.len() as u64);
    }
    Ok(())
}

/// The manifest of this name, from wherever it is.
///
/// # Errors
/// It cannot be had, or is none.
pub async fn manifest(client: &Client, digest: Digest) -> Result<Manifest, Problem> {
    let mut reader = client.read_blob(digest).await?;
    if reader.size > limits::MANIFEST as u64 {
        return Err(Problem::new(Code::BadRequest, format!("{digest} is no manifest"), format!("it has {} bytes", reader.size)));
    }
    let mut encoded = Vec::new();
    while let Some(data) = reader.next().await? {
        encoded.extend_from_slice(&data);
    }
    Manifest::decode(&encoded).map_err(|problem| Problem::new(problem.code, format!("{digest} is no manifest"), problem.why))
}

/// Writes all files of a manifest below a directory.
///
/// # Errors
/// One of them cannot be had or written; those that were written stay.
pub async fn save_tree(client: &Client, manifest: &Manifest, dir: &Path, bar: &Bar) -> Result<(), Problem> {
    let parents: BTreeSet<_> = manifest.files().iter().filter_map(|file| Some(file.path.rsplit_once('/')?.0)).collect();
    make_dir(dir, "")?;
    for parent in parents {
        make_dir(dir, parent)?;
    }
    let files = stream::iter(manifest.files().iter().map(Ok));
    files.try_for_each_concurrent(AT_ONCE, async |file| save_entry(client, file, dir, bar).await).await
}

async fn save_entry(client: &Client, file: &FileEntry, dir: &Path, bar: &Bar) -> Result<(), Problem> {
    let to = dir.join(&file.path);
    if is_there(&to, file).await {
        bar.0.inc(file.size);
        return Ok(());
    }
    // not synced one by one: what a power cut spoils, the next call finds out and mends
    let finish = |part: &File| if file.executable { make_executable(part) } else { Ok(()) };
    let (wanted, what) = (file.clone(), format!("{} was not written", to.display()));
    let download = Download::new(client, file.digest).checked(move |size| {
        let why = || format!("{} has {size} bytes, and the manifest says {}", wanted.digest, wanted.size);
        if size == wanted.size { Ok(()) } else { Err(Problem::new(Code::BadRequest, what.clone(), why())) }
    });
    replace(&mut Content::Coming(Box::new(download)), &to, bar, finish).await
}

async fn is_there(path: &Path, file: &FileEntry) -> bool {
    let is_like = |metadata: &fs::Metadata| {
        let is_program = !cfg!(unix) || is_executable(metadata) == file.executable;
        metadata.is_file() && metadata.len() == file.size && is_program
    };
    if !fs::symlink_metadata(path).is_ok_and(|metadata| is_like(&metadata)) {
        return false;
    }
    let path = PathBuf::from(path);
    let hash = move || Ok::<_, io::Error>(blake3::Hasher::new().update_reader(File::open(path)?)?.finalize());
    tokio::task::spawn_blocking(hash).await.is_ok_and(|hash| hash.is_ok_and(|hash| *hash.as_bytes() == file.digest.0))
}

/// A directory and those above it, below one that the person named. Links are not followed: they could lead anywhere.
///
/// # Errors
/// Something else is there, or it cannot be made.
pub fn make_dir(root: &Path, below: &str) -> Result<(), Problem> {
    fs::create_dir_all(root).map_err(|e| unwritable(root, &e))?;
    let mut dir = root.to_path_buf();
    for part in below.split('/').filter(|part| !part.is_empty()) {
        dir.push(part);
        match fs::symlink_metadata(&dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let why = "it is a link or a file, and a directory is wanted there";
                return Err(Problem::new(Code::BadRequest, format!("nothing is written below {}", dir.display()), why));
            }
            Err(_) => fs::create_dir(&dir).map_err(|e| unwritable(&dir, &e))?,
        }
    }
    Ok(())
}

/// Whoever may read it may run it.
#[cfg(unix)]
fn make_executable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(fs::Permissions::from_mode(mode | (mode & 0o444) >> 2))
}

#[cfg(not(unix))]
fn make_executable(_: &File) -> io::Result<()> {
    Ok(())
}
