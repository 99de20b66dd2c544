//! Why streams and connections end, in words: codes that travel, and what QUIC and TLS report in their own.

use std::fmt;

use quinn::{ConnectionError, VarInt};

/// Why one side gave up a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCode {
    /// Its task ended without finishing it.
    Dropped,
    /// It is not wanted any more: QUIC's code for a receiver that went away.
    Done,
    /// The peer is not admitted and may only ask to join.
    NotAdmitted,
    /// Too many streams of a peer that is not admitted.
    TooMany,
    /// A frame that is too long or does not decode.
    BadFrame,
    /// The opening message did not come in time.
    Late,
    /// A code of another version.
    Other(u32),
}

impl StreamCode {
    const fn number(self) -> u32 {
        match self {
            Self::Dropped => 1,
            Self::Done => 0,
            Self::NotAdmitted => 2,
            Self::TooMany => 3,
            Self::BadFrame => 4,
            Self::Late => 5,
            Self::Other(code) => code,
        }
    }
}

impl From<VarInt> for StreamCode {
    fn from(code: VarInt) -> Self {
        let known = [Self::Dropped, Self::Done, Self::NotAdmitted, Self::TooMany, Self::BadFrame, Self::Late];
        let number = u32::try_from(code.into_inner()).unwrap_or(u32::MAX);
        known.into_iter().find(|known| known.number() == number).unwrap_or(Self::Other(number))
    }
}

impl From<StreamCode> for VarInt {
    fn from(code: StreamCode) -> Self {
        Self::from_u32(code.number())
    }
}

impl fmt::Display for StreamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dropped => "its task ended",
            Self::Done => "no longer wanted",
            Self::NotAdmitted => "a node that is not admitted may only ask to join",
            Self::TooMany => "too many streams before admission",
            Self::BadFrame => "a frame that cannot be understood",
            Self::Late => "the opening message did not come in time",
            Self::Other(code) => return write!(f, "code {code}"),
        })
    }
}

/// Why one side closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The endpoint is shutting down.
    Stopping,
    /// Not let in: unknown, revoked, full.
    Refused,
    /// Another protocol version.
    Version,
    /// Not the peer that was meant.
    WrongPeer,
    /// Newer connections to the same peer replaced it.
    Replaced,
    /// The Hello could not be understood or did not come.
    NoHello,
    /// The node was closed out by this side.
    ClosedOut,
    /// A code of another version.
    Other(u32),
}

impl CloseCode {
    const fn number(self) -> u32 {
        match self {
            Self::Stopping => 1,
            Self::Refused => 2,
            Self::Version => 3,
            Self::WrongPeer => 4,
            Self::Replaced => 5,
            Self::NoHello => 6,
            Self::ClosedOut => 7,
            Self::Other(code) => code,
        }
    }
}

impl From<VarInt> for CloseCode {
    fn from(code: VarInt) -> Self {
        let known = [Self::Stopping, Self::Refused, Self::Version, Self::WrongPeer, Self::Replaced, Self::NoHello, Self::ClosedOut];
        let number = u32::try_from(code.into_inner()).unwrap_or(u32::MAX);
        known.into_iter().find(|known| known.number() == number).unwrap_or(Self::Other(number))
    }
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code.number())
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// This side closed it.
    Here,
    /// The peer closed it and said why.
    There(CloseCode, String),
    /// Nothing was heard for as long as the idle time.
    Silent,
    /// The peer is back without its memory: it restarted.
    Restarted,
    /// The handshake failed; the reason in words.
    Handshake(String),
    /// QUIC itself found a fault.
    Fault(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("closed by this side"),
            Self::There(CloseCode::Other(code), why) => write!(f, "closed by the peer (code {code}): {why}"),
            Self::There(_, why) => write!(f, "closed by the peer: {why}"),
            Self::Silent => f.write_str("nothing was heard from the peer"),
            Self::Restarted => f.write_str("the peer restarted"),
            Self::Handshake(why) | Self::Fault(why) => f.write_str(why),
        }
    }
}

/// First code of TLS alerts among QUIC's transport errors (RFC 9001 section 4.8).
const ALERTS: u64 = 0x100;

pub(crate) fn explain(error: &ConnectionError) -> Ended {
    match error {
        ConnectionError::LocallyClosed => Ended::Here,
        ConnectionError::ApplicationClosed(close) => {
            Ended::There(close.error_code.into(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        ConnectionError::TimedOut => Ended::Silent,
        ConnectionError::Reset => Ended::Restarted,
        ConnectionError::ConnectionClosed(close) => {
            explain_code(close.error_code.into(), "the peer refused us", &String::from_utf8_lossy(&close.reason))
        }
        ConnectionError::TransportError(fault) => explain_code(fault.code.into(), "we refused the peer", &fault.reason),
        ConnectionError::VersionMismatch => Ended::Handshake("the peer speaks another version of QUIC".to_owned()),
        ConnectionError::CidsExhausted => Ended::Fault("no connection id is left".to_owned()),
    }
}

fn explain_code(code: u64, who: &str, reason: &str) -> Ended {
    match code.checked_sub(ALERTS) {
        Some(alert @ 0..=0xff) => {
            let word = alert_word(alert);
            let detail = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            Ended::Handshake(format!("{who}: {word}{detail}"))
        }
        Some(_) | None if code == 0x2 => Ended::Fault(format!("{who}: too many connections or handshakes")),
        Some(_) | None => Ended::Fault(format!("{who}: QUIC error {code:#x} {reason}")),
    }
}

/// TLS alerts (RFC 8446 section 6) that a wrong identity leads to, in words an operator can act on.
const fn alert_word(alert: u64) -> &'static str {
    match alert {
        40 => "no common parameters",
        42 | 43 | 46 => "the certificate is not acceptable",
        44 => "the certificate is revoked",
        45 => "the certificate is expired",
        48 => "the certificate comes from another certificate authority",
        51 => "the certificate's signature is wrong",
        116 => "no certificate was shown",
        120 => "no common protocol: another swarm, another version, or another kind of endpoint",
        _ => "the TLS handshake failed",
    }
}
