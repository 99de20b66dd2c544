//! Bytes on their way, with a bar on stderr where somebody watches.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use swarm_client::BlobLines;
use swarm_proto::{
    Code, Digest, Problem,
    api::{BlobLine, BlobSource},
};
use tokio::sync::mpsc;

use crate::{
    failure::{FAILED, Failure, Outcome},
    output, progress,
    session::Session,
    view,
};

/// Read from a file at a time.
const PIECE: usize = 1 << 20;
/// Pieces that wait to be sent.
const DEPTH: usize = 4;

/// How far something is, where somebody watches stderr.
struct Bar(ProgressBar);

impl Bar {
    fn new(size: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(size, progress::target(true));
        let known = "{bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}";
        let template = if size.is_some() { known } else { "{bytes} {binary_bytes_per_sec} {msg}" };
        Self(bar.with_style(ProgressStyle::with_template(template).expect("the template is fixed")))
    }

    fn at(&self, have: u64, size: u64, message: String) {
        self.0.set_length(size);
        self.0.set_position(have);
        self.0.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A file that was put.
#[derive(Serialize)]
struct PutFile<'a> {
    digest: Digest,
    size: u64,
    name: &'a str,
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

pub(super) async fn put(session: &Session, files: &[PathBuf]) -> Outcome {
    for path in files {
        let name = path.display().to_string();
        let unreadable = |e: &io::Error| Problem::new(Code::BadRequest, format!("{name} cannot be read"), e.to_string());
        let (size, source): (Option<u64>, Box<dyn Read + Send>) = if is_standard(path) {
            (None, Box::new(io::stdin()))
        } else {
            let file = File::open(path).map_err(|e| unreadable(&e))?;
            let metadata = file.metadata().map_err(|e| unreadable(&e))?;
            if metadata.is_dir() {
                return Err(Problem::new(Code::BadRequest, format!("{name} was not put"), "it is a directory")
                    .hint("name its files")
                    .into());
            }
            // a pipe or a device does not know how much will come
            (metadata.is_file().then_some(metadata.len()), Box::new(file))
        };
        let bar = Bar::new(size);
        let (tx, pieces) = mpsc::channel(DEPTH);
        let counted = bar.0.clone();
        let reading = tokio::task::spawn_blocking(move || feed(source, &tx, &counted));
        let put = session.client.put_blob(size, pieces).await;
        // a file that could not be read is the reason, whatever the daemon made of its end
        if let Ok(Err(e)) = reading.await {
            return Err(unreadable(&e).into());
        }
        let put = put?;
        drop(bar);
        let told = PutFile { digest: put.digest, size: put.size, name: &name };
        session.out.line(&told, || format!("{}  {name}", put.digest))?;
    }
    Ok(())
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

pub(super) async fn get(session: &Session, digest: Digest, to: &Path) -> Outcome {
    bring(session, session.client.fetch_blob(digest).await?, false).await?;
    let mut reader = session.client.read_blob(digest).await?;
    let bar = Bar::new(Some(reader.size));
    if is_standard(to) {
        while let Some(data) = reader.next().await? {
            output::bytes(&data)?;
            bar.0.inc(data.len() as u64);
        }
        return Ok(());
    }
    let unwritable = |e: &io::Error| {
        let code = if e.kind() == io::ErrorKind::StorageFull { Code::NoSpace } else { Code::BadRequest };
        Problem::new(code, format!("{} cannot be written", to.display()), e.to_string())
    };
    // a device, a pipe or a link stays what it is
    if std::fs::symlink_metadata(to).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(to).map_err(|e| unwritable(&e))?;
        return write(&mut reader, file, &bar, &unwritable).await;
    }
    // whoever finds the file finds all of it
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = to.with_file_name(name);
    let file = File::options().write(true).create_new(true).open(&part).map_err(|e| unwritable(&e))?;
    let written = write(&mut reader, file, &bar, &unwritable).await;
    let written = written.and_then(|()| Ok(std::fs::rename(&part, to).map_err(|e| unwritable(&e))?));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

async fn write(reader: &mut swarm_client::BlobReader, mut file: File, bar: &Bar, unwritable: &impl Fn(&io::Error) -> Problem) -> Outcome {
    while let Some(data) = reader.next().await? {
        file.write_all(&data).map_err(|e| unwritable(&e))?;
        bar.0.inc(data.len() as u64);
    }
    // a device or a pipe has nothing to sync
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        file.sync_all().map_err(|e| unwritable(&e))?;
    }
    Ok(())
}

pub(super) async fn push(session: &Session, digest: Digest, to: &[String]) -> Outcome {
    bring(session, session.client.push_blob(digest, to).await?, true).await
}

/// Waits until each node has it or failed. `is_told`: each end is a line of data.
async fn bring(session: &Session, mut lines: BlobLines, is_told: bool) -> Outcome {
    let bar = Bar::new(Some(0));
    let (mut nodes, mut failed) = (BTreeMap::new(), Vec::new());
    while let Some(line) = lines.next().await? {
        match &line {
            BlobLine::Progress { node, have, size, sources } => {
                nodes.insert(node.clone(), (*have, *size));
                let have: u64 = nodes.values().map(|(have, _)| have).sum();
                let size: u64 = nodes.values().map(|(_, size)| size).sum();
                bar.at(have, size, from(sources));
                continue;
            }
            BlobLine::Failed { problem, .. } => failed.push(problem.clone()),
            BlobLine::Held { .. } => {}
        }
        if is_told {
            bar.0.suspend(|| session.out.line(&line, || sentence(&line)))?;
        }
    }
    drop(bar);
    match failed.pop() {
        None => Ok(()),
        // its line said why
        Some(_) if is_told => Err(Failure::Code(FAILED)),
        Some(problem) => Err(problem.into()),
    }
}

fn from(sources: &[BlobSource]) -> String {
    let of = |source: &BlobSource| format!("{} {}/s", source.node, view::bytes(source.rate));
    sources.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn sentence(line: &BlobLine) -> String {
    match line {
        BlobLine::Progress { node, have, size, .. } => format!("{node}  {have}/{size}"),
        BlobLine::Held { node } => format!("{node}  has it"),
        BlobLine::Failed { node, problem } => format!("{node}  failed: {}", problem.why),
    }
}
