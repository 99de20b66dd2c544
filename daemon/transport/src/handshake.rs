//! From a TLS handshake to a connection: each side says Hello and is told whether it may stay.
//!
//! ```text
//! dialler                                   the other
//!   TLS, both certificates  <---------->      ALPN: plane, version, swarm
//!   Hello                   ----------->      certificate ended? version? swarm? admitted?
//!            <-----------  Ok(Hello) | Err(Problem)
//! ```
//! A QUIC client holds its handshake for complete before the server has judged its certificate, so only the answer to the
//! Hello means "connected". The leading version is read before the rest, so that a newer peer's Hello, which may have another
//! shape, is still refused with both versions named.

use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use swarm_proto::{
    Code, PeerKey, Problem, UnixMillis,
    frame::{self, FrameError},
    limits,
    peer::Hello,
};

use crate::{
    frames::{FrameRx, FrameTx, StreamError},
    identity::Leaf,
    plane::Plane,
    tls::Tongue,
};

/// The peer's Hello as it came; judged by [`read_hello`].
type Answer = Result<Hello, Problem>;

/// Who TLS says is there, until when its certificate is good, on which plane, and the protocol that was agreed on.
pub(crate) fn identify(connection: &quinn::Connection, tongue: &Tongue) -> Result<(PeerKey, UnixMillis, Plane, u16), String> {
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first()).ok_or("no certificate was shown")?;
    let leaf = Leaf::parse(leaf).map_err(|e| e.to_string())?;
    let data = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
    let alpn = data.and_then(|data| data.protocol).ok_or("no protocol was agreed on")?;
    let agreed = Plane::from_alpn(&alpn, &tongue.protocols, tongue.realm);
    let (plane, protocol) = agreed.ok_or_else(|| format!("an unknown protocol was agreed on: {}", alpn.escape_ascii()))?;
    Ok((leaf.key, leaf.ends, plane, protocol))
}

/// A certificate that has ended is good for nothing but to ask for another.
pub(crate) fn check_end(ends: UnixMillis, plane: Plane, now: UnixMillis) -> Result<(), Problem> {
    if plane == Plane::Renew || now < ends {
        return Ok(());
    }
    let why = format!("its certificate ended {} s ago", (now.0 - ends.0) / 1_000);
    Err(Problem::new(Code::Denied, "the connection is refused", why).hint("a node that is a member renews it by itself"))
}

/// Why a Hello was not answered by one.
#[derive(Debug)]
pub(crate) enum NoHello {
    /// The peer, or we, say no.
    Refused(Problem),
    /// The peer says nothing that can be understood, or is gone.
    Stream(StreamError),
}

impl From<StreamError> for NoHello {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

/// The dialler's side.
pub(crate) async fn greet(connection: &quinn::Connection, ours: &Hello) -> Result<Hello, NoHello> {
    let (tx, rx) = connection.open_bi().await.map_err(|e| StreamError::Lost(crate::close::explain(&e)))?;
    let (mut tx, mut rx) = (FrameTx::new(tx), FrameRx::new(rx));
    tx.set_limit(limits::HELLO);
    rx.set_limit(limits::HELLO);
    tx.send(ours).await?;
    tx.finish()?;
    let body = rx.recv_raw().await?.ok_or(StreamError::NoAnswer)?;
    match body.split_first() {
        // postcard writes a Result as its variant's number, then what is in it
        Some((0, hello)) => read_hello(hello, ours).map_err(NoHello::Refused),
        Some(_) | None => match frame::decode::<Answer>(body) {
            Ok(Err(problem)) => Err(NoHello::Refused(problem)),
            Ok(Ok(_)) => Err(StreamError::NoAnswer.into()),
            Err(e) => Err(StreamError::Frame(e).into()),
        },
    }
}

/// The other side: takes the first stream and reads what is on it.
pub(crate) async fn hear(connection: &quinn::Connection, ours: &Hello) -> Result<(Answer, FrameTx), StreamError> {
    let (tx, rx) = connection.accept_bi().await.map_err(|e| StreamError::Lost(crate::close::explain(&e)))?;
    let (mut tx, mut rx) = (FrameTx::new(tx), FrameRx::new(rx));
    tx.set_limit(limits::HELLO);
    rx.set_limit(limits::HELLO);
    let body = rx.recv_raw().await?.ok_or(StreamError::NoAnswer)?;
    Ok((read_hello(body, ours), tx))
}

/// Answers a Hello.
pub(crate) async fn answer(tx: &mut FrameTx, answer: &Answer) -> Result<(), StreamError> {
    tx.send(answer).await?;
    tx.finish()
}

pub(crate) fn read_hello(body: &[u8], ours: &Hello) -> Result<Hello, Problem> {
    let refused = |code, why: String| Problem::new(code, "the peer's Hello is refused", why);
    let malformed = |e: FrameError| refused(Code::BadRequest, e.to_string());
    let theirs = postcard::take_from_bytes::<u16>(body).map_err(|e| malformed(FrameError::Malformed(e.to_string())))?.0;
    if theirs != ours.protocol {
        let why = format!("it speaks peer protocol {theirs}, this node speaks {}", ours.protocol);
        return Err(refused(Code::Version, why).hint("run versions of swarmd whose protocols are the same or next to each other"));
    }
    let hello: Hello = frame::decode(body).map_err(malformed)?;
    if hello.cluster != ours.cluster {
        return Err(refused(Code::Denied, format!("it belongs to swarm {}, this node to {}", hello.cluster, ours.cluster)));
    }
    if hello.name.len() > limits::NAME {
        return Err(refused(Code::BadRequest, format!("a name of {} bytes is over the limit of {}", hello.name.len(), limits::NAME)));
    }
    Ok(hello)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_proto::{ClusterId, NodeId, PROTOCOL, frame::HEADER, ledger::Addrs};

    use super::*;

    fn hello() -> Hello {
        let at = |port| ([127, 0, 0, 1], port).into();
        Hello {
            protocol: PROTOCOL,
            cluster: ClusterId([1; 16]),
            node: Some(NodeId(3)),
            name: "pi".into(),
            addrs: Addrs { control: at(1), bulk: at(2) },
            life: 1,
        }
    }

    fn body(hello: &Hello) -> Vec<u8> {
        frame::encode(hello, limits::HELLO).unwrap().split_off(HEADER)
    }

    #[test]
    fn another_version_is_named_with_ours_whatever_follows_it() {
        let mut newer = body(&Hello { protocol: 7, ..hello() });
        newer.truncate(2);
        newer.push(0xff);
        let problem = read_hello(&newer, &hello()).unwrap_err();
        assert_eq!(problem.code, Code::Version);
        assert!(problem.why.contains("protocol 7") && problem.why.contains(&format!("speaks {PROTOCOL}")), "{}", problem.why);
    }

    #[test]
    fn another_swarm_and_long_names_are_refused() {
        let foreign = read_hello(&body(&Hello { cluster: ClusterId([2; 16]), ..hello() }), &hello()).unwrap_err();
        assert_eq!(foreign.code, Code::Denied);
        for (len, is_fine) in [(limits::NAME - 1, true), (limits::NAME, true), (limits::NAME + 1, false)] {
            assert_eq!(read_hello(&body(&Hello { name: "x".repeat(len), ..hello() }), &hello()).is_ok(), is_fine);
        }
    }

    #[test]
    fn an_end_is_the_end_but_for_renewal() {
        for plane in Plane::ALL {
            for (now, is_fine) in [(999, true), (1_000, false), (1_001, false)] {
                let judged = check_end(UnixMillis(1_000), plane, UnixMillis(now));
                assert_eq!(judged.is_ok(), is_fine || plane == Plane::Renew, "{plane} at {now}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = read_hello(&bytes, &hello());
        }
    }
}
