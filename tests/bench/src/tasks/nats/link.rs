//! One connection to a NATS server: as much of its protocol (docs.nats.io, "Client Protocol") as the load needs.
//!
//! What is published waits until the next message is not there yet, and then leaves in one write: a busy connection makes few of them.

use std::{net::IpAddr, ops::Range};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What is said first. Without `no_responders` a request that nobody takes would never be answered.
const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"rust\",\"version\":\"0\"}\r\n";
/// Room in the buffer for the next read.
const ROOM: usize = 64 << 10;

/// The connection.
pub(super) struct Link {
    socket: TcpStream,
    read: Vec<u8>,
    /// How much of it was handed out.
    used: usize,
    unsent: Vec<u8>,
}

/// A message to this connection. Of one with headers, which only the server itself sends here, the payload is what follows them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    sid: u64,
    reply: Option<&'a str>,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The number under which it was subscribed to.
    pub(super) const fn sid(&self) -> u64 {
        self.sid
    }

    pub(super) const fn reply(&self) -> Option<&'a str> {
        self.reply
    }

    pub(super) const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Message(Place),
    Ping,
    /// News of the cluster, and answers to a ping.
    Other,
    Fault(&'a str),
}

/// Where the parts of a message are in what was read.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    sid: u64,
    reply: Option<Range<usize>>,
    payload: Range<usize>,
}

impl Link {
    pub(super) async fn connect(host: IpAddr, port: u16) -> anyhow::Result<Self> {
        let socket = TcpStream::connect((host, port)).await.with_context(|| format!("{host}:{port}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, read: Vec::new(), used: 0, unsent: CONNECT.to_vec() })
    }

    pub(super) fn subscribe(&mut self, subject: &str, sid: u64) {
        self.unsent.extend_from_slice(format!("SUB {subject} {sid}\r\n").as_bytes());
    }

    pub(super) fn publish(&mut self, subject: &str, reply: Option<&str>, payload: &[u8]) {
        for word in ["PUB ", subject, " ", reply.unwrap_or_default(), if reply.is_some() { " " } else { "" }] {
            self.unsent.extend_from_slice(word.as_bytes());
        }
        self.unsent.extend_from_slice(format!("{}\r\n", payload.len()).as_bytes());
        self.unsent.extend_from_slice(payload);
        self.unsent.extend_from_slice(b"\r\n");
    }

    pub(super) async fn flush(&mut self) -> anyhow::Result<()> {
        self.socket.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// The next message. What was published is sent before it is waited for.
    ///
    /// Dropped while it waits, it may have sent a part of that: only a connection that is idle otherwise may be left so.
    pub(super) async fn next(&mut self) -> anyhow::Result<Message<'_>> {
        let place = loop {
            match parse(&self.read, self.used)? {
                Some((said, end)) => {
                    self.used = end;
                    match said {
                        Said::Message(place) => break place,
                        Said::Ping => self.unsent.extend_from_slice(b"PONG\r\n"),
                        Said::Fault(why) => bail!("nats-server: {why}"),
                        Said::Other => {}
                    }
                }
                None => self.fill().await?,
            }
        };
        let reply = place.reply.map(|reply| std::str::from_utf8(&self.read[reply])).transpose()?;
        Ok(Message { sid: place.sid, reply, payload: &self.read[place.payload] })
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        if !self.unsent.is_empty() {
            self.flush().await?;
        }
        self.read.drain(..self.used);
        self.used = 0;
        self.read.reserve(ROOM);
        ensure!(self.socket.read_buf(&mut self.read).await? > 0, "nats-server ended the connection");
        Ok(())
    }
}

/// What is said at that place, and where it ends; `None` when it is not all there.
fn parse(read: &[u8], at: usize) -> anyhow::Result<Option<(Said<'_>, usize)>> {
    let Some(len) = read[at..].windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let (line, body) = (std::str::from_utf8(&read[at..at + len])?, at + len + 2);
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "MSG" | "HMSG" => {}
        "PING" => return Ok(Some((Said::Ping, body))),
        "INFO" | "PONG" | "+OK" => return Ok(Some((Said::Other, body))),
        "-ERR" => return Ok(Some((Said::Fault(rest), body))),
        _ => bail!("nats-server says '{line}'"),
    }
    // MSG subject sid [reply] bytes, HMSG subject sid [reply] header-bytes bytes
    let has_headers = word == "HMSG";
    let mut words = rest.rsplit(' ');
    let (Some(all), headers) = (words.next(), if has_headers { words.next().unwrap_or_default() } else { "0" }) else {
        bail!("nats-server says '{line}'")
    };
    let (all, headers): (usize, usize) = (all.parse()?, headers.parse()?);
    let (first, second, third) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next());
    let (reply, sid) = if third.is_some() { (Some(first), second) } else { (None, first) };
    ensure!(headers <= all, "nats-server says '{line}'");
    if read.len() < body + all + 2 {
        return Ok(None);
    }
    let reply = reply.map(|reply| {
        let begin = reply.as_ptr().addr() - read.as_ptr().addr();
        begin..begin + reply.len()
    });
    Ok(Some((Said::Message(Place { sid: sid.parse()?, reply, payload: body + headers..body + all }), body + all + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_read_in_pieces() {
        let text = b"INFO {\"a\": 1}\r\nMSG r.7 2 3\r\na\r\n\r\nHMSG _pulled 3 $JS.ACK.x 4 6\r\nN\r\n\r45\r\nPING\r\n";
        let (mut at, mut said) = (0, Vec::new());
        for end in 0..=text.len() {
            while let Some((what, next)) = parse(&text[..end], at).unwrap() {
                assert!(next <= end);
                at = next;
                said.push(match what {
                    Said::Message(place) => {
                        let reply = place.reply.map(|reply| std::str::from_utf8(&text[reply]).unwrap());
                        format!("{} {reply:?} {:?}", place.sid, std::str::from_utf8(&text[place.payload]).unwrap())
                    }
                    Said::Ping | Said::Other | Said::Fault(_) => format!("{what:?}"),
                });
            }
        }
        assert_eq!(said, ["Other", r#"2 None "a\r\n""#, r#"3 Some("$JS.ACK.x") "45""#, "Ping"]);
        assert_eq!(at, text.len());
    }

    #[test]
    fn faults_are_told_apart_from_nonsense() {
        assert_eq!(parse(b"-ERR 'slow'\r\n", 0).unwrap(), Some((Said::Fault("'slow'"), 13)));
        assert!(parse(b"HTTP/1.1 400\r\n", 0).is_err());
        assert!(parse(b"HMSG a 1 9 3\r\n", 0).is_err());
    }
}
