//! What other voters say to us.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use swarm_proto::{frame, limits, peer::Open};
use tokio::{pin, time::sleep};

use crate::{
    engine::{Raft, Snapshot, SnapshotMeta, Types, Vote},
    health::Vitals,
    lanes::Lanes,
    link::{Rx, Tx},
    log::Store,
    machine::Machine,
    wire::{Answer, Append, Appended, Call, Installed, Question, SnapshotHead},
};

/// The serving side of one voter.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) machine: Machine,
    pub(crate) lanes: Lanes,
    pub(crate) vitals: Arc<Vitals>,
    /// How long a heartbeat may wait for the disk before it is answered without.
    pub(crate) patience: Duration,
    /// One snapshot is received at a time.
    pub(crate) receiving: Arc<tokio::sync::Mutex<()>>,
}

impl Server {
    /// Serves a stream to its end.
    pub(crate) async fn serve(self, open: Open, tx: Tx, rx: Rx) {
        let served = match open {
            Open::RaftAppend => self.appends(tx, rx).await,
            Open::Raft(bytes) => match frame::decode::<Question>(&bytes) {
                Ok(question) => self.answer(question.call, tx, rx).await,
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
            Open::Snapshot(bytes) => match frame::decode::<SnapshotHead>(&bytes) {
                Ok(head) => self.take_snapshot(head, tx, rx).await,
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
            Open::Join(_)
            | Open::GossipSync(_)
            | Open::Meta
            | Open::View { .. }
            | Open::Call { .. }
            | Open::Submit { .. }
            | Open::Work
            | Open::Events { .. }
            | Open::Output(_)
            | Open::Enroll { .. }
            | Open::Renew
            | Open::Doubled { .. }
            | Open::Blob(_)
            | Open::Bring(_)
            | Open::Claimed { .. } => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream of consensus")),
        };
        match served {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => tracing::warn!(%error, "a peer's message was refused"),
            Err(error) => tracing::debug!(%error, "a stream of consensus ended"),
            Ok(()) => {}
        }
    }

    async fn appends(&self, mut tx: Tx, rx: Rx) -> io::Result<()> {
        let requests = stream::unfold(Some(rx), |rx| async move {
            let mut rx = rx?;
            match receive(&mut rx).await {
                Ok(request) => Some((request?, Some(rx))),
                Err(error) => {
                    tracing::debug!(%error, "a replication stream ended");
                    None
                }
            }
        });
        let answers = self.raft.stream_append(requests);
        pin!(answers);
        while let Some(answer) = answers.next().await {
            tx.send(&self.appended(answer.map_err(io::Error::other)?)).await?;
        }
        tx.finish()
    }

    /// The engine's answer to a leader. One whose word it took was heard.
    fn appended(&self, answer: StreamAppendResult<Types>) -> Appended {
        if answer.is_ok() {
            self.vitals.hear_leader();
        }
        answer.into()
    }

    async fn answer(&self, call: Call, mut tx: Tx, rx: Rx) -> io::Result<()> {
        let answer = match call {
            Call::Heartbeats => return self.heartbeats(tx, rx).await,
            Call::Hash { node, index, hash } => {
                self.machine.hear_mark(node, index, hash);
                return tx.finish();
            }
            Call::Vote(ballot) => self.raft.vote(ballot.into()).await.map(|r| Answer::Voted((&r).into())).map_err(|e| e.to_string()),
            Call::PreVote(ballot) => self.raft.pre_vote(ballot.into()).await.map(|r| Answer::Voted((&r).into())).map_err(|e| e.to_string()),
            Call::Handover(handover) => self
                .raft
                .handle_transfer_leader(handover.into())
                .await
                .map(|r| Answer::Handover(r.map_err(|e| e.to_string())))
                .map_err(|e| e.to_string()),
        };
        tx.send(&answer.unwrap_or_else(Answer::Stopped)).await?;
        tx.finish()
    }

    async fn heartbeats(&self, mut tx: Tx, mut rx: Rx) -> io::Result<()> {
        while let Some(request) = receive(&mut rx).await? {
            if !request.entries.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a heartbeat with entries"));
            }
            tx.send(&self.appended(self.heartbeat(request).await?)).await?;
        }
        tx.finish()
    }

    /// The engine answers a heartbeat when everything appended before it is durable. A busy disk must not cost the leader its
    /// office, so after a moment it is answered without: it only says that this node follows, and a vote of ours for anybody
    /// else would stand in `store` before it is cast.
    async fn heartbeat(&self, request: AppendEntriesRequest<Types>) -> io::Result<StreamAppendResult<Types>> {
        let (vote, prev) = (request.vote, request.prev_log_id);
        let appended = self.raft.append_entries(request);
        pin!(appended);
        let answer = tokio::select! {
            biased;
            answer = &mut appended => answer,
            () = sleep(self.patience) => {
                if self.store.with(|log| log.vote) == Some(vote) {
                    return Ok(Ok(prev));
                }
                appended.await
            }
        };
        Ok(answer.map_err(io::Error::other)?.into_stream_result(prev, prev))
    }

    async fn take_snapshot(&self, head: SnapshotHead, mut tx: Tx, mut rx: Rx) -> io::Result<()> {
        let installed = match self.receiving.try_lock() {
            Ok(_turn) => self.install(head, &mut rx).await.unwrap_or_else(|e| Installed::Refused(e.to_string())),
            Err(_) => Installed::Refused("another snapshot is being received".into()),
        };
        tx.send(&installed).await?;
        tx.finish()
    }

    async fn install(&self, head: SnapshotHead, rx: &mut Rx) -> io::Result<Installed> {
        let refuse = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let len = usize::try_from(head.meta.len).ok().filter(|len| *len <= limits::SNAPSHOT);
        let len = len.ok_or_else(|| refuse(format!("a snapshot of {} bytes is over the limit of {}", head.meta.len, limits::SNAPSHOT)))?;
        let mut bytes = BytesMut::new();
        while let Some(part) = rx.recv::<bytes::Bytes>().await? {
            if bytes.len() + part.len() > len {
                return Err(refuse(format!("a snapshot of {len} bytes that goes on")));
            }
            bytes.extend_from_slice(&part);
        }
        let bytes = bytes.freeze();
        let (copy, meta) = (bytes.clone(), head.meta.clone());
        if self.lanes.block("snapshot", move || meta.is_of(&copy)).await != Some(true) {
            return Err(refuse("a snapshot that is not what its head says".into()));
        }
        let meta = SnapshotMeta::try_from(head.meta).map_err(refuse)?;
        let snapshot = Snapshot { meta, snapshot: bytes };
        let response = self.raft.install_full_snapshot(Vote::from(head.vote), snapshot).await.map_err(io::Error::other)?;
        Ok(Installed::Vote((&response.vote).into()))
    }
}

/// The next append, checked.
async fn receive(rx: &mut Rx) -> io::Result<Option<AppendEntriesRequest<Types>>> {
    let Some(append) = rx.recv::<Append>().await? else { return Ok(None) };
    append.try_into().map(Some).map_err(|why: String| io::Error::new(io::ErrorKind::InvalidData, why))
}
