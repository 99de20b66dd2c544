//! A client that puts blobs at any node, has them pushed and reads them anywhere, and knows every byte of them. While things go wrong
//! anything may be refused, but nothing wrong may be given; once all is well, every blob that was put gets everywhere.

use std::time::Duration;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm_api::{Backend as _, BlobPiece};
use swarm_proto::{Digest, Problem, access::Caller, api::BlobLine};
use swarmd::node::Gateway;
use tokio::time::{sleep, timeout};

use super::world::{World, mix};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(300);
/// How long anything may take while things go wrong.
const PATIENCE: Duration = Duration::from_secs(20);
const PIECE: usize = 64 << 10;

struct Client {
    world: World,
    rng: ChaCha8Rng,
    put: Vec<Put>,
}

/// What was put, and is on a disk for good.
#[derive(Clone)]
struct Put {
    digest: Digest,
    data: Bytes,
    /// At which host, and on which of its disks.
    place: (u64, u64),
    /// Every member had it once.
    is_spread: bool,
}

/// Puts so many blobs while things go wrong; sees all of them through after that.
pub(super) async fn run(world: World, count: usize) -> turmoil::Result {
    let rng = ChaCha8Rng::seed_from_u64(mix(&[world.seed(), 0xb10b]));
    let mut client = Client { world, rng, put: Vec::new() };
    while client.put.len() < count {
        client.put().await;
    }
    while !client.world.are_clients_stopped() {
        client.meddle().await;
    }
    for Put { digest, data, place: (host, disks), is_spread } in client.put.clone() {
        // a blob is promised to the swarm when a job names it; what only a host had that was closed out, or only a disk that it has
        // no more, may be gone with it
        if !client.world.is_out(host) && (is_spread || client.world.disks(host) == disks) {
            client.see_through(digest, &data).await;
        }
    }
    client.world.client_is_done();
    Ok(())
}

impl Client {
    /// Some node, whichever has a daemon.
    fn any(&mut self) -> u64 {
        self.rng.random_range(1..=self.world.nodes())
    }

    async fn put(&mut self) {
        sleep(AGAIN).await;
        // several segments, of which the last is any part of one
        let data: Bytes = (0..self.rng.random_range(0..3 << 20)).map(|_| self.rng.random::<u8>()).collect::<Vec<_>>().into();
        let (host, sent) = (self.any(), data.clone());
        let place = (host, self.world.disks(host));
        let put = at(&self.world, host, async move |gateway| put_at(&gateway, sent).await).await;
        if let Some(Ok(digest)) = put {
            self.world.say(format_args!("{digest} is put at h{host}"));
            self.world.named(digest, &data);
            self.put.push(Put { digest, data, place, is_spread: false });
        }
    }

    /// Pushes or reads something somewhere.
    async fn meddle(&mut self) {
        sleep(AGAIN).await;
        let one = self.rng.random_range(0..self.put.len());
        let Put { digest, data, .. } = self.put[one].clone();
        let host = self.any();
        if self.rng.random_bool(0.5) {
            let pushed = at(&self.world, host, async move |gateway| push_at(&gateway, digest).await).await;
            self.put[one].is_spread |= pushed == Some(true);
        } else {
            self.read(host, digest, &data).await;
        }
    }

    /// Whether it came; what comes must be it.
    async fn read(&self, host: u64, digest: Digest, data: &Bytes) -> bool {
        let got = at(&self.world, host, async move |gateway| read_at(&gateway, digest).await).await;
        if let Some(Ok(got)) = &got {
            self.world.gave(host, digest, got, data);
        }
        matches!(got, Some(Ok(_)))
    }

    async fn see_through(&mut self, digest: Digest, data: &Bytes) {
        let mut pusher = self.any();
        while at(&self.world, pusher, async move |gateway| push_at(&gateway, digest).await).await != Some(true) {
            sleep(AGAIN).await;
            if self.world.is_out(pusher) {
                pusher = self.any();
            }
        }
        for host in 1..=self.world.nodes() {
            while !self.world.is_out(host) && !self.read(host, digest, data).await {
                sleep(AGAIN).await;
            }
        }
        self.world.say(format_args!("{digest} is everywhere"));
    }
}

/// Does it in a node's own runtime, as its API would. `None`: there is no daemon, it went, or it takes too long.
async fn at<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    world: &World,
    host: u64,
    work: impl FnOnce(Gateway) -> F + Send + 'static,
) -> Option<T> {
    let (gateway, runtime) = world.door(host)?;
    let working = runtime.spawn(async move { timeout(PATIENCE, work(gateway)).await.ok() });
    working.await.ok().flatten()
}

async fn put_at(gateway: &Gateway, data: Bytes) -> Result<Digest, Problem> {
    let (pieces, put) = gateway.put_blob(Some(data.len() as u64), false);
    for piece in data.chunks(PIECE) {
        if pieces.send(Some(data.slice_ref(piece))).await.is_err() {
            break;
        }
    }
    let _ = pieces.send(None).await;
    let stopped = |_| Problem::new(swarm_proto::Code::NotReady, "it was not put", "the daemon went away");
    put.await.map_err(stopped)?.map(|put| put.digest)
}

/// Whether every member has it now.
async fn push_at(gateway: &Gateway, digest: Digest) -> bool {
    let Ok(mut lines) = gateway.bring_blob(&Caller::local(), digest, Some(vec!["all".into()])) else { return false };
    let mut is_everywhere = true;
    while let Some(line) = lines.recv().await {
        is_everywhere &= !matches!(line, BlobLine::Failed { .. });
    }
    is_everywhere
}

async fn read_at(gateway: &Gateway, digest: Digest) -> Result<Bytes, Problem> {
    let (mut pieces, mut got) = (gateway.read_blob(&Caller::local(), digest, 0..u64::MAX), Vec::new());
    while let Some(piece) = pieces.recv().await {
        match piece? {
            BlobPiece::Size(_) => {}
            BlobPiece::Bytes(data) => got.extend_from_slice(&data),
            BlobPiece::End => return Ok(got.into()),
        }
    }
    Err(Problem::new(swarm_proto::Code::Internal, "the blob broke off", "the daemon went away"))
}
