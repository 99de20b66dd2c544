//! The socket to the daemon, without waiting.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
};

use swarm_proto::frame;

use super::super::protocol::{FRAME, FromKeeper, ToKeeper};

/// Bytes read in one turn.
const TURN: usize = 256 << 10;

pub(super) struct Link {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that are gone already.
    sent: usize,
    /// Whether Hello was exchanged.
    pub(super) is_greeted: bool,
}

impl Link {
    /// # Errors
    /// When the peer is another user's process, or the socket cannot be used.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        if peer.uid != rustix::process::geteuid() {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(Self { socket, input: Vec::new(), output: Vec::new(), sent: 0, is_greeted: false })
    }

    pub(super) const fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Whole messages that have arrived.
    ///
    /// # Errors
    /// When the daemon is gone or makes no sense.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Vec<ToKeeper>> {
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
    pub(super) fn say(&mut self, message: &FromKeeper) {
        if let Ok(frame) = frame::encode(message, FRAME) {
            self.output.extend_from_slice(&frame);
        }
    }

    pub(super) const fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.sent == self.output.len() || self.sent > TURN {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}
