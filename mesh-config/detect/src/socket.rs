//! Sockets of this host, asked with a bound on their time and on what they may say.

use std::{
    io::{self, ErrorKind, Read as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};

use crate::TIME;

/// One that has stopped taking connections must not hold us: the bound on writes is also the one on connecting.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(TIME))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Reads what is there, or comes until then. 0: the other end has said all.
pub(crate) fn read(stream: &mut UnixStream, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// All that is said to whoever connects.
pub(crate) fn hear(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let until = Instant::now() + TIME;
    let mut stream = connect(path)?;
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match read(&mut stream, &mut buffer, until)? {
            0 => return Ok(heard),
            count => heard.extend_from_slice(&buffer[..count]),
        }
        if heard.len() > most {
            return Err(io::Error::other(format!("it said more than {most} bytes")));
        }
    }
}

/// Why, as the end of a sentence.
pub(crate) fn told(error: &io::Error) -> String {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        return format!("it took more than {} s", TIME.as_secs());
    }
    if error.kind() == ErrorKind::ConnectionRefused { "nobody listens there".into() } else { error.to_string() }
}
