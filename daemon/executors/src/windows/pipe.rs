//! A pipe that reads and writes what it can at once.

use std::io::{self, Read, Write};

use tokio::{io::Interest, net::windows::named_pipe::NamedPipeServer};

pub(crate) struct Pipe(pub(crate) NamedPipeServer);

impl Pipe {
    /// Waits until there may be something to read, or room to write where `is_blocked`.
    pub(crate) async fn ready(&self, is_blocked: bool) -> io::Result<()> {
        let interest = if is_blocked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.0.ready(interest).await.map(drop)
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.try_write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
