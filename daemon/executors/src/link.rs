//! The keeper's end of the connection to the daemon, without waiting: over anything that reads and writes what it can at once.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
};

use swarm_proto::frame;

use crate::protocol::{FRAME, FromKeeper, ToKeeper};

/// The oldest chunks of output give way when so many bytes of them wait for the daemon.
const OUTBOX: usize = 4 << 20;
/// Bytes read in one turn.
const TURN: usize = 256 << 10;

/// Frames that go out together.
struct Piece {
    bytes: Vec<u8>,
    /// One chunk of output, which may be dropped while nothing of it is gone.
    is_chunk: bool,
}

pub(crate) struct Link<S> {
    socket: S,
    input: Vec<u8>,
    output: VecDeque<Piece>,
    /// Bytes of the first piece that are gone already.
    sent: usize,
    /// Bytes of chunks in `output`.
    chunks: usize,
    /// Whether Hello was exchanged.
    pub(crate) is_greeted: bool,
}

#[cfg(unix)]
impl Link<std::os::unix::net::UnixStream> {
    /// # Errors
    /// When the peer is another user's process, or the socket cannot be used.
    pub(crate) fn new(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        if peer.uid != rustix::process::geteuid() {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(Self::over(socket))
    }
}

impl<S: Read + Write> Link<S> {
    /// Over a connection whose other end was judged.
    pub(crate) const fn over(socket: S) -> Self {
        Self { socket, input: Vec::new(), output: VecDeque::new(), sent: 0, chunks: 0, is_greeted: false }
    }

    pub(crate) const fn socket(&self) -> &S {
        &self.socket
    }

    /// Whole messages that have arrived.
    ///
    /// # Errors
    /// When the daemon is gone or makes no sense.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Vec<ToKeeper>> {
        let mut total = 0;
        while total < TURN {
            match self.socket.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    self.input.extend_from_slice(&buffer[..len]);
                    total += len;
                    if len < buffer.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let mut messages = Vec::new();
        let mut at = 0;
        while let Some((header, rest)) = self.input[at..].split_first_chunk::<{ frame::HEADER }>() {
            let len = frame::body_len(*header, FRAME).map_err(io::Error::other)?;
            let Some(body) = rest.get(..len) else { break };
            messages.push(frame::decode(body).map_err(io::Error::other)?);
            at += frame::HEADER + len;
        }
        self.input.drain(..at);
        Ok(messages)
    }

    /// Queues it. One beyond the frame's bound cannot come from checked specs and is dropped.
    pub(crate) fn say(&mut self, message: &FromKeeper) {
        let Ok(bytes) = frame::encode(message, FRAME) else { return };
        match self.output.back_mut() {
            Some(last) if !last.is_chunk && last.bytes.len() < TURN => last.bytes.extend_from_slice(&bytes),
            _ => self.output.push_back(Piece { bytes, is_chunk: false }),
        }
    }

    /// Queues output, in its order with all else. The oldest output gives way when there is more than [`OUTBOX`].
    pub(crate) fn say_chunk(&mut self, chunk: &FromKeeper) {
        let Ok(bytes) = frame::encode(chunk, FRAME) else { return };
        self.chunks += bytes.len();
        self.output.push_back(Piece { bytes, is_chunk: true });
        while self.chunks > OUTBOX {
            let begun = usize::from(self.sent > 0);
            let Some(oldest) = self.output.iter().skip(begun).position(|piece| piece.is_chunk) else { return };
            if let Some(dropped) = self.output.remove(begun + oldest) {
                self.chunks -= dropped.bytes.len();
            }
        }
    }

    pub(crate) fn is_blocked(&self) -> bool {
        !self.output.is_empty()
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(first) = self.output.front() {
            match self.socket.write(&first.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if self.sent == first.bytes.len() {
                self.chunks -= if first.is_chunk { first.bytes.len() } else { 0 };
                self.output.pop_front();
                self.sent = 0;
            }
        }
        Ok(())
    }
}
