//! Files into the swarm and out of it: single ones, and trees of them under one manifest.
//!
//! ```text
//! paths -> Draft (walked and checked here) -> a blob each -> a manifest of them: a Tree     put
//! Tree  -> its manifest -> a blob each, checked by the daemon -> files below a directory    save
//! ```

mod download;
mod draft;
mod part;
mod save;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
pub use download::Download;
pub use draft::Draft;
use indicatif::ProgressBar;
pub use save::{Content, make_dir, manifest, replace, save, save_tree};
use swarm_client::Client;
use swarm_proto::{Code, Problem, api::BlobPut};
use tokio::sync::mpsc;

use crate::progress::Bar;

/// Files on their way at once.
const AT_ONCE: usize = 8;
/// Read from a file at a time; a file that has no more is sent whole.
const PIECE: usize = 1 << 20;
/// Pieces that wait to be sent.
const DEPTH: usize = 4;

/// What stands for standard input or output.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn unreadable(path: &Path, e: &io::Error) -> Problem {
    Problem::new(Code::BadRequest, format!("{} cannot be read", path.display()), e.to_string())
}

/// Puts what comes from standard input. `encrypt`: it is kept encrypted.
///
/// # Errors
/// It cannot be read, or the daemon does not take it.
pub async fn put_standard(client: &Client, encrypt: bool, bar: &Bar) -> Result<BlobPut, Problem> {
    stream(client, Path::new("-"), None, encrypt, io::stdin(), bar).await
}

/// Puts one file. `encrypt`: it is kept encrypted.
///
/// # Errors
/// It cannot be read, or the daemon does not take it.
pub async fn put_file(client: &Client, path: &Path, encrypt: bool, bar: &Bar) -> Result<BlobPut, Problem> {
    let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let metadata = file.metadata().map_err(|e| unreadable(path, &e))?;
    // a pipe or a device does not know how much will come
    let size = metadata.is_file().then_some(metadata.len());
    if size.is_none_or(|size| size > PIECE as u64) {
        return stream(client, path, size, encrypt, file, bar).await;
    }
    let mut data = Vec::new();
    file.read_to_end(&mut data).map_err(|e| unreadable(path, &e))?;
    let put = client.put_bytes(data.into(), encrypt).await?;
    bar.0.inc(put.size);
    Ok(put)
}

async fn stream(
    client: &Client,
    path: &Path,
    size: Option<u64>,
    encrypt: bool,
    source: impl Read + Send + 'static,
    bar: &Bar,
) -> Result<BlobPut, Problem> {
    let (tx, pieces) = mpsc::channel(DEPTH);
    let counted = bar.0.clone();
    let reading = tokio::task::spawn_blocking(move || feed(source, &tx, &counted));
    let put = client.put_blob(size, encrypt, pieces).await;
    // a file that could not be read is the reason, whatever the daemon made of its end
    if let Ok(Err(e)) = reading.await {
        return Err(unreadable(path, &e));
    }
    put
}

fn feed(mut source: impl Read, tx: &mpsc::Sender<io::Result<Bytes>>, bar: &ProgressBar) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        if let Err(e) = source.by_ref().take(PIECE as u64).read_to_end(&mut piece) {
            let _ = tx.blocking_send(Err(io::Error::other("the source failed")));
            return Err(e);
        }
        let count = piece.len();
        // nobody takes it where it was refused, and why is told by the answer
        if count == 0 || tx.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
        bar.inc(count as u64);
    }
}

#[cfg(unix)]
fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o111 != 0
}

/// No file of such a system says so.
#[cfg(not(unix))]
const fn is_executable(_: &std::fs::Metadata) -> bool {
    false
}
