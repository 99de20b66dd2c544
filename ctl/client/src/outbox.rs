//! What a request carries: bytes that are there, or bytes that are still being written.
//!
//! A stream's lines are appended to one buffer; whenever the connection can write, it takes all of it. Many small writes become
//! one frame without anybody waiting for company, and a single line is on its way as soon as the connection's task runs.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use swarm_proto::{Code, Problem};
use tokio::sync::mpsc;

/// Written and not yet taken by the connection; a writer waits above this.
const HIGH_WATER: usize = 256 << 10;

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    is_finished: bool,
    /// The connection is gone, or the server has answered in full.
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

type Shared = Arc<Mutex<State>>;

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writing end. Dropping it ends the body.
pub(crate) struct Outbox {
    shared: Shared,
}

/// The body of any request of ours.
pub(crate) enum RequestBody {
    Whole(Option<Bytes>),
    Written(Written),
    /// Pieces as they come; `size` of them in all, where that is known.
    Streamed {
        pieces: mpsc::Receiver<io::Result<Bytes>>,
        size: Option<u64>,
    },
}

/// The end that the connection reads.
pub(crate) struct Written {
    shared: Shared,
}

impl Outbox {
    pub(crate) fn new() -> (Self, RequestBody) {
        let shared = Shared::default();
        (Self { shared: Arc::clone(&shared) }, RequestBody::Written(Written { shared }))
    }

    /// Lets `write` append to the buffer; waits only while more than enough is there already.
    pub(crate) async fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Problem> {
        poll_fn(|cx| self.poll_room(cx)).await?;
        let mut state = lock(&self.shared);
        write(&mut state.buffer);
        if let Some(reader) = state.reader.take() {
            drop(state);
            reader.wake();
        }
        Ok(())
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), Problem>> {
        let mut state = lock(&self.shared);
        if state.is_closed {
            let why = "the daemon went away, or ended the stream; its last answers say why";
            return Poll::Ready(Err(Problem::new(Code::UnknownOutcome, "the stream takes no more submissions", why)));
        }
        if state.buffer.len() <= HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.is_finished = true;
        if let Some(reader) = state.reader.take() {
            drop(state);
            reader.wake();
        }
    }
}

impl Written {
    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = lock(&self.shared);
        if !state.buffer.is_empty() {
            let next = Vec::with_capacity(state.buffer.len());
            let frame = std::mem::replace(&mut state.buffer, next).into();
            if let Some(writer) = state.writer.take() {
                drop(state);
                writer.wake();
            }
            return Poll::Ready(Some(frame));
        }
        if state.is_finished {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.is_closed = true;
        if let Some(writer) = state.writer.take() {
            drop(state);
            writer.wake();
        }
    }
}

impl RequestBody {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Written(written) => written.poll(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { pieces, .. } => pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed { size: Some(size), .. } => SizeHint::with_exact(*size),
            Self::Written(_) | Self::Streamed { size: None, .. } => SizeHint::default(),
        }
    }
}
