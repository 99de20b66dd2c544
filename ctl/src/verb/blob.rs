//! `blob put|get|list|show|verify|pin|unpin|gc|push`: bytes by name, wherever they are.

mod transfer;

use std::path::PathBuf;

use clap::Subcommand;
use swarm_proto::{
    Digest, Problem,
    api::{BlobView, StoredView},
    limits,
};

use crate::{args::ListArgs, failure::Outcome, session::Session, verb::watch, view};

/// `blob ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Put files or directories on this node; prints the name of each, as b3sum does
    Put(Put),
    /// Get a blob from wherever it is, to a file or to standard output; or all files of a directory that was put. Made again after it
    /// broke off, it goes on where it stopped
    Get(Get),
    /// Blobs of the swarm, and how many nodes hold each
    List(List),
    /// One blob: its size, and who holds it
    Show(Name),
    /// Read a blob of this node again; what has changed on the disk is fetched from another node
    Verify(Name),
    /// Keep a blob on this node, and fetch it if it is not here
    Pin(Name),
    /// Keep it no longer
    Unpin(Name),
    /// Remove blobs of this node that nobody needs, the longest unused first
    Gc(Gc),
    /// Bring a blob to other nodes, each from the one before it
    Push(Push),
}

/// Which blob.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Name {
    /// Its name: 64 hexadecimal digits
    pub digest: Digest,
}

/// `blob put`.
#[derive(clap::Args, Debug)]
pub struct Put {
    /// Files; - is standard input; of a directory, its files are put, and its name is that of their list
    #[arg(required = true, value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Keep them encrypted on the disk of each node that has them
    #[arg(long)]
    pub encrypt: bool,
}

/// `blob get`.
#[derive(clap::Args, Debug)]
pub struct Get {
    /// Its name: 64 hexadecimal digits
    pub digest: Digest,
    /// Where to; - is standard output
    #[arg(value_name = "FILE", default_value = "-")]
    pub to: PathBuf,
    /// It is the name of a directory: write its files below FILE, but for those that are there already
    #[arg(long)]
    pub tree: bool,
}

/// `blob list`.
#[derive(clap::Args, Debug)]
pub struct List {
    /// Those after this one
    #[arg(long, value_name = "DIGEST")]
    pub after: Option<Digest>,
    /// Those that are on this node, and who pinned them
    #[arg(long, conflicts_with = "after")]
    pub here: bool,
    #[command(flatten)]
    pub list: ListArgs,
}

/// `blob gc`.
#[derive(clap::Args, Debug)]
pub struct Gc {
    /// Stop when no more than this is used, such as 10GiB
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = mesh_config::parse_bytes)]
    pub keep: u64,
}

/// `blob push`.
#[derive(clap::Args, Debug)]
pub struct Push {
    /// Its name: 64 hexadecimal digits
    pub digest: Digest,
    /// Nodes by id or name, with commas between them, or all
    #[arg(long, required = true, value_name = "NODES", value_delimiter = ',')]
    pub to: Vec<String>,
}

pub(super) async fn call(session: &Session, verb: Verb) -> Outcome {
    let client = &session.client;
    match verb {
        Verb::Put(args) => transfer::put(session, &args.paths, args.encrypt).await,
        Verb::Get(args) if args.tree => transfer::get_tree(session, args.digest, &args.to).await,
        Verb::Get(args) => transfer::get(session, args.digest, &args.to).await,
        Verb::List(args) if args.here => {
            let name = |blob: &StoredView| blob.digest.to_string();
            watch::list(&session.out, args.list.watch.watch, name, async || client.store().await.map(|store| store.blobs)).await
        }
        Verb::List(args) => {
            let name = |blob: &BlobView| blob.digest.to_string();
            watch::list(&session.out, args.list.watch.watch, name, async || pages(session, args.after, args.list.limit).await).await
        }
        Verb::Show(Name { digest }) => Ok(session.out.one(&client.blob(digest).await?)?),
        Verb::Verify(Name { digest }) => {
            let verified = client.verify_blob(digest).await?;
            let text = |_| match verified.damaged {
                0 => format!("{digest} is sound\n"),
                u32::MAX => format!("{digest} had changed on the disk; it was fetched again and is sound\n"),
                count => format!("{digest} had changed on the disk in {count} segments; they were fetched again and it is sound\n"),
            };
            Ok(session.out.either(&verified, text)?)
        }
        Verb::Pin(Name { digest }) => Ok(client.pin_blob(digest, true).await?),
        Verb::Unpin(Name { digest }) => Ok(client.pin_blob(digest, false).await?),
        Verb::Gc(args) => {
            let collected = client.collect_blobs(args.keep).await?;
            let text = |_| format!("{} freed, {} used\n", view::bytes(collected.freed), view::bytes(collected.used));
            Ok(session.out.either(&collected, text)?)
        }
        Verb::Push(args) => transfer::push(session, args.digest, &args.to).await,
    }
}

/// A list as long as asked for, page after page.
async fn pages(session: &Session, mut after: Option<Digest>, limit: u32) -> Result<Vec<BlobView>, Problem> {
    let mut blobs: Vec<BlobView> = Vec::new();
    loop {
        let left = (limit as usize).saturating_sub(blobs.len());
        let wanted = left.min(limits::PAGE);
        let page = session.client.blobs(after, u32::try_from(wanted).ok()).await?;
        // a page can be shorter than was asked for, where many nodes hold each blob
        let is_last = page.is_empty() || page.len() == left;
        after = page.last().map(|blob| blob.digest);
        blobs.extend(page);
        if is_last {
            return Ok(blobs);
        }
    }
}
