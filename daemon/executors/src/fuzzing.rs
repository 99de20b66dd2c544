//! For `tests/fuzz`: what daemon, keeper, disk and kernel say, given as bytes.

use std::io::{self, Read, Write};

use swarm_proto::frame;

use crate::{
    TaskUser, argv, id,
    link::Link,
    linux,
    output::kept,
    protocol::{FRAME, FromKeeper, ToKeeper},
};

/// A connection on which pieces come, and nothing is said.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.0.len().min(self.1).min(buffer.len());
        let (now, rest) = self.0.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.0 = rest;
        Ok(len)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The keeper hears its daemon, so many bytes at a time; answers how many messages it understood.
pub fn keeper_hears(bytes: &[u8], piece: usize) -> usize {
    let (mut link, mut buffer, mut count) = (Link::over(Pieces(bytes, piece.max(1))), [0; 4096], 0);
    while let Ok(messages) = link.receive(&mut buffer) {
        count += messages.len();
    }
    count
}

/// The daemon hears its keeper.
pub fn daemon_hears(body: &[u8]) -> bool {
    body.len() <= FRAME && frame::decode::<FromKeeper>(body).is_ok()
}

/// A message that the daemon could send, as its frame.
pub fn to_keeper(message: &[u8]) -> Option<Vec<u8>> {
    frame::encode(&frame::decode::<ToKeeper>(message).ok()?, FRAME).ok()
}

/// What a file says of how much was written and kept.
pub fn written_in(text: &str) -> bool {
    kept::written_in(text).is_some()
}

/// Whose a file of output is.
pub fn key_of(name: &str) -> bool {
    kept::key_of(name).is_some()
}

/// What the kernel says of a process.
pub fn process_in(stat: &str) -> bool {
    linux::tree::parse(1, stat).is_some()
}

/// What the host's files say of a user.
pub fn user_in(name: &str, passwd: &str, group: &str) -> bool {
    TaskUser::parse(name, passwd, group).is_ok()
}

/// The arguments of a task with its item in their places.
///
/// # Errors
/// They are too long.
pub fn with_item(argv: &[String], item: &str) -> Result<Vec<String>, String> {
    argv::with_item(argv, Some(item))
}

/// The keeper's id in its file, and the file that is written for it.
pub fn id_in(file: &[u8]) -> Option<(&str, String)> {
    id::id_in(file).ok().flatten().map(|id| (id, id::line_of(id)))
}
