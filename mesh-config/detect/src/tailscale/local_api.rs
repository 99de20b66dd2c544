//! One question to tailscaled's LocalAPI.
//!
//! HTTP/1.0 is spoken because such an answer is never chunked and ends with the connection, so forty lines read it. tailscaled
//! refuses every `Host` but its own name.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Instant,
};

use super::NoTailnet;
use crate::{
    ANSWER, TIME,
    socket::{self, connect, told},
};

const HOST: &str = "local-tailscaled.sock";
/// Longest head of an answer.
const HEAD: usize = 16 << 10;

pub(super) fn get(path: &Path, what: &str) -> Result<Vec<u8>, NoTailnet> {
    let name = path.display().to_string();
    let silent = |why: String| NoTailnet::Silent { socket: name.clone(), why };
    let until = Instant::now() + TIME;
    let mut stream = connect(path).map_err(|e| match e.kind() == io::ErrorKind::NotFound {
        true => NoTailnet::Absent { socket: name.clone() },
        false => silent(told(&e)),
    })?;
    let request = format!("GET /localapi/v0/{what} HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| silent(told(&e)))?;
    let mut answer = Answer::default();
    let mut buffer = vec![0; 64 << 10];
    while !answer.is_whole()? {
        let count = socket::read(&mut stream, &mut buffer, until).map_err(|e| silent(told(&e)))?;
        if count == 0 {
            break;
        }
        answer.bytes.extend_from_slice(&buffer[..count]);
        if answer.bytes.len() > ANSWER {
            return Err(NoTailnet::Garbled(format!("it is longer than {ANSWER} bytes")));
        }
    }
    answer.into_body()
}

/// What came so far.
#[derive(Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    /// All that came.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec() }
    }

    fn head(&self) -> Option<(&str, usize)> {
        let end = self.bytes.windows(4).take(HEAD).position(|four| four == b"\r\n\r\n")?;
        Some((std::str::from_utf8(&self.bytes[..end]).unwrap_or_default(), end + 4))
    }

    /// Whether all of it is here, as far as its head tells; else its end is the connection's.
    fn is_whole(&self) -> Result<bool, NoTailnet> {
        let Some((head, begins)) = self.head() else {
            let is_endless = self.bytes.len() > HEAD;
            return if is_endless { Err(NoTailnet::Garbled("it is not HTTP".into())) } else { Ok(false) };
        };
        let length = header(head, "content-length").and_then(|length| length.parse::<usize>().ok());
        Ok(length.is_some_and(|length| self.bytes.len() - begins >= length))
    }

    pub(crate) fn into_body(mut self) -> Result<Vec<u8>, NoTailnet> {
        let garbled = |why: &str| NoTailnet::Garbled(why.to_owned());
        let (head, begins) = self.head().ok_or_else(|| garbled("it ends within its head"))?;
        let first = head.lines().next().unwrap_or_default();
        let status: u16 =
            first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok()).ok_or_else(|| garbled("it is not HTTP"))?;
        if header(head, "transfer-encoding").is_some() {
            return Err(garbled("it comes in chunks, which HTTP/1.0 does not have"));
        }
        let length = header(head, "content-length").and_then(|length| length.parse::<usize>().ok());
        if length.is_some_and(|length| self.bytes.len() - begins < length) {
            return Err(garbled("it ends too early"));
        }
        let body = self.bytes.split_off(begins);
        if status != 200 {
            let text = String::from_utf8_lossy(&body).lines().next().unwrap_or_default().chars().take(200).collect();
            return Err(NoTailnet::Refused { status, text });
        }
        Ok(body)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}
