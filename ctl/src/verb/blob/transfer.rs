//! Bytes on their way, with a bar on stderr where somebody watches.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;
use swarm_client::BlobLines;
use swarm_proto::{
    Code, Digest, Problem,
    api::{BlobLine, BlobSource},
};

use crate::{
    failure::{FAILED, Failure, Outcome},
    files::{self, Content, Download, Draft},
    output,
    progress::Bar,
    session::{Endurance, Session, patiently},
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
    bring_here(session, digest).await?;
    files::save(Content::Coming(Box::new(Download::new(&session.client, digest))), to, &Bar::new(None)).await
}

/// Waits until this node has it, though the daemon goes away meanwhile.
async fn bring_here(session: &Session, digest: Digest) -> Outcome {
    let (mut endurance, mut most) = (Endurance::default(), 0);
    let bar = Bar::new(Some(0));
    let mut lines = Some(session.client.fetch_blob(digest).await?);
    loop {
        let problem = match next_line(session, &mut lines, digest).await {
            Ok(Some(BlobLine::Progress { have, size, sources, .. })) => {
                if have > most {
                    most = have;
                    endurance.refresh();
                }
                bar.at(have, size, from(&sources));
                continue;
            }
            Ok(Some(BlobLine::Held { .. }) | None) => return Ok(()),
            // just after it has started, a daemon does not know what it knew before
            Ok(Some(BlobLine::Failed { problem, .. })) if endurance.is_tried() && problem.code == Code::NotFound => {
                Problem { code: Code::NotReady, ..problem }
            }
            Ok(Some(BlobLine::Failed { problem, .. })) if !endurance.is_tried() => return Err(problem.into()),
            Ok(Some(BlobLine::Failed { problem, .. })) => problem,
            Err(problem) => {
                if lines.is_some() && !endurance.is_tried() {
                    bar.0.suspend(|| output::note(&format!("{digest} did not come ({}); going on", problem.why)));
                }
                problem
            }
        };
        lines = None;
        endurance.outlast(problem).await?;
    }
}

async fn next_line(session: &Session, lines: &mut Option<BlobLines>, digest: Digest) -> Result<Option<BlobLine>, Problem> {
    match lines {
        Some(lines) => lines.next().await,
        None => lines.insert(session.client.fetch_blob(digest).await?).next().await,
    }
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

/// Waits until each node has it or failed.
pub(super) async fn push(session: &Session, digest: Digest, to: &[String]) -> Outcome {
    let mut lines = session.client.push_blob(digest, to).await?;
    let bar = Bar::new(Some(0));
    let (mut nodes, mut has_failed) = (BTreeMap::new(), false);
    while let Some(line) = lines.next().await? {
        match &line {
            BlobLine::Progress { node, have, size, sources } => {
                nodes.insert(node.clone(), (*have, *size));
                let have: u64 = nodes.values().map(|(have, _)| have).sum();
                let size: u64 = nodes.values().map(|(_, size)| size).sum();
                bar.at(have, size, from(sources));
                continue;
            }
            BlobLine::Failed { .. } => has_failed = true,
            BlobLine::Held { .. } => {}
        }
        bar.0.suspend(|| session.out.line(&line, || sentence(&line)))?;
    }
    // its line said why
    if has_failed { Err(Failure::Code(FAILED)) } else { Ok(()) }
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
