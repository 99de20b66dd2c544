//! What the engine says to other voters.
//!
//! ```text
//! replication   one stream a follower, appends pipelined, answers in order        Open::RaftAppend, plane Raft
//! heartbeats    a stream of their own, so they never wait behind large appends    Open::Raft(Heartbeats), plane Raft
//! votes         one stream a question                                             Open::Raft(..), plane Raft
//! snapshots     in frames                                                         Open::Snapshot, plane Bulk
//! ```

use std::{collections::VecDeque, future::Future, io, time::Duration};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use openraft::{
    EmptyNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::Serialize;
use swarm_proto::{NodeId, peer::Open};
use swarm_transport::Plane;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    engine::{LogId, Snapshot, Types, Vote},
    link::{Links, Rx, Tx},
    wire::{Answer, Append, Appended, Call, Format, Installed, Meta, Question, SnapshotHead},
};

/// Makes a client for each follower.
pub(crate) struct Network {
    pub(crate) links: Links,
    /// How long a follower may owe an answer to an append before the stream is given up.
    pub(crate) patience: Duration,
}

/// One follower.
pub(crate) struct Client {
    links: Links,
    target: NodeId,
    patience: Duration,
    /// Of a client that sends heartbeats: its stream, kept from one to the next.
    heartbeats: Option<Option<(Tx, Rx)>>,
}

impl Network {
    fn client(&self, target: u64, heartbeats: Option<Option<(Tx, Rx)>>) -> Client {
        Client { links: self.links.clone(), target: NodeId(target), patience: self.patience, heartbeats }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Client {
        self.client(target, None)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &EmptyNode) -> Client {
        self.client(target, Some(None))
    }
}

/// Makes the engine wait a little before it tries again.
fn unreachable(error: &io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn network(error: &io::Error) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}

pub(crate) fn question(call: Call) -> Open {
    Open::Raft(encode(&Question { format: Format, call }))
}

fn encode<T: Serialize>(message: &T) -> Bytes {
    postcard::to_stdvec(message).expect("our messages have nothing that postcard cannot write").into()
}

type Appends<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

impl Client {
    /// Asks a question on a stream of its own.
    async fn ask(&self, call: Call, limit: Duration) -> Result<Answer, RPCError<Types>> {
        let asked = async {
            let (mut tx, mut rx) = self.links.open(self.target, Plane::Raft, &question(call)).await?;
            tx.finish()?;
            rx.answer().await
        };
        match timeout(limit, asked).await {
            Ok(Ok(Answer::Stopped(why))) => Err(unreachable(&io::Error::other(why))),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unreachable(&error)),
            Err(_) => Err(network(&io::ErrorKind::TimedOut.into())),
        }
    }

    async fn ask_vote(&self, call: Call, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(call, option.hard_ttl()).await? {
            Answer::Voted(voted) => Ok(voted.into()),
            other @ (Answer::Handover(_) | Answer::Stopped(_)) => Err(odd(&other)),
        }
    }

    /// One heartbeat on the kept stream. When this is dropped by a time-out the stream goes with it.
    async fn beat(&mut self, request: &AppendEntriesRequest<Types>) -> io::Result<StreamAppendResult<Types>> {
        let kept = self.heartbeats.as_mut().and_then(Option::take);
        let (mut tx, mut rx) = match kept {
            Some(stream) => stream,
            None => self.links.open(self.target, Plane::Raft, &question(Call::Heartbeats)).await?,
        };
        tx.send(&Append::from(request)).await?;
        let answer: Appended = rx.answer().await?;
        self.heartbeats = Some(Some((tx, rx)));
        Ok(answer.into())
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> io::Result<Vote> {
        let head = SnapshotHead { format: Format, vote: (&vote).into(), meta: Meta::new(&snapshot.meta, &snapshot.snapshot) };
        let (mut tx, mut rx) = self.links.open(self.target, Plane::Bulk, &Open::Snapshot(encode(&head))).await?;
        for part in snapshot.snapshot.chunks(PART) {
            tx.send(&snapshot.snapshot.slice_ref(part)).await?;
        }
        tx.finish()?;
        match rx.answer().await? {
            Installed::Vote(vote) => Ok(vote.into()),
            Installed::Refused(why) => Err(io::Error::other(why)),
        }
    }
}

/// Bytes of a snapshot in one frame.
const PART: usize = 256 << 10;

fn odd(answer: &Answer) -> RPCError<Types> {
    unreachable(&io::Error::new(io::ErrorKind::InvalidData, format!("an answer to another question: {answer:?}")))
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let mut answers = RaftNetworkV2::stream_append(self, Box::pin(stream::iter([request])), option).await?;
        match answers.next().await {
            Some(Ok(Ok(_))) => Ok(AppendEntriesResponse::Success),
            Some(Ok(Err(StreamAppendError::Conflict(_)))) => Ok(AppendEntriesResponse::Conflict),
            Some(Ok(Err(StreamAppendError::HigherVote(vote)))) => Ok(AppendEntriesResponse::HigherVote(vote)),
            Some(Err(error)) => Err(error),
            None => Err(network(&io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn stream_append<'s, S>(&'s mut self, mut input: S, option: RPCOption) -> BoxFuture<'s, Result<Appends<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // the engine's backoff waits inside this: whoever dials before asking for it spins while the peer is away
            let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
            if self.heartbeats.is_some() {
                let answer = self.beat(&request).await.map_err(|e| unreachable(&e))?;
                return Ok(stream::iter([Ok(answer)]).boxed());
            }
            let opened = timeout(option.hard_ttl().max(self.patience), self.links.open(self.target, Plane::Raft, &Open::RaftAppend));
            let (tx, rx) = match opened.await {
                Ok(opened) => opened.map_err(|e| unreachable(&e))?,
                Err(_) => return Err(unreachable(&io::ErrorKind::TimedOut.into())),
            };
            let mut pipe =
                Pipe { input: Some(input), tx, rx, owed: VecDeque::new(), patience: self.patience, deadline: Instant::now(), held: None };
            pipe.put(&request).map_err(|e| unreachable(&e))?;
            Ok(stream::unfold(Some(pipe), |pipe| async move { pipe?.next().await }).boxed())
        })
    }

    async fn vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Call::Vote((&request).into()), option).await
    }

    async fn pre_vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Call::PreVote((&request).into()), option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask(Call::Handover((&request).into()), option.hard_ttl()).await? {
            Answer::Handover(Ok(())) => Ok(Ok(())),
            Answer::Handover(Err(why)) => Err(network(&io::Error::other(why))),
            other @ (Answer::Voted(_) | Answer::Stopped(_)) => Err(odd(&other)),
        }
    }
}

/// A replication stream: requests go out as they come, answers come back in their order.
///
/// A request without entries only says that all of them are committed. The next entries say it too, so it waits for them for [`HELD`]:
/// under load nearly every second message between voters would be one of these, sent when the client is to be answered.
///
/// The engine takes "the log matches up to here" for an answer to every request that ends there, also to one that was sent later and
/// only carries how far the log is committed (openraft 0.10.0-alpha.37, `InflightAppendQueue::drain_acked`). With the first of two such
/// answers a leader that was cut off, and deposed meanwhile, would hold the second for a sign that it still leads: a read would show
/// what was true before. So of answers that say the same only the one to the last request counts.
struct Pipe<S> {
    input: Option<S>,
    tx: Tx,
    rx: Rx,
    /// Answers that have not come.
    owed: VecDeque<Owed>,
    patience: Duration,
    /// When the next of them is overdue.
    deadline: Instant,
    /// A request that waits for the next one, and until when.
    held: Option<(AppendEntriesRequest<Types>, Instant)>,
}

/// The answer to a request.
struct Owed {
    /// The last entry up to which a log matches that takes it.
    last: Option<LogId>,
    /// A later request ends there too, sent or not: the engine could not tell whose answer it is.
    is_void: bool,
}

/// How much later than others a voter may learn that an entry is committed while none follows.
const HELD: Duration = Duration::from_millis(5);

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Pipe<S> {
    /// The next answer, and the pipe while it is of use.
    async fn next(mut self) -> Option<(Result<StreamAppendResult<Types>, RPCError<Types>>, Option<Self>)> {
        loop {
            let (is_owing, deadline) = (!self.owed.is_empty(), self.deadline);
            let due = self.held.as_ref().map(|(_, due)| *due);
            let Self { input, tx, rx, .. } = &mut self;
            tokio::select! {
                biased;
                answer = rx.recv::<Appended>() => match answer {
                    Ok(Some(answer)) => {
                        let answered = self.owed.pop_front();
                        self.deadline = Instant::now() + self.patience;
                        let is_over = !matches!(answer, Appended::Matches(_));
                        if !is_over && answered.is_some_and(|owed| owed.is_void) {
                            continue;
                        }
                        return Some((Ok(answer.into()), (!is_over).then_some(self)));
                    }
                    Ok(None) if !is_owing => return None,
                    Ok(None) => return Some((Err(network(&io::ErrorKind::UnexpectedEof.into())), None)),
                    Err(error) => return Some((Err(unreachable(&error)), None)),
                },
                () = sleep_until(deadline), if is_owing => {
                    return Some((Err(network(&io::ErrorKind::TimedOut.into())), None));
                }
                sent = tx.flush(), if tx.is_full() => if let Err(error) = sent {
                    return Some((Err(unreachable(&error)), None));
                },
                () = sleep_until(due.unwrap_or(deadline)), if due.is_some() && !tx.is_full() => {
                    if let Err(error) = self.put_held() {
                        return Some((Err(unreachable(&error)), None));
                    }
                }
                request = next_of(input), if input.is_some() && !tx.is_full() => {
                    if let Err(error) = self.take(request) {
                        return Some((Err(unreachable(&error)), None));
                    }
                }
            }
        }
    }

    fn take(&mut self, request: Option<AppendEntriesRequest<Types>>) -> io::Result<()> {
        let Some(request) = request else {
            self.input = None;
            self.put_held()?;
            return self.tx.finish();
        };
        if let Some(before) = self.owed.back_mut() {
            before.is_void |= before.last == last_of(&request);
        }
        let due = self.held.take().map(|(_, due)| due);
        if request.entries.is_empty() && request.leader_commit == request.prev_log_id {
            self.held = Some((request, due.unwrap_or_else(|| Instant::now() + HELD)));
            return Ok(());
        }
        // it says what the one that was held would
        self.put(&request)
    }

    fn put_held(&mut self) -> io::Result<()> {
        self.held.take().map_or(Ok(()), |(request, _)| self.put(&request))
    }

    fn put(&mut self, request: &AppendEntriesRequest<Types>) -> io::Result<()> {
        if self.owed.is_empty() {
            self.deadline = Instant::now() + self.patience;
        }
        self.owed.push_back(Owed { last: last_of(request), is_void: false });
        self.tx.feed(&Append::from(request))
    }
}

/// The last entry up to which a log matches that takes this.
fn last_of(request: &AppendEntriesRequest<Types>) -> Option<LogId> {
    request.entries.last().map_or(request.prev_log_id, |entry| Some(entry.log_id))
}

async fn next_of<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use openraft::EntryPayload;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        engine::{Entry, log_id},
        link::memory::Net,
    };

    fn append(prev: u64, entries: u64) -> AppendEntriesRequest<Types> {
        let entry = |index| Entry { log_id: log_id(1, index), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(1, prev)),
            entries: (prev + 1..=prev + entries).map(entry).collect(),
            leader_commit: Some(log_id(1, prev)),
        }
    }

    /// What a follower hears and answers, and what the engine hears of that.
    struct Follower {
        tx: Tx,
        rx: Rx,
    }

    impl Follower {
        async fn hears(&mut self) -> AppendEntriesRequest<Types> {
            self.rx.recv::<Append>().await.unwrap().unwrap().try_into().unwrap()
        }

        async fn answers(&mut self, matches: u64) {
            self.tx.send(&Appended::from(Ok(Some(log_id(1, matches))))).await.unwrap();
        }
    }

    async fn connected() -> (Client, mpsc::UnboundedReceiver<Follower>) {
        let (net, (served_tx, served)) = (Net::default(), mpsc::unbounded_channel());
        net.listen(NodeId(2), Arc::new(move |_, tx, rx| drop(served_tx.send(Follower { tx, rx }))));
        let mut network = Network { links: Links::Memory(net), patience: Duration::from_secs(60) };
        (network.new_client(2, &EmptyNode::default()).await, served)
    }

    const OPTION: Duration = Duration::from_secs(60);

    /// Of two requests that end at the same entry the engine cannot tell which one was answered.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_taken_for_that_of_a_later_request() {
        let (mut client, mut served) = connected().await;
        let requests = stream::iter([append(6, 2), append(8, 0)]).chain(stream::pending());
        let mut answers = client.stream_append(requests.boxed(), RPCOption::new(OPTION)).await.unwrap();
        let mut follower = served.recv().await.unwrap();
        // answers are read as they come: none has come, and the first request went out meanwhile
        assert!(answers.next().now_or_never().is_none());
        assert_eq!(last_of(&follower.hears().await), Some(log_id(1, 8)));
        follower.answers(8).await;
        assert!(answers.next().now_or_never().is_none(), "the one that came later is not even sent");
        let begun = Instant::now();
        let (answer, ()) = tokio::join!(answers.next(), async {
            let held = follower.hears().await;
            assert_eq!((begun.elapsed(), held.entries.len(), held.leader_commit), (HELD, 0, Some(log_id(1, 8))));
            follower.answers(8).await;
        });
        assert_eq!(answer.unwrap().unwrap(), Ok(Some(log_id(1, 8))));
    }

    /// The next entries say what is committed, so nothing else need say it; whoever answers what came before did not hear it.
    #[tokio::test(start_paused = true)]
    async fn entries_take_the_place_of_what_only_tells_what_is_committed() {
        let (mut client, mut served) = connected().await;
        let requests = stream::iter([append(6, 2), append(8, 0), append(8, 1)]).chain(stream::pending());
        let mut answers = client.stream_append(requests.boxed(), RPCOption::new(OPTION)).await.unwrap();
        let mut follower = served.recv().await.unwrap();
        assert!(answers.next().now_or_never().is_none());
        let heard = [follower.hears().await, follower.hears().await];
        assert_eq!(heard.map(|request| last_of(&request)), [Some(log_id(1, 8)), Some(log_id(1, 9))]);
        follower.answers(8).await;
        assert!(answers.next().now_or_never().is_none(), "the engine would take it for an answer to what was not sent");
        follower.answers(9).await;
        assert_eq!(answers.next().await.unwrap().unwrap(), Ok(Some(log_id(1, 9))));
    }
}
