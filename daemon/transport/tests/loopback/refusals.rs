//! Who does not get in, and in which words.

use std::{net::UdpSocket, sync::Arc};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;
use swarm_proto::{
    ClusterId, Code, NodeId, PROTOCOL, UnixMillis,
    peer::{Hello, Open},
};
use swarm_transport::{BindError, Dial, DialError, Plane, Realm, SERVER_NAME, SecretKey, StreamCode, StreamError, Validity, udp_socket};

use crate::support::{How, Node, REALM, TODAY, ca, join, key_of, work};

/// What a dial of `dialler` to `listener` fails with.
async fn refusal(dialler: How, listener: How) -> DialError {
    let (a, b) = (Node::start_as(1, dialler), Node::start_as(2, listener));
    let error = a.connect(&b).await.unwrap_err();
    assert!(b.endpoint.pool().connections().is_empty());
    error
}

/// One version apart is spoken with, in the newest protocol that both know; further apart there is no handshake.
#[tokio::test]
async fn versions_side_by_side() {
    let speaks = |protocols| How { protocols, ..How::default() };
    for (dialler, listener, agreed) in [(1..=2, 1..=1, 1), (1..=1, 1..=2, 1), (1..=2, 2..=3, 2), (2..=3, 2..=3, 3)] {
        let (a, b) = (Node::start_as(1, speaks(dialler)), Node::start_as(2, speaks(listener)));
        assert_eq!(a.connect(&b).await.unwrap().peer().hello.protocol, agreed);
    }
    let error = refusal(speaks(1..=1), speaks(2..=3)).await;
    assert!(matches!(&error, DialError::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("protocol"), "{error}");
}

#[tokio::test]
async fn another_ca() {
    let error = refusal(How { ca: 2, ..How::default() }, How::default()).await;
    assert!(matches!(&error, DialError::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// The dialler accepts the other's certificate, and learns only from the missing answer that its own is refused.
#[tokio::test]
async fn a_client_certificate_of_another_ca() {
    let b = Node::start(2);
    let stranger = ca(2).issue(&SecretKey::from_seed(&[1; 32]).unwrap().peer_key(), Validity::CENTURY).unwrap();
    let raw = raw_client(Some(stranger), Some(Plane::Control));
    let connection = raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await;
    let ended = match connection {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    assert!(matches!(ended, quinn::ConnectionError::ConnectionClosed(_)), "{ended}");
    assert!(b.endpoint.pool().connections().is_empty());
}

#[tokio::test]
async fn no_client_certificate() {
    let b = Node::start(2);
    let raw = raw_client(None, Some(Plane::Control));
    let connection = raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await;
    let ended = match connection {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    // TLS alert 116, certificate_required
    assert!(matches!(&ended, quinn::ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 0x100 + 116), "{ended}");
}

#[tokio::test]
async fn no_alpn() {
    let b = Node::start(2);
    let own = ca(1).issue(&SecretKey::from_seed(&[1; 32]).unwrap().peer_key(), Validity::CENTURY).unwrap();
    let raw = raw_client(Some(own), None);
    let error = raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await.unwrap_err();
    assert!(matches!(&error, quinn::ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 0x100 + 120), "{error}");
}

#[tokio::test]
async fn another_swarm() {
    let foreign = ClusterId([8; 16]);
    let hello = Hello { cluster: foreign, ..How::default().hello };
    let error = refusal(How { realm: Realm { cluster: foreign, epoch: 0 }, hello, ..How::default() }, How::default()).await;
    assert!(matches!(&error, DialError::Handshake { .. }) && error.to_string().contains("another swarm"), "{error}");
}

#[tokio::test]
async fn another_swarm_in_the_hello_alone() {
    let hello = Hello { cluster: ClusterId([8; 16]), ..How::default().hello };
    let error = refusal(How { hello, ..How::default() }, How::default()).await;
    assert!(
        matches!(&error, DialError::Refused(problem) if problem.code == Code::Denied && problem.why.contains("belongs to swarm")),
        "{error}"
    );
}

#[tokio::test]
async fn another_epoch() {
    let recovered = How { realm: Realm { epoch: 1, ..REALM }, ..How::default() };
    let error = refusal(How::default(), recovered).await;
    assert!(matches!(&error, DialError::Handshake { .. }) && error.to_string().contains("no common protocol"), "{error}");
}

fn over() -> How {
    How { validity: Validity { from: UnixMillis(TODAY.0 - 9_000_000), until: UnixMillis(TODAY.0 - 5_000) }, ..How::default() }
}

#[tokio::test]
async fn a_certificate_that_has_ended_on_either_side() {
    for (a, b) in [(over(), How::default()), (How::default(), over())] {
        let error = refusal(a, b).await;
        let is_said = |problem: &swarm_proto::Problem| problem.code == Code::Denied && problem.why.contains("ended 5 s ago");
        assert!(matches!(&error, DialError::Refused(problem) if is_said(problem)), "{error}");
    }
}

/// It is good for one thing: to ask for another, on a plane where nothing else is served.
#[tokio::test]
async fn a_certificate_that_has_ended_may_renew_and_nothing_else() {
    let planes = vec![Plane::Control, Plane::Renew];
    let a = Node::start_as(1, How { planes: planes.clone(), ..over() });
    let mut b = Node::start_as(2, How { planes, ..How::default() });
    let connection = a.endpoint.pool().get(Plane::Renew, &b.dial()).await.unwrap();
    for open in [work(), join()] {
        assert_eq!(connection.call::<String>(&open).await.unwrap_err(), StreamError::Reset(StreamCode::NotAdmitted));
    }
    let asking = tokio::spawn(async move { connection.call::<String>(&Open::Renew).await });
    let (peer, open, mut tx, _rx) = b.streams.recv().await.unwrap();
    assert_eq!((peer.node, open), (Some(a.id), Open::Renew));
    tx.send(&"a new one").await.unwrap();
    tx.finish().unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), "a new one");
    assert!(a.connect(&b).await.is_err(), "still shut out elsewhere");
    // with a new certificate, and without a restart
    let renewed = ca(1).issue(&a.key, Validity::CENTURY).unwrap();
    let identity = ca(1).identity(key_of(1), over().validity).unwrap().renewed(Some(renewed), &[ca(1).root()]).unwrap();
    a.endpoint.pool().adopt(&identity).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    a.connect(&b).await.unwrap();
    let refused = a.connect(&b).await.unwrap().call::<String>(&Open::Renew).await.unwrap_err();
    assert_eq!(refused, StreamError::Reset(StreamCode::NotAdmitted), "renewal has its own plane");
}

/// One authority replaces another while nodes that know only the old one are away.
#[tokio::test]
async fn both_certificates_are_held_while_an_authority_is_replaced() {
    let (old, new) = (ca(1), ca(2));
    let (ahead, behind) = (Node::start(1), Node::start(2));
    let second = new.issue(&ahead.key, Validity::CENTURY).unwrap();
    let both = old.identity(key_of(1), Validity::CENTURY).unwrap().renewed(Some(second), &[new.root(), old.root()]).unwrap();
    ahead.endpoint.pool().adopt(&both).unwrap();
    ahead.connect(&behind).await.unwrap();
    let third = Node::start(3);
    third.connect(&ahead).await.unwrap();
    // the new authority alone
    let fourth = Node::start_as(4, How { ca: 2, ..How::default() });
    fourth.connect(&ahead).await.unwrap();
    ahead.endpoint.pool().adopt(&both.renewed(None, &[new.root()]).unwrap()).unwrap();
    let late = Node::start(5);
    assert!(late.connect(&ahead).await.is_err(), "the old authority is believed no more");
    Node::start_as(6, How { ca: 2, ..How::default() }).connect(&ahead).await.unwrap();
}

#[tokio::test]
async fn a_users_certificate_is_none_for_a_node() {
    let b = Node::start(2);
    let users = swarm_transport::Ca::create_for(swarm_proto::identity::Kind::User, REALM.cluster, key_of(99)).unwrap();
    let certificate = users.issue_to_user("ann", &key_of(1).peer_key(), Validity::CENTURY).unwrap();
    let raw = raw_client(Some(certificate), Some(Plane::Control));
    let ended = match raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    assert!(matches!(ended, quinn::ConnectionError::ConnectionClosed(_)), "{ended}");
    assert!(b.endpoint.pool().connections().is_empty());
}

/// Whoever has only a key makes a certificate for it alone.
#[tokio::test]
async fn a_self_signed_certificate() {
    let b = Node::start(2);
    let own = swarm_transport::Ca::create(REALM.cluster, key_of(1)).unwrap();
    for certificate in [own.root().clone(), own.issue(&key_of(1).peer_key(), Validity::CENTURY).unwrap()] {
        let raw = raw_client(Some(certificate), Some(Plane::Control));
        let ended = match raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        assert!(matches!(ended, quinn::ConnectionError::ConnectionClosed(_)), "{ended}");
    }
    assert!(b.endpoint.pool().connections().is_empty());
}

#[tokio::test]
async fn a_machine_without_a_clock_gets_in() {
    let without = How { wall: UnixMillis(0), ..How::default() };
    let (a, b) = (Node::start_as(1, without), Node::start(2));
    a.connect(&b).await.unwrap();
    b.endpoint.pool().existing(Plane::Control, a.id).unwrap();
}

#[tokio::test]
async fn another_peer_than_the_one_meant() {
    let (a, b) = (Node::start(1), Node::start(2));
    let pool = a.endpoint.pool();
    let wrong_key = Dial { key: Some(a.key), ..b.dial() };
    assert!(matches!(pool.get(Plane::Control, &wrong_key).await, Err(DialError::WrongKey { found, .. }) if found == b.key));
    let wrong_node = Dial { node: Some(NodeId(5)), key: None, addr: b.endpoint.local_addr() };
    assert!(matches!(pool.get(Plane::Control, &wrong_node).await, Err(DialError::WrongNode { found, .. }) if found == b.id));
    let ourselves = Dial::seed(a.endpoint.local_addr());
    assert!(matches!(pool.get(Plane::Control, &ourselves).await, Err(DialError::Ourselves { .. })));
    let nowhere = Dial::seed(([0, 0, 0, 0], 1).into());
    assert!(matches!(pool.get(Plane::Control, &nowhere).await, Err(DialError::BadAddress { .. })));
    assert!(matches!(pool.get(Plane::Bulk, &b.dial()).await, Err(DialError::NoPlane(Plane::Bulk))));
}

#[tokio::test]
async fn random_bytes_disturb_nobody() {
    let (a, mut b) = (Node::start(1), Node::start(2));
    let connection = a.connect(&b).await.unwrap();
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bytes = [0u8; 1400];
    for round in 0..400u32 {
        let seed = blake3::hash(&round.to_le_bytes());
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        let len = usize::from(seed.as_bytes()[0]) * 5 + 1;
        // some look like long headers of the right version
        if round % 3 == 0 {
            bytes[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        noise.send_to(&bytes[..len], b.endpoint.local_addr()).unwrap();
        tokio::task::yield_now().await;
    }
    let (mut tx, mut rx) = connection.open(&work()).await.unwrap();
    b.echo(1).await;
    tx.send(&"still here").await.unwrap();
    assert_eq!(rx.recv::<String>().await.unwrap().as_deref(), Some("still here"));
    assert_eq!(b.endpoint.pool().connections().len(), 1);
}

#[tokio::test]
async fn a_stranger_may_only_ask_to_join() {
    let (a, mut b) = (Node::start(1), Node::start(2));
    b.set_member(a.key, Some(None));
    let connection = a.connect(&b).await.unwrap();
    let refused = connection.call::<String>(&work()).await.unwrap_err();
    assert_eq!(refused, StreamError::Reset(StreamCode::NotAdmitted));
    let asking = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call::<String>(&join()).await }
    });
    let (peer, _, mut tx, _rx) = b.streams.recv().await.unwrap();
    assert_eq!((peer.node, peer.key), (None, a.key));
    assert!(b.endpoint.pool().existing(Plane::Control, a.id).is_none());
    // admitted now, without dialling again
    b.set_member(a.key, Some(Some(a.id)));
    tx.send(&"welcome").await.unwrap();
    tx.finish().unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), "welcome");
    b.endpoint.pool().review();
    assert_eq!(b.endpoint.pool().existing(Plane::Control, a.id).unwrap().node(), Some(a.id));
    let (mut tx, mut rx) = connection.open(&work()).await.unwrap();
    b.echo(1).await;
    tx.send(&"a member").await.unwrap();
    assert_eq!(rx.recv::<String>().await.unwrap().as_deref(), Some("a member"));
}

/// A stranger's datagrams are not heard, and its unfinished streams are bounded.
#[tokio::test]
async fn a_stranger_has_few_streams() {
    let (a, mut b) = (Node::start(1), Node::start(2));
    b.set_member(a.key, Some(None));
    let quiet = a.connect(&b).await.unwrap();
    assert!(quiet.send_datagram(bytes::Bytes::from_static(b"hear me")));
    let own = ca(1).issue(&SecretKey::from_seed(&[3; 32]).unwrap().peer_key(), Validity::CENTURY).unwrap();
    let raw = raw_client_with(3, Some(own), Some(Plane::Control));
    b.set_member(SecretKey::from_seed(&[3; 32]).unwrap().peer_key(), Some(None));
    let connection = raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await.unwrap();
    hello_by_hand(&connection).await;
    let mut held = Vec::new();
    for _ in 0..swarm_proto::limits::UNADMITTED_STREAMS {
        let (mut tx, rx) = connection.open_bi().await.unwrap();
        // the first byte of a header makes the stream known and keeps it waiting
        tx.write_all(&[1]).await.unwrap();
        held.push((tx, rx));
    }
    let (mut tx, mut rx) = connection.open_bi().await.unwrap();
    tx.write_all(&[1]).await.unwrap();
    let refused = rx.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(refused, quinn::ReadError::Reset(StreamCode::TooMany.into()));
    // those that ask to join count until they are answered
    let mut asking = Vec::new();
    for _ in 0..swarm_proto::limits::UNADMITTED_STREAMS {
        asking.push((quiet.open(&join()).await.unwrap(), b.streams.recv().await.unwrap()));
    }
    assert_eq!(quiet.call::<u8>(&join()).await, Err(StreamError::Reset(StreamCode::TooMany)));
    drop(asking);
    assert!(b.datagrams.try_recv().is_err());
    // admitted since, it is heard on the same connection
    b.set_member(a.key, Some(Some(a.id)));
    assert!(quiet.send_datagram(bytes::Bytes::from_static(b"hear me now")));
    let (peer, data) = b.datagrams.recv().await.unwrap();
    assert_eq!((peer.node, &data[..]), (Some(a.id), &b"hear me now"[..]));
}

#[tokio::test]
async fn frames_that_say_nothing_end_their_stream_alone() {
    let mut b = Node::start(2);
    let own = ca(1).issue(&SecretKey::from_seed(&[1; 32]).unwrap().peer_key(), Validity::CENTURY).unwrap();
    let raw = raw_client(Some(own), Some(Plane::Control));
    let connection = raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await.unwrap();
    hello_by_hand(&connection).await;
    for bytes in [&[2, 0, 0, 0, 0xff, 0xff][..], &u32::MAX.to_le_bytes(), &[0, 0, 0, 0]] {
        let (mut tx, mut rx) = connection.open_bi().await.unwrap();
        tx.write_all(bytes).await.unwrap();
        let refused = rx.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(refused, quinn::ReadError::Reset(StreamCode::BadFrame.into()), "{bytes:?}");
    }
    let (mut tx, _rx) = connection.open_bi().await.unwrap();
    tx.write_all(&swarm_proto::frame::encode_control(&work()).unwrap()).await.unwrap();
    assert_eq!(b.streams.recv().await.unwrap().1, work());
}

#[tokio::test]
async fn a_hello_that_says_nothing_is_refused() {
    let b = Node::start(2);
    let own = ca(1).issue(&SecretKey::from_seed(&[1; 32]).unwrap().peer_key(), Validity::CENTURY).unwrap();
    let raw = raw_client(Some(own), Some(Plane::Control));
    // too long by its header; empty; ended within a frame
    for bytes in [&u32::MAX.to_le_bytes()[..], &[0, 0, 0, 0], &[9, 0, 0, 0, 1]] {
        let connection = raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await.unwrap();
        let (mut tx, _rx) = connection.open_bi().await.unwrap();
        tx.write_all(bytes).await.unwrap();
        tx.finish().unwrap();
        let ended = connection.closed().await;
        assert!(matches!(ended, quinn::ConnectionError::ApplicationClosed(_)), "{ended}");
    }
    assert!(b.endpoint.pool().connections().is_empty());
}

/// Peers that never say Hello hold their places for a while. Time stands still, so that none of them is given up meanwhile.
#[tokio::test(start_paused = true)]
async fn handshakes_in_flight_are_bounded() {
    // a paused clock jumps ahead whenever no packet is ready yet; it does not while a blocking task runs
    let (frozen, thaw) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || thaw.recv());
    let b = Node::start(2);
    let own = ca(1).issue(&SecretKey::from_seed(&[1; 32]).unwrap().peer_key(), Validity::CENTURY).unwrap();
    let raw = raw_client(Some(own), Some(Plane::Control));
    let mut silent = Vec::new();
    while silent.len() < swarm_proto::limits::HANDSHAKES - 1 {
        silent.push(raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await.unwrap());
    }
    let (last, late) = (Node::start(3), Node::start(4));
    last.connect(&b).await.unwrap();
    silent.push(raw.connect(b.endpoint.local_addr(), SERVER_NAME).unwrap().await.unwrap());
    let error = late.connect(&b).await.unwrap_err();
    assert!(matches!(&error, DialError::Unreachable { .. }) && error.to_string().contains("too many"), "{error}");
    // a place is given back when whoever held it goes
    silent.pop().unwrap().close(0u32.into(), b"bye");
    b.endpoint.drain().await;
    Node::start(5).connect(&b).await.unwrap();
    drop(frozen);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let b = Node::start(2);
    let error = udp_socket(b.endpoint.local_addr()).unwrap_err();
    assert!(matches!(error, BindError::InUse(addr) if addr == b.endpoint.local_addr()), "{error}");
}

async fn hello_by_hand(connection: &quinn::Connection) {
    let (mut tx, mut rx) = connection.open_bi().await.unwrap();
    tx.write_all(&swarm_proto::frame::encode_control(&How::default().hello).unwrap()).await.unwrap();
    tx.finish().unwrap();
    let answer = rx.read_to_end(4096).await.unwrap();
    assert_eq!(answer[4], 0, "the Hello is answered by a Hello");
}

fn raw_client(certificate: Option<CertificateDer<'static>>, plane: Option<Plane>) -> quinn::Endpoint {
    raw_client_with(1, certificate, plane)
}

/// A QUIC client that checks nothing and shows what it is told to.
fn raw_client_with(key: u8, certificate: Option<CertificateDer<'static>>, plane: Option<Plane>) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca(1).root().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let dir = tempfile::tempdir().unwrap();
            SecretKey::from_seed(&[key; 32]).unwrap().save(&dir.path().join("k")).unwrap();
            let pem = std::fs::read(dir.path().join("k")).unwrap();
            let key = rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = plane.iter().map(|plane| plane.alpn(PROTOCOL, REALM)).collect();
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap())));
    endpoint
}
