//! Bytes on their way, with a bar on stderr where somebody watches.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;
use swarm_client::BlobLines;
use swarm_proto::{
    Digest,
    api::{BlobLine, BlobSource},
};

use crate::{
    failure::{FAILED, Failure, Outcome},
    files::{self, Content, Draft},
    progress::Bar,
    session::{Session, patiently},
    view,
    words::source::Source,
};

/// What was put.
#[derive(Serialize)]
struct Put<'a> {
    digest: Digest,
    /// Bytes; of a directory, those of its files.
    size: u64,
    /// How many files, of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u32>,
    name: &'a str,
}

pub(super) async fn put(session: &Session, paths: &[PathBuf], encrypt: bool) -> Outcome {
    for path in paths {
        let name = &path.display().to_string();
        let told = if path.is_dir() {
            let draft = Draft::of(&[Source { path: path.clone(), name: String::new() }])?;
            let tree = draft.put(&session.client, encrypt).await?;
            Put { digest: tree.manifest, size: tree.bytes, files: Some(tree.files), name }
        } else {
            let size = path.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
            let bar = Bar::new(size);
            let put = if files::is_standard(path) {
                files::put_standard(&session.client, encrypt, &bar).await?
            } else {
                files::put_file(&session.client, path, encrypt, &bar).await?
            };
            Put { digest: put.digest, size: put.size, files: None, name }
        };
        session.out.line(&told, || format!("{}  {name}", told.digest))?;
    }
    Ok(())
}

pub(super) async fn get(session: &Session, digest: Digest, to: &Path) -> Outcome {
    bring(session, session.client.fetch_blob(digest).await?, false).await?;
    let reader = session.client.read_blob(digest).await?;
    let bar = Bar::new(Some(reader.size));
    files::save(Content::Coming(reader), to, &bar).await
}

/// All files of a manifest, below a directory.
pub(super) async fn get_tree(session: &Session, digest: Digest, to: &Path) -> Outcome {
    if files::is_standard(to) {
        return Err(Failure::usage("--tree cannot be used here", "files need a directory to go to"));
    }
    let manifest = patiently(async || files::manifest(&session.client, digest).await).await?;
    let bar = Bar::new(Some(manifest.bytes()));
    Ok(files::save_tree(&session.client, &manifest, to, &bar).await?)
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
