//! One connection for many askers, backoff, and dials from both sides at once.

use std::time::Duration;

use swarm_proto::{Code, limits};
use swarm_transport::{CloseCode, Dial, DialError, Ended, Plane, StreamError};
use tokio::time::{Instant, sleep_until};

use crate::support::{How, Node, until, work};

#[tokio::test]
async fn many_askers_share_one_dial() {
    let (a, b) = (Node::start(1), Node::start(2));
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (pool, to) = (a.endpoint.pool(), b.dial());
            tokio::spawn(async move { pool.get(Plane::Control, &to).await.unwrap() })
        })
        .collect();
    for asked in asking {
        assert!(asked.await.unwrap().is_open());
    }
    assert_eq!(a.endpoint.pool().connections().len(), 1);
    assert_eq!(b.endpoint.pool().connections().len(), 1);
    // known by its address alone, and by its id alone, it is the same
    let by_addr = a.endpoint.pool().get(Plane::Control, &Dial::seed(b.endpoint.local_addr())).await.unwrap();
    let by_id = Dial { key: None, addr: ([127, 0, 0, 1], 1).into(), ..b.dial() };
    assert_eq!(a.endpoint.pool().get(Plane::Control, &by_id).await.unwrap().addr(), by_addr.addr());
    assert_eq!(a.endpoint.pool().connections().len(), 1);
}

#[tokio::test]
async fn a_dial_goes_on_when_its_asker_leaves() {
    let (a, b) = (Node::start(1), Node::start(2));
    let asking = a.connect(&b);
    drop(tokio::time::timeout(Duration::ZERO, asking).await);
    until("the dial ends by itself", || a.endpoint.pool().existing(Plane::Control, b.id).is_some()).await;
}

#[tokio::test]
async fn a_failed_dial_is_not_repeated_before_its_time() {
    let (a, b) = (Node::start(1), Node::start(2));
    let wrong = Dial { key: Some(a.key), ..b.dial() };
    let pool = a.endpoint.pool();
    let mut waits = Vec::new();
    for _ in 0..4 {
        assert!(matches!(pool.get(Plane::Control, &wrong).await, Err(DialError::WrongKey { .. })));
        let asked = Instant::now();
        let Err(DialError::BackingOff { next, why, .. }) = pool.get(Plane::Control, &wrong).await else { panic!("it backs off") };
        assert!(why.contains("answers key"), "{why}");
        assert!(asked.elapsed() < Duration::from_millis(20), "the error comes at once");
        waits.push(next - asked);
        sleep_until(next).await;
    }
    assert!(waits[3] > waits[0], "{waits:?}");
    // another target is not held up, and a success forgets the failures
    b.set_member(a.key, None);
    assert!(matches!(a.connect(&b).await, Err(DialError::Refused(_))));
    let Err(DialError::BackingOff { next, .. }) = a.connect(&b).await else { panic!("it backs off") };
    b.set_member(a.key, Some(Some(a.id)));
    sleep_until(next).await;
    a.connect(&b).await.unwrap().close(CloseCode::Stopping, "again");
    a.connect(&b).await.unwrap();
}

/// Nobody answers: the error comes after the handshake's time, the next ones at once. Time is simulated.
#[tokio::test(start_paused = true)]
async fn a_silent_host_is_unreachable() {
    let a = Node::start(1);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = Dial::seed(silent.local_addr().unwrap());
    let start = Instant::now();
    let error = a.endpoint.pool().get(Plane::Control, &to).await.unwrap_err();
    assert!(matches!(&error, DialError::Unreachable { ended: Ended::Silent, .. }), "{error}");
    assert!(start.elapsed() >= limits::HANDSHAKE_TIME && start.elapsed() < limits::HANDSHAKE_TIME + Duration::from_secs(1));
    assert!(matches!(a.endpoint.pool().get(Plane::Control, &to).await, Err(DialError::BackingOff { .. })));
}

#[tokio::test]
async fn both_dial_at_once_and_agree() {
    for round in 0..20 {
        let (a, b) = (Node::start(1), Node::start(2));
        let (from_a, from_b) = tokio::join!(a.connect(&b), b.connect(&a));
        let (from_a, from_b) = (from_a.unwrap(), from_b.unwrap());
        let chosen =
            || (a.endpoint.pool().existing(Plane::Control, b.id).unwrap(), b.endpoint.pool().existing(Plane::Control, a.id).unwrap());
        let count = || (a.endpoint.pool().connections().len(), b.endpoint.pool().connections().len());
        until("both see the same set", || count().0 == count().1).await;
        // a dial whose asker was answered by the other's may still be under way
        for _ in 0..30 {
            tokio::task::yield_now().await;
            until("both see the same set", || count().0 == count().1).await;
        }
        let (at_a, at_b) = chosen();
        assert_ne!(at_a.is_dialled_here(), at_b.is_dialled_here(), "round {round}: they are the two ends of one connection");
        if count().0 == 2 {
            assert_eq!(at_a.is_dialled_here(), a.key < b.key);
        }
        assert!(from_a.is_open() && from_b.is_open(), "both stay usable");
    }
}

#[tokio::test]
async fn a_node_that_is_closed_out_stays_out() {
    let (a, b) = (Node::start(1), Node::start(2));
    let connection = a.connect(&b).await.unwrap();
    let raft = a.endpoint.pool().get(Plane::Raft, &b.dial()).await.unwrap();
    b.set_member(a.key, None);
    b.endpoint.pool().close_node(a.id, "n1 is revoked");
    for connection in [&connection, &raft] {
        let ended = connection.closed().await;
        assert_eq!(ended, Ended::There(CloseCode::ClosedOut, "n1 is revoked".to_owned()));
        assert!(matches!(connection.call::<u8>(&work()).await, Err(StreamError::Lost(_))));
    }
    until("it is forgotten", || b.endpoint.pool().connections().is_empty()).await;
    let again = a.connect(&b).await.unwrap_err();
    assert!(matches!(&again, DialError::Refused(problem) if problem.code == Code::Denied && problem.why.contains("revoked")), "{again}");
    assert!(b.endpoint.pool().existing(Plane::Control, a.id).is_none());
}

#[tokio::test]
async fn a_review_closes_who_may_not_stay() {
    let (a, b, c) = (Node::start(1), Node::start(2), Node::start(3));
    let gone = a.connect(&b).await.unwrap();
    let stays = c.connect(&b).await.unwrap();
    b.set_member(a.key, None);
    b.endpoint.pool().review();
    until("the one who may not stay is closed out", || !gone.is_open()).await;
    assert!(matches!(gone.closed().await, Ended::There(CloseCode::ClosedOut, why) if why.contains("revoked")));
    assert!(stays.is_open());
}

#[tokio::test]
async fn connections_to_one_peer_are_bounded() {
    let b = Node::start(2);
    let mut lives = Vec::new();
    for _ in 0..limits::CONNECTIONS_TO_ONE + 2 {
        let a = Node::start(1);
        let connection = a.connect(&b).await.unwrap();
        lives.push((a, connection));
    }
    assert_eq!(b.endpoint.pool().connections().len(), limits::CONNECTIONS_TO_ONE);
    for (_, connection) in &lives[..2] {
        assert!(matches!(connection.closed().await, Ended::There(CloseCode::Replaced, _)));
    }
    assert!(lives[2..].iter().all(|(_, connection)| connection.is_open()));
}

#[tokio::test]
async fn strangers_are_bounded() {
    let b = Node::start(2);
    let mut strangers = Vec::new();
    for n in 0..=limits::UNADMITTED {
        let id = 10 + u8::try_from(n).unwrap();
        let a = Node::start_as(id, How::default());
        a.set_member(b.key, Some(None));
        b.set_member(a.key, Some(None));
        let to = Dial { node: None, ..b.dial() };
        let got = a.endpoint.pool().get(Plane::Control, &to).await;
        match (n < limits::UNADMITTED, got) {
            (true, Ok(connection)) => strangers.push((a, connection)),
            (false, Err(DialError::Refused(problem))) => assert_eq!(problem.code, Code::Busy),
            (_, got) => panic!("stranger {n}: {got:?}"),
        }
    }
}

/// Who was told that this node is nobody, on whichever side of the dial, hears who it is by a new connection; who knows, is left alone.
#[tokio::test]
async fn a_node_that_got_an_id_introduces_itself_again() {
    let (a, b, c) = (Node::start(1), Node::start(2), Node::start(3));
    let (dialled, taken) = (a.connect(&b).await.unwrap(), c.connect(&a).await.unwrap());
    assert_eq!(taken.peer().hello.node, None);
    a.hello.lock().unwrap().node = Some(a.id);
    a.endpoint.pool().introduce_again();
    let there = taken.closed().await;
    assert!(matches!(there, Ended::There(CloseCode::Replaced, _)), "{there:?}");
    assert_eq!(dialled.closed().await, Ended::Here);
    let again = c.connect(&a).await.unwrap();
    assert_eq!(again.peer().hello.node, Some(a.id));
    a.endpoint.pool().introduce_again();
    assert!(a.connect(&c).await.unwrap().is_open() && again.is_open());
}
