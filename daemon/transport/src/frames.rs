//! Typed messages over QUIC streams, by the rule of [`swarm_proto::frame`].
//!
//! ```text
//! feed, feed, feed -> buffer --flush--> one write      chunks -> buffer -> length checked -> recv
//! ```
//! Both ends are safe to cancel: a `send` or `recv` that is dropped half way loses nothing, the next call goes on where it
//! stopped. A stream ends cleanly only by [`FrameTx::finish`]; a sender that is dropped resets its stream, so a task that
//! died is never taken for one that was done.

use std::io;

use bytes::Bytes;
use quinn::{ReadError, WriteError};
use serde::{Serialize, de::DeserializeOwned};
use swarm_proto::{
    frame::{self, FrameError, HEADER},
    limits,
};

use crate::{
    close::{self, Ended, StreamCode},
    serve::Counted,
};

/// A buffer grown for one large frame is given back down to this.
const KEPT: usize = 64 << 10;
/// Chunks taken from the connection at a time; about 40 KiB.
const CHUNKS: usize = 32;
/// Where streams that are sent in their order begin to be counted again.
const LAST_PLACE: u32 = (1 << 30) - 1;

/// Why a stream is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A frame over the bound, or one that does not decode. Outgoing: nothing of it was sent and the stream goes on.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream was finished within a frame.
    #[error("the stream ended {have} bytes into a frame")]
    Truncated {
        /// Bytes of the frame, its header included, that had come.
        have: usize,
    },
    /// The peer gave up sending.
    #[error("the peer gave the stream up: {0}")]
    Reset(StreamCode),
    /// The peer reads no further.
    #[error("the peer reads no further: {0}")]
    Stopped(StreamCode),
    /// The stream was finished without the answer that was due.
    #[error("the stream ended without an answer")]
    NoAnswer,
    /// This side has already finished or reset it.
    #[error("the stream is already finished")]
    Finished,
    /// The connection under it is gone.
    #[error("the connection is gone: {0}")]
    Lost(Ended),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Frame(_) => io::ErrorKind::InvalidData,
            StreamError::Truncated { .. } | StreamError::NoAnswer => io::ErrorKind::UnexpectedEof,
            StreamError::Reset(_) | StreamError::Lost(_) => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Finished => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(StreamCode::from(code)),
            WriteError::ConnectionLost(e) => Self::Lost(close::explain(&e)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Finished,
        }
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(StreamCode::from(code)),
            ReadError::ConnectionLost(e) => Self::Lost(close::explain(&e)),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::Finished,
        }
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct FrameTx {
    stream: quinn::SendStream,
    /// Frames fed since the last flush.
    fed: Vec<u8>,
    /// What a flush has not yet handed over.
    pending: Bytes,
    limit: usize,
    is_finished: bool,
    /// Given back when this half is dropped.
    counted: Option<Counted>,
}

impl FrameTx {
    pub(crate) fn new(stream: quinn::SendStream) -> Self {
        Self { stream, fed: Vec::new(), pending: Bytes::new(), limit: limits::CONTROL_FRAME, is_finished: false, counted: None }
    }

    pub(crate) fn count(&mut self, counted: Counted) {
        self.counted = Some(counted);
    }

    /// The largest frame this side sends; [`limits::CONTROL_FRAME`] at first. The peer's bound must be as large.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// What is sent here goes before what others send on the same connection, also before the rest of what was begun.
    pub fn hurry(&self) {
        // an error means that the stream has ended
        let _ = self.stream.set_priority(1);
    }

    /// What is sent here goes after all else on the same connection, but for what the peer asked for later and is sent in this way too:
    /// one thing is whole before the next one, and what is lost of it goes again before anything of that one.
    pub fn queue(&self) {
        let place = u32::try_from(self.stream.id().index() & u64::from(LAST_PLACE)).unwrap_or(LAST_PLACE);
        let _ = self.stream.set_priority(-1 - place.cast_signed());
    }

    /// Until the peer takes no more, or everything was sent and acknowledged.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move { drop(stopped.await) }
    }

    /// Sends one message, and whatever was fed before it, in one write. Waits while the peer's window is full.
    ///
    /// # Errors
    /// [`StreamError::Frame`] when it is over the limit (the stream goes on), else the stream is dead.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), StreamError> {
        self.feed(message)?;
        self.flush().await
    }

    /// Sends many messages in one write.
    ///
    /// # Errors
    /// As [`Self::send`]. Messages before one that is over the limit stay fed.
    pub async fn send_all<'a, T: Serialize + 'a>(&mut self, messages: impl IntoIterator<Item = &'a T>) -> Result<(), StreamError> {
        for message in messages {
            self.feed(message)?;
        }
        self.flush().await
    }

    /// Sends one frame made by [`frame::encode`], header included: encoded once, sent to many.
    ///
    /// # Errors
    /// As [`Self::send`]; [`FrameError::Malformed`] when it is not exactly one frame.
    pub async fn send_raw(&mut self, framed: &[u8]) -> Result<(), StreamError> {
        let (header, body) = framed.split_first_chunk::<HEADER>().ok_or_else(|| FrameError::Malformed("no header".to_owned()))?;
        if frame::body_len(*header, self.limit)? != body.len() {
            return Err(FrameError::Malformed("the header does not fit the bytes".to_owned()).into());
        }
        self.fed.extend_from_slice(framed);
        self.flush().await
    }

    /// Encodes a message behind those already waiting; nothing is sent before [`Self::flush`].
    ///
    /// # Errors
    /// [`StreamError::Frame`] when it is over the limit; what was fed before stays.
    pub fn feed<T: Serialize>(&mut self, message: &T) -> Result<(), StreamError> {
        Ok(frame::encode_into(message, &mut self.fed, self.limit)?)
    }

    /// Bytes fed and not yet flushed, for a caller who bounds a batch.
    pub fn fed_len(&self) -> usize {
        self.fed.len() + self.pending.len()
    }

    /// Hands over everything fed. Waits while the peer's window is full.
    ///
    /// # Errors
    /// The stream is dead.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        loop {
            while !self.pending.is_empty() {
                // takes what it wrote off the front of `pending`, so a dropped flush repeats nothing
                self.stream.write_chunks(std::slice::from_mut(&mut self.pending)).await?;
            }
            if self.fed.is_empty() {
                return Ok(());
            }
            self.pending = Bytes::from(std::mem::take(&mut self.fed));
        }
    }

    /// Sends bytes as they are, after whatever was fed: no header, and no copy. The peer takes them with
    /// [`FrameRx::read_exact`], and knows from what was said before how many there are. Waits while the peer's window is full.
    ///
    /// # Errors
    /// The stream is dead.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.flush().await?;
        self.pending = bytes;
        self.flush().await
    }

    /// Ends the stream cleanly: the peer's `recv` answers `None` after the last frame. Call it after the last `flush`.
    /// What was sent is delivered even when this half is dropped right away.
    ///
    /// # Errors
    /// [`StreamError::Finished`] when it was ended before; [`StreamError::Stopped`] when the peer stopped reading.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        debug_assert_eq!(self.fed_len(), 0, "finish comes after flush");
        self.is_finished = true;
        self.stream.finish().map_err(|_| StreamError::Finished)
    }

    /// Waits until the peer has everything of a finished stream, or reads no further.
    ///
    /// # Errors
    /// [`StreamError::Stopped`], [`StreamError::Lost`].
    pub async fn delivered(&mut self) -> Result<(), StreamError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::Stopped(code.into())),
            Err(quinn::StoppedError::ConnectionLost(e)) => Err(StreamError::Lost(close::explain(&e))),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(StreamError::Finished),
        }
    }

    /// Gives the stream up; what is not yet sent never is.
    pub fn reset(&mut self, code: StreamCode) {
        self.is_finished = true;
        // an error means that it already ended, which is what was wanted
        let _ = self.stream.reset(code.into());
    }
}

impl Drop for FrameTx {
    fn drop(&mut self) {
        if !self.is_finished {
            self.reset(StreamCode::Dropped);
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct FrameRx {
    stream: quinn::RecvStream,
    frames: Deframer,
}

impl FrameRx {
    pub(crate) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, frames: Deframer::new(limits::CONTROL_FRAME) }
    }

    /// The largest frame this side takes; [`limits::CONTROL_FRAME`] at first.
    pub const fn set_limit(&mut self, limit: usize) {
        self.frames.limit = limit;
    }

    /// The next message; `None` when the peer finished.
    ///
    /// # Errors
    /// Any of [`StreamError`]; the stream is dead then.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StreamError> {
        match self.recv_raw().await? {
            Some(body) => Ok(Some(frame::decode(body)?)),
            None => Ok(None),
        }
    }

    /// The next frame's body, undecoded; `None` when the peer finished.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub async fn recv_raw(&mut self) -> Result<Option<&[u8]>, StreamError> {
        while !self.frames.is_ready()? {
            let mut chunks = [const { Bytes::new() }; CHUNKS];
            match self.stream.read_chunks(&mut chunks).await? {
                Some(count) => chunks[..count].iter().for_each(|chunk| self.frames.push(chunk)),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(StreamError::Truncated { have: self.frames.len() }),
            }
        }
        Ok(self.frames.take()?)
    }

    /// Another message if it is already here; never waits. For taking a batch after one `recv`.
    ///
    /// # Errors
    /// [`StreamError::Frame`].
    pub fn recv_ready<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StreamError> {
        match self.frames.take()? {
            Some(body) => Ok(Some(frame::decode(body)?)),
            None => Ok(None),
        }
    }

    /// Fills `buf` with bytes that are no frame. `took` is told of each piece that came, in bytes. Not safe to cancel.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when the stream was finished before, and any other of [`StreamError`].
    pub async fn read_exact(&mut self, buf: &mut [u8], mut took: impl FnMut(usize)) -> Result<(), StreamError> {
        let mut filled = self.frames.drain(buf);
        if filled > 0 {
            took(filled);
        }
        while filled < buf.len() {
            match self.stream.read(&mut buf[filled..]).await? {
                Some(count) => {
                    filled += count;
                    took(count);
                }
                None => return Err(StreamError::Truncated { have: filled }),
            }
        }
        Ok(())
    }

    /// As [`Self::read_exact`]; answers `false` when the stream was finished before the first byte.
    ///
    /// # Errors
    /// As [`Self::read_exact`].
    pub async fn read_exact_or_end(&mut self, buf: &mut [u8]) -> Result<bool, StreamError> {
        match self.read_exact(buf, |_| {}).await {
            Ok(()) => Ok(true),
            Err(StreamError::Truncated { have: 0 }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells the peer that this side reads no further.
    pub fn stop(&mut self, code: StreamCode) {
        // an error means that it already ended, which is what was wanted
        let _ = self.stream.stop(code.into());
    }
}

/// Cuts a byte stream into frames. It grows by what has come, never by what a header claims.
#[derive(Debug)]
pub(crate) struct Deframer {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    limit: usize,
}

impl Deframer {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.is_empty() {
                self.buffer.shrink_to(KEPT);
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The end of the next frame's body, if its header is here; an error as soon as the header says too much.
    fn end(&self) -> Result<Option<usize>, FrameError> {
        let Some((header, _)) = self.buffer[self.start..].split_first_chunk::<HEADER>() else { return Ok(None) };
        Ok(Some(self.start + HEADER + frame::body_len(*header, self.limit)?))
    }

    fn is_ready(&self) -> Result<bool, FrameError> {
        Ok(self.end()?.is_some_and(|end| end <= self.buffer.len()))
    }

    /// Moves what is here to `buf`, as much as fits.
    fn drain(&mut self, buf: &mut [u8]) -> usize {
        let count = self.len().min(buf.len());
        buf[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        count
    }

    pub(crate) fn take(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some(end) = self.end()?.filter(|end| *end <= self.buffer.len()) else { return Ok(None) };
        let body = self.start + HEADER..end;
        self.start = end;
        Ok(Some(&self.buffer[body]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_proto::{peer::Open, spec::Resources};

    use super::*;

    fn all<T: DeserializeOwned>(limit: usize, pieces: &[&[u8]]) -> Result<Vec<T>, FrameError> {
        let mut frames = Deframer::new(limit);
        let mut out = Vec::new();
        for piece in pieces {
            frames.push(piece);
            while let Some(body) = frames.take()? {
                out.push(frame::decode(body)?);
            }
        }
        Ok(out)
    }

    #[test]
    fn a_header_over_the_limit_is_refused_before_its_body_comes() {
        let mut frames = Deframer::new(10);
        for (len, is_fine) in [(9u32, true), (10, true), (11, false), (u32::MAX, false)] {
            frames.buffer = len.to_le_bytes().to_vec();
            frames.start = 0;
            assert_eq!(frames.is_ready().is_ok(), is_fine, "{len}");
            assert!(frames.buffer.capacity() <= KEPT);
        }
    }

    #[test]
    fn a_large_frame_does_not_keep_its_memory() {
        let mut frames = Deframer::new(1 << 20);
        frames.push(&frame::encode(&vec![7u8; 900_000], 1 << 20).unwrap());
        assert!(frames.take().unwrap().is_some());
        frames.push(&[]);
        assert!(frames.buffer.capacity() <= KEPT);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(words in prop::collection::vec(".{0,40}", 0..20), cuts in prop::collection::vec(1usize..50, 1..60)) {
            let mut bytes = Vec::new();
            for word in &words {
                frame::encode_into(word, &mut bytes, 1000).unwrap();
            }
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(all::<String>(1000, &pieces).unwrap(), words);
        }

        /// Anything at all: an error or some messages, never a panic, never more memory than what came.
        #[test]
        fn nonsense_is_refused_quietly(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = all::<Open>(1 << 16, &[&bytes]);
            let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            let _ = all::<Open>(1 << 16, &[&framed]);
            let _ = all::<swarm_proto::peer::Hello>(1 << 16, &[&framed]);
            let _ = all::<Result<swarm_proto::peer::Hello, swarm_proto::Problem>>(1 << 16, &[&framed]);
        }

        /// One flipped byte in a real message.
        #[test]
        fn damaged_messages_do_not_panic(at in 0usize..200, value in any::<u8>()) {
            let meta = swarm_proto::peer::NodeMeta { memory: 1 << 40,
                version: 3, name: "pi".into(), software: "1".into(), protocol: 1,
                addrs: swarm_proto::ledger::Addrs { control: ([127, 0, 0, 1], 1).into(), bulk: ([127, 0, 0, 1], 2).into() },
                os: "linux".into(), arch: "x86_64".into(), capacity: Resources::default(), labels: Default::default(), executors: vec!["exec".into()],
            };
            let mut bytes = frame::encode_control(&meta).unwrap();
            let at = HEADER + at % (bytes.len() - HEADER);
            bytes[at] = value;
            let _ = all::<swarm_proto::peer::NodeMeta>(1 << 16, &[&bytes]);
        }
    }
}
