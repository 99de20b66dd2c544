//! What the API asks of the daemon. The API parses, bounds and renders; whoever implements this decides.

use std::{future::Future, net::IpAddr, ops::Range, pin::Pin};

use swarm_proto::{
    Code, Cursor, Digest, Problem, TaskId,
    access::Caller,
    api::{Belonging, BlobCall, BlobLine, BlobReply, Call, HostCall, NodeEvent, Reply, Status},
    identity::{EnrollAnswer, Petition},
    peer::{Answer, EventPage, Numbered, OutputChunk, Target, Which},
    token::Token,
};
use tokio::sync::mpsc;

use crate::blobs::{BlobPiece, BlobTaker, refuse_put};

/// A boxed future of a call.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send>>;

/// A boxed future of a host's change of place.
pub type HostFuture = Pin<Box<dyn Future<Output = Result<Belonging, Problem>> + Send>>;

/// A boxed future of what a node does with its blobs.
pub type BlobFuture = Pin<Box<dyn Future<Output = Result<BlobReply, Problem>> + Send>>;

/// A boxed future of an enrolment.
pub type EnrollFuture = Pin<Box<dyn Future<Output = EnrollAnswer> + Send>>;

/// The daemon behind the API. Whoever asks was found to be allowed to. Every method returns at once; what takes time comes through the future or the receiver.
pub trait Backend: Send + Sync + 'static {
    /// Anything that has one answer; forwarded to the leader where it must be.
    fn call(&self, caller: &Caller, call: Call) -> CallFuture;

    /// The streamed submit. Numbered submissions go in, answers come out in the order in which things became true; an
    /// `Accepted` comes before the end of its job. The receiver ends when the sender is dropped and every followed job ended.
    /// The API always drains the receiver, so a full sender only ever waits for the daemon itself, never for the client.
    fn submit(&self, caller: &Caller) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>);

    /// `Progress` now and then, at last `JobEnded`, `TaskEnded` or `Unknown`; then it ends. Ending before that means: ask by a call
    /// whether there is still somebody to tell it, and then again.
    fn follow(&self, target: Target) -> mpsc::Receiver<Vec<Answer>>;

    /// Job events after a cursor, for as long as the receiver lives. A problem is the last message.
    fn events(&self, after: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>>;

    /// What a task wrote. `End` or `Failed` is the last message.
    fn output(&self, task: TaskId, which: Which, follow: bool) -> mpsc::Receiver<OutputChunk>;

    /// This node's own events with a higher number than `after`.
    fn node_events(&self, after: u64) -> Vec<NodeEvent>;

    /// This node and what it sees. Must not block.
    fn status(&self) -> Status;

    /// Something that this one host does about its place in a swarm. Refused where that place is fixed.
    fn host(&self, _call: HostCall) -> HostFuture {
        let problem = Problem::new(Code::Conflict, "this node stays where it is", "its place in the swarm is fixed");
        Box::pin(std::future::ready(Err(problem)))
    }

    /// Who somebody is that shows a token with a request. Must not block.
    ///
    /// # Errors
    /// Why that is nobody.
    fn bearer(&self, token: &Token) -> Result<Caller, Problem> {
        Err(Problem::new(Code::Denied, "the request was refused", format!("the token {} is not known here", token.id())))
    }

    /// Takes the bytes of a blob. `size`: how many will come, where that is known. `encrypt`: it is kept encrypted on each node.
    fn put_blob(&self, _size: Option<u64>, _encrypt: bool) -> BlobTaker {
        refuse_put(no_blobs())
    }

    /// Gives these bytes of a blob out, from wherever it is, as far as it has them. First its whole size, last [`BlobPiece::End`] or a
    /// problem.
    fn read_blob(&self, _caller: &Caller, _digest: Digest, _part: Range<u64>) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
        let (tx, rx) = mpsc::channel(1);
        let _ = tx.try_send(Err(no_blobs()));
        rx
    }

    /// Brings a blob to this node (`None`) or to others, and says how far each is; ends when all have it or failed.
    ///
    /// # Errors
    /// Nothing was begun.
    fn bring_blob(&self, _caller: &Caller, _digest: Digest, _to: Option<Vec<String>>) -> Result<mpsc::Receiver<BlobLine>, Problem> {
        Err(no_blobs())
    }

    /// What is asked of this node's own blobs.
    fn blob(&self, _caller: &Caller, _call: BlobCall) -> BlobFuture {
        Box::pin(std::future::ready(Err(no_blobs())))
    }

    /// Somebody who is nobody yet enrols, over a TLS session with this exporter, from this address.
    fn enroll(&self, _exporter: [u8; 32], _from: IpAddr, _petition: Petition) -> EnrollFuture {
        Box::pin(std::future::ready(Err(Problem::new(Code::NotFound, "nobody was enrolled", "nobody may enrol here"))))
    }
}

fn no_blobs() -> Problem {
    Problem::new(Code::Conflict, "this node has no blobs", "it keeps none")
}
