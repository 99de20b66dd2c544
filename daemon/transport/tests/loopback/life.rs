//! Ends of endpoints, wanted and not.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    time::Instant,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use swarm_proto::limits;
use swarm_transport::{CloseCode, Dial, DialError, Ended, EndpointEnd, Plane, udp_socket};
use tokio::sync::oneshot;

use crate::support::{How, Node, until, work};

#[tokio::test]
async fn a_closed_endpoint_says_goodbye() {
    let (a, b) = (Node::start(1), Node::start(2));
    let connection = a.connect(&b).await.unwrap();
    b.endpoint.close().await;
    assert_eq!(b.endpoint.closed().await, EndpointEnd::Closed);
    assert!(matches!(connection.closed().await, Ended::There(CloseCode::Stopping, why) if why.contains("stopping")));
    assert_eq!(b.connect(&a).await.unwrap_err(), DialError::Closed);
    // its port is free again
    drop(b);
    udp_socket(([127, 0, 0, 1], 0).into()).unwrap();
}

/// A socket that breaks when told to.
#[derive(Debug)]
struct Breaking(Arc<dyn AsyncUdpSocket>, Arc<AtomicBool>);

impl AsyncUdpSocket for Breaking {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        if self.1.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::Error::other("the network card is on fire")));
        }
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_seen() {
    let is_broken = Arc::new(AtomicBool::new(false));
    let socket = Arc::new(Breaking(udp_socket(([127, 0, 0, 1], 0).into()).unwrap(), is_broken.clone()));
    let (a, b) = (Node::start(1), Node::start_on(2, How::default(), socket));
    a.connect(&b).await.unwrap();
    is_broken.store(true, Ordering::SeqCst);
    // anything that arrives makes it look at its socket
    let poke = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    poke.send_to(b"x", b.endpoint.local_addr()).unwrap();
    assert_eq!(b.endpoint.closed().await, EndpointEnd::Failed);
    assert_eq!(b.connect(&a).await.unwrap_err(), DialError::Closed);
}

/// Killed without a word and started again at the same place: the peer learns of it at its first packet, not at the idle time.
#[tokio::test]
async fn a_restart_is_noticed_at_once() {
    let a = Node::start(1);
    let (to, kill) = life(([127, 0, 0, 1], 0).into());
    let old = a.endpoint.pool().get(Plane::Control, &to).await.unwrap();
    kill();
    let (to, kill) = life(to.addr);
    let noticed = Instant::now();
    let _ = old.open(&work()).await;
    assert_eq!(old.closed().await, Ended::Restarted);
    assert!(noticed.elapsed() < limits::KEEP_ALIVE, "{:?}", noticed.elapsed());
    assert!(a.endpoint.pool().get(Plane::Control, &to).await.unwrap().is_open());
    kill();
}

/// Node 2 on a thread of its own: how to dial it, and how to end its runtime with everything in it, nothing closed.
fn life(addr: SocketAddr) -> (Dial, impl FnOnce()) {
    let (dial_tx, dial_rx) = mpsc::channel();
    let (kill_tx, kill_rx) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let node = Node::start_as(2, How { addr, ..How::default() });
            dial_tx.send(node.dial()).unwrap();
            kill_rx.await.unwrap();
        });
    });
    let kill = move || {
        kill_tx.send(()).unwrap();
        thread.join().unwrap();
    };
    (dial_rx.recv().unwrap(), kill)
}

#[tokio::test]
async fn an_endpoint_goes_on_at_another_address() {
    let (a, b) = (Node::start(1), Node::start(2));
    let before = a.connect(&b).await.unwrap();
    b.endpoint.rebind(udp_socket(([127, 0, 0, 3], 0).into()).unwrap()).unwrap();
    let there = b.endpoint.local_addr();
    assert_eq!(there.ip(), IpAddr::from([127, 0, 0, 3]));
    b.hello.lock().unwrap().addrs.control = there;
    assert!(b.endpoint.pool().existing(Plane::Control, a.id).is_none(), "what came to the old address leads nowhere");
    assert!(before.is_open(), "its peer cannot know yet");
    // the first that the peer hears from the new address ends what it had with the old one
    b.connect(&a).await.unwrap();
    until("the peer notices", || !before.is_open()).await;
    let now = a.endpoint.pool().existing(Plane::Control, b.id).unwrap();
    assert_eq!((now.addr(), now.addrs().control), (there, there));
    // the same address again is no move
    assert_eq!(a.endpoint.pool().connections().len(), 1);
    assert!(a.connect(&b).await.unwrap().is_open());
}
