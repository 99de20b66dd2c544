//! Streams, frames, datagrams.

use std::{
    future::Future as _,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use swarm_proto::{
    frame::{self, FrameError},
    limits,
};
use swarm_transport::{Connection, FrameRx, FrameTx, Plane, StreamCode, StreamError, udp_socket};

use crate::support::{How, Node, until, work};

async fn pair() -> (Node, Node, Connection) {
    let (a, b) = (Node::start(1), Node::start(2));
    let connection = a.connect(&b).await.unwrap();
    (a, b, connection)
}

async fn stream(connection: &Connection, b: &mut Node) -> (FrameTx, FrameRx, FrameTx, FrameRx) {
    let (tx, rx) = connection.open(&work()).await.unwrap();
    let (_, _, there_tx, there_rx) = b.streams.recv().await.unwrap();
    (tx, rx, there_tx, there_rx)
}

#[tokio::test]
async fn both_sides_know_each_other_and_may_call() {
    let (mut a, mut b, connection) = pair().await;
    assert_eq!((connection.key(), connection.node()), (b.key, Some(b.id)));
    let back = b.endpoint.pool().existing(Plane::Control, a.id).unwrap();
    assert_eq!((back.key(), back.addr()), (a.key, a.endpoint.local_addr()));
    let ask = |connection: Connection| tokio::spawn(async move { connection.call::<String>(&work()).await });
    for (asked, node) in [(ask(connection), &mut b), (ask(back), &mut a)] {
        let (peer, open, mut tx, mut rx) = node.streams.recv().await.unwrap();
        assert_eq!(open, work());
        assert_eq!(rx.recv::<String>().await, Ok(None), "a call has nothing but its opening");
        tx.send(&format!("for {:?}", peer.node)).await.unwrap();
        tx.finish().unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), format!("for {:?}", peer.node));
    }
}

#[tokio::test]
async fn planes_have_connections_of_their_own() {
    let all = || How { planes: Plane::ALL.to_vec(), ..How::default() };
    let (a, b) = (Node::start_as(1, all()), Node::start_as(2, all()));
    let pool = a.endpoint.pool();
    for plane in Plane::ALL {
        assert_eq!(pool.get(plane, &b.dial()).await.unwrap().plane(), plane);
        assert!(b.endpoint.pool().existing(plane, a.id).is_some());
    }
    assert_eq!(pool.connections().len(), Plane::ALL.len());
    assert!(!pool.existing(Plane::Raft, b.id).unwrap().send_datagram(Bytes::from_static(b"x")), "datagrams are for control");
}

/// Loopback carries anything; the bulk endpoint finds out, and the other one does not ask.
#[tokio::test]
async fn bulk_datagrams_grow_to_what_the_path_carries() {
    for (plane, least, most) in [(Plane::Bulk, 8_900, 8_952), (Plane::Control, 1_400, 1_472)] {
        let how = || How { planes: vec![plane], ..How::default() };
        let (a, b) = (Node::start_as(1, how()), Node::start_as(2, how()));
        let connection = a.endpoint.pool().get(plane, &b.dial()).await.unwrap();
        until("large datagrams", || connection.mtu() >= least).await;
        assert!(connection.mtu() <= most, "{}", connection.mtu());
    }
}

#[tokio::test]
async fn the_frame_bound_is_exact_on_both_sides() {
    let (_a, mut b, connection) = pair().await;
    // postcard writes a three-byte length before these
    let body = |len: usize| Bytes::from(vec![7u8; len - 3]);
    for (len, is_fine) in [(limits::CONTROL_FRAME - 1, true), (limits::CONTROL_FRAME, true), (limits::CONTROL_FRAME + 1, false)] {
        let (mut tx, _rx, _there_tx, mut there) = stream(&connection, &mut b).await;
        let too_long = FrameError::TooLong { len, limit: limits::CONTROL_FRAME };
        assert_eq!(tx.feed(&body(len)).is_ok(), is_fine);
        assert_eq!(tx.send_raw(&frame::encode(&body(len), usize::MAX).unwrap()).await.is_ok(), is_fine);
        if is_fine {
            assert_eq!(there.recv::<Bytes>().await.unwrap().unwrap(), body(len));
            assert_eq!(there.recv::<Bytes>().await.unwrap().unwrap(), body(len), "what was fed went first, in the same write");
        } else {
            tx.set_limit(usize::MAX);
            let sending = tokio::spawn(async move { (tx.send(&body(len)).await, tx) });
            assert_eq!(there.recv::<Bytes>().await, Err(StreamError::Frame(too_long)));
            drop(there);
            let (sent, _tx) = sending.await.unwrap();
            assert!(matches!(sent, Ok(()) | Err(StreamError::Stopped(_))), "{sent:?}");
        }
    }
}

#[tokio::test]
async fn raw_frames_must_be_one_frame() {
    let (_a, mut b, connection) = pair().await;
    let (mut tx, _rx, _there_tx, mut there) = stream(&connection, &mut b).await;
    for wrong in [&[][..], &[1, 0, 0], &[1, 0, 0, 0], &[1, 0, 0, 0, 5, 6]] {
        assert!(matches!(tx.send_raw(wrong).await, Err(StreamError::Frame(FrameError::Malformed(_)))), "{wrong:?}");
    }
    tx.send_raw(&[1, 0, 0, 0, 5]).await.unwrap();
    assert_eq!(there.recv::<u8>().await, Ok(Some(5)));
}

#[tokio::test]
async fn a_batch_arrives_as_its_messages() {
    let (_a, mut b, connection) = pair().await;
    let (mut tx, _rx, _there_tx, mut there) = stream(&connection, &mut b).await;
    let words: Vec<String> = (0..5000).map(|n| format!("word {n}")).collect();
    let sending = words.clone();
    let sent = tokio::spawn(async move {
        tx.send_all(&sending).await.unwrap();
        tx.finish().unwrap();
        tx.delivered().await
    });
    let mut got = Vec::new();
    while let Some(word) = there.recv::<String>().await.unwrap() {
        got.push(word);
        while let Some(word) = there.recv_ready::<String>().unwrap() {
            got.push(word);
        }
    }
    assert_eq!(got, words);
    assert_eq!(there.recv::<String>().await, Ok(None), "it stays finished");
    sent.await.unwrap().unwrap();
}

/// A reader that stops waiting and a writer that is cut off go on where they were.
#[tokio::test]
async fn cancelled_halves_lose_nothing() {
    let (_a, mut b, connection) = pair().await;
    let (mut tx, _rx, _there_tx, mut there) = stream(&connection, &mut b).await;
    let big = |n: u8| Bytes::from(vec![n; 900_000]);
    let writing = tokio::spawn(async move {
        for n in 0..12u8 {
            tx.feed(&big(n)).unwrap();
            while tokio::time::timeout(Duration::from_micros(300), tx.flush()).await.is_err() {}
        }
        tx.finish().unwrap();
    });
    for n in 0..12u8 {
        let got = loop {
            if let Ok(got) = tokio::time::timeout(Duration::from_micros(300), there.recv::<Bytes>()).await {
                break got.unwrap().unwrap();
            }
        };
        assert!(got == big(n), "message {n}");
    }
    assert_eq!(there.recv::<Bytes>().await, Ok(None));
    writing.await.unwrap();
}

#[tokio::test]
async fn only_a_finished_stream_ends_cleanly() {
    let (_a, mut b, connection) = pair().await;
    let (tx, mut rx, there_tx, mut there) = stream(&connection, &mut b).await;
    drop(tx);
    assert_eq!(there.recv::<u8>().await, Err(StreamError::Reset(StreamCode::Dropped)));
    drop(there_tx);
    assert_eq!(rx.recv::<u8>().await, Err(StreamError::Reset(StreamCode::Dropped)));
    let (mut tx, rx, mut there_tx, there) = stream(&connection, &mut b).await;
    drop((rx, there));
    until("the writer hears that nobody reads", || !matches!(try_send(&mut there_tx), Ok(()))).await;
    tx.finish().unwrap();
    assert_eq!(tx.delivered().await, Err(StreamError::Stopped(StreamCode::Done)));
}

/// One try to send, without waiting.
fn try_send(tx: &mut FrameTx) -> Result<(), StreamError> {
    let mut sending = std::pin::pin!(tx.send(&1u8));
    let mut cx = Context::from_waker(Waker::noop());
    match sending.as_mut().poll(&mut cx) {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}

#[tokio::test]
async fn what_is_no_such_message_is_refused() {
    let (_a, mut b, connection) = pair().await;
    let (mut tx, _rx, _there_tx, mut there) = stream(&connection, &mut b).await;
    tx.send(&"a word").await.unwrap();
    assert!(matches!(there.recv::<(u64, u64, u64)>().await, Err(StreamError::Frame(FrameError::Malformed(_)))));
}

#[tokio::test]
async fn the_stream_limit_is_exact_and_frees_itself() {
    let (_a, mut b, connection) = pair().await;
    let mut held = Vec::new();
    // the Hello had the first
    for _ in 1..limits::STREAMS {
        held.push(stream(&connection, &mut b).await);
    }
    let waiting = tokio::time::timeout(Duration::from_millis(50), connection.open(&work())).await;
    assert!(waiting.is_err(), "one more than the limit waits");
    // QUIC tells of freed streams only once an eighth of them is free
    for (mut tx, _rx, mut there_tx, mut there_rx) in held.drain(..=limits::STREAMS as usize / 8) {
        tx.finish().unwrap();
        there_tx.finish().unwrap();
        assert_eq!(there_rx.recv::<u8>().await, Ok(None));
    }
    tokio::time::timeout(Duration::from_secs(10), stream(&connection, &mut b)).await.unwrap();
}

#[tokio::test]
async fn datagrams_are_bounded_and_dropped_not_queued_for_ever() {
    let (a, mut b, connection) = pair().await;
    for (len, is_taken) in [(limits::GOSSIP_PACKET - 1, true), (limits::GOSSIP_PACKET, true), (limits::GOSSIP_PACKET + 1, false)] {
        assert_eq!(connection.send_datagram(Bytes::from(vec![1; len])), is_taken, "{len}");
        if is_taken {
            let (peer, data) = b.datagrams.recv().await.unwrap();
            assert_eq!((peer.node, data.len()), (Some(a.id), len));
        }
    }
    for _ in 0..10_000 {
        assert!(connection.send_datagram(Bytes::from(vec![2; 1000])), "never waits, loses the oldest");
    }
    connection.close(swarm_transport::CloseCode::Stopping, "bye");
    assert!(!connection.send_datagram(Bytes::from_static(b"x")));
}

/// The receiver's runtime does not run while datagrams arrive; a drain then finds every one of them before anything else.
#[tokio::test]
async fn a_drain_hears_what_has_arrived() {
    let (mut a, (addr_tx, addr_rx), (done_tx, done_rx)) = (Node::start(1), std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let to = a.dial();
    let sender = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let b = Node::start(2);
            let connection = b.endpoint.pool().get(Plane::Control, &to).await.unwrap();
            addr_tx.send(()).unwrap();
            done_rx.recv().unwrap();
            let before = connection.bytes().0;
            for _ in 0..10 {
                connection.send_datagram(Bytes::from(vec![3; 800]));
            }
            until("all are on the wire", || connection.bytes().0 >= before + 8_000).await;
            addr_tx.send(()).unwrap();
            done_rx.recv().unwrap();
        });
    });
    until("connected", || addr_rx.try_recv().is_ok()).await;
    a.endpoint.drain().await;
    done_tx.send(()).unwrap();
    addr_rx.recv().unwrap();
    assert!(a.datagrams.is_empty());
    a.endpoint.drain().await;
    assert_eq!(a.datagrams.len(), 10);
    assert!(a.datagrams.try_recv().is_ok());
    done_tx.send(()).unwrap();
    sender.join().unwrap();
}

/// For the record, not for judgement: `cargo nextest run -p swarm-transport --release --run-ignored only --no-capture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn round_trip() {
    let (_a, mut b, connection) = pair().await;
    let serving = tokio::spawn(async move {
        while let Some((_, _, mut tx, mut rx)) = b.streams.recv().await {
            tokio::spawn(async move {
                let _ = tx.send(&1u64).await;
                if rx.recv::<u64>().await != Ok(None) {
                    while let Ok(Some(word)) = rx.recv::<u64>().await {
                        let _ = tx.send(&word).await;
                    }
                }
                let _ = tx.finish();
            });
        }
    });
    let mut calls = Vec::new();
    for _ in 0..5_000 {
        let start = Instant::now();
        connection.call::<u64>(&work()).await.unwrap();
        calls.push(start.elapsed());
    }
    let (mut tx, mut rx) = connection.open(&work()).await.unwrap();
    rx.recv::<u64>().await.unwrap();
    tx.send(&1u64).await.unwrap();
    let mut turns = Vec::new();
    for _ in 0..5_000 {
        let start = Instant::now();
        tx.send(&1u64).await.unwrap();
        rx.recv::<u64>().await.unwrap();
        turns.push(start.elapsed());
    }
    for (name, mut list) in [("call", calls), ("turn on an open stream", turns)] {
        list.sort();
        println!("{name}: p50 {:?} p99 {:?}", list[list.len() / 2], list[list.len() * 99 / 100]);
    }
    serving.abort();
}

/// A socket on which nothing is heard while that is wanted: what comes waits in it. Whoever sends gets no acknowledgement then, so
/// it sends no more than a connection's first packets, and all else that it was given waits for its turn.
#[derive(Debug)]
struct Deaf {
    socket: Arc<dyn AsyncUdpSocket>,
    is_deaf: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Deaf {
    fn set(&self, is_deaf: bool) {
        self.is_deaf.store(is_deaf, Ordering::SeqCst);
        if let Some(listener) = self.listener.lock().unwrap().take() {
            listener.wake();
        }
    }
}

impl AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        *self.listener.lock().unwrap() = Some(cx.waker().clone());
        if self.is_deaf.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Bytes of a large stream that had come when something came on another one that was sent after it.
async fn came_before(order: fn(&FrameTx), size: usize) -> usize {
    let how = || How { planes: vec![Plane::Bulk], ..How::default() };
    let socket = udp_socket(how().addr).unwrap();
    let socket = Arc::new(Deaf { socket, is_deaf: AtomicBool::new(false), listener: Mutex::new(None) });
    let (a, mut b) = (Node::start_as(1, how()), Node::start_on(2, how(), socket.clone()));
    let connection = a.endpoint.pool().get(Plane::Bulk, &b.dial()).await.unwrap();
    let (_tx, mut rx, mut large, _there_rx) = stream(&connection, &mut b).await;
    let (_tx2, mut second, mut small, _there_rx2) = stream(&connection, &mut b).await;
    socket.set(true);
    large.queue();
    order(&small);
    large.send_bytes(Bytes::from(vec![7; size])).await.unwrap();
    small.send(&1u8).await.unwrap();
    // a part of the large one has gone
    rx.read_exact(&mut [0], |_| {}).await.unwrap();
    socket.set(false);
    let (came, mut room) = (AtomicUsize::new(1), vec![0; size - 1]);
    let read = rx.read_exact(&mut room, |count| {
        came.fetch_add(count, Ordering::SeqCst);
    });
    let overtakes = async {
        second.recv::<u8>().await.unwrap().unwrap();
        came.load(Ordering::SeqCst)
    };
    let (read, at) = tokio::join!(read, overtakes);
    read.unwrap();
    at
}

#[tokio::test]
async fn what_is_in_a_hurry_overtakes_what_is_large_and_was_begun() {
    const SIZE: usize = 12 << 20;
    let at = came_before(FrameTx::hurry, SIZE).await;
    assert!(at < SIZE / 2, "{at} of {SIZE} bytes came before it");
}

#[tokio::test]
async fn one_thing_is_whole_before_the_next_one() {
    const SIZE: usize = 12 << 20;
    let at = came_before(FrameTx::queue, SIZE).await;
    assert!(at > SIZE * 3 / 4, "only {at} of {SIZE} bytes came before it");
}
