//! A connection's own task: datagrams first, then new streams, until it ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use quinn::{RecvStream, SendStream};
use swarm_proto::{Problem, limits, peer::Open};

use crate::{
    close::{self, StreamCode},
    connection::{Connection, Greeted},
    endpoint::Shared,
    frames::{FrameRx, FrameTx, StreamError},
    plane::Plane,
};

/// A greeted connection that the pool knows; taken out of it however its task ends.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    pub(crate) connection: Connection,
}

impl Registered {
    pub(crate) fn new(shared: &Arc<Shared>, greeted: Greeted) -> Result<Self, Problem> {
        let connection = shared.pool().register(greeted)?;
        // what this node is called may have changed while the two greeted each other
        shared.close_misnamed(&connection);
        Ok(Self { shared: shared.clone(), connection })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.pool().deregister(&self.connection);
    }
}

/// Serves what the peer sends. Returns when the connection has ended.
pub(crate) async fn run(registered: Registered) {
    let Registered { shared, connection } = &registered;
    // asked once more: somebody may have been closed out between the first asking and the registering
    if !shared.judge(connection) {
        return;
    }
    let takes_datagrams = connection.plane() == Plane::Control;
    let strangers = Arc::new(AtomicUsize::new(0));
    let ended = loop {
        tokio::select! {
            biased;
            datagram = connection.quinn().read_datagram(), if takes_datagrams => match datagram {
                Ok(data) => {
                    if is_member(shared, connection) {
                        shared.doorkeeper.datagram(&connection.peer(), data);
                    }
                }
                Err(e) => break close::explain(&e),
            },
            stream = connection.quinn().accept_bi() => match stream {
                Ok((tx, rx)) => {
                    shared.tasks.spawn(stream_task(shared.clone(), connection.clone(), strangers.clone(), tx, rx));
                }
                Err(e) => break close::explain(&e),
            },
        }
    };
    tracing::debug!(?connection, %ended, "disconnected");
}

/// A peer that was admitted since it connected need not dial again, so strangers are asked about at everything they send.
fn is_member(shared: &Shared, connection: &Connection) -> bool {
    connection.node().is_some() || (shared.judge(connection) && connection.node().is_some())
}

/// Counts a stranger's streams for as long as their sending half lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn stream_task(shared: Arc<Shared>, connection: Connection, strangers: Arc<AtomicUsize>, tx: SendStream, rx: RecvStream) {
    let (mut tx, mut rx) = (FrameTx::new(tx), FrameRx::new(rx));
    let is_member = is_member(&shared, &connection);
    let before = strangers.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(strangers);
    if !is_member && before >= limits::UNADMITTED_STREAMS {
        return refuse(&mut tx, &mut rx, StreamCode::TooMany);
    }
    let open = match tokio::time::timeout(limits::HANDSHAKE_TIME, rx.recv::<Open>()).await {
        Ok(Ok(Some(open))) => open,
        Ok(Ok(None) | Err(StreamError::Lost(_) | StreamError::Reset(_))) => return,
        Ok(Err(error)) => {
            tracing::warn!(?connection, %error, "a stream that does not say what it is for");
            return refuse(&mut tx, &mut rx, StreamCode::BadFrame);
        }
        Err(_) => return refuse(&mut tx, &mut rx, StreamCode::Late),
    };
    if (connection.plane() == Plane::Renew) != matches!(open, Open::Renew) {
        return refuse(&mut tx, &mut rx, StreamCode::NotAdmitted);
    }
    if !is_member && !matches!(open, Open::Join(_)) {
        tracing::debug!(?connection, "a node that is not admitted asks for more than to join");
        return refuse(&mut tx, &mut rx, StreamCode::NotAdmitted);
    }
    if !is_member {
        tx.count(counted);
    }
    shared.doorkeeper.stream(connection.peer(), open, tx, rx);
}

fn refuse(tx: &mut FrameTx, rx: &mut FrameRx, code: StreamCode) {
    tx.reset(code);
    rx.stop(code);
}
