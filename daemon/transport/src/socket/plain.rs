//! A UDP socket without extras, for systems that refuse what makes quinn's own fast.
//!
//! It sends and receives one datagram a call, knows nothing of congestion marks, and leaves fragmentation to the system. That
//! costs throughput, not correctness: QUIC needs no more than datagrams. Wine needs it, and Windows with odd network drivers.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::{io::ReadBuf, net::UdpSocket};

#[derive(Debug)]
pub(super) struct Plain(Arc<UdpSocket>);

impl Plain {
    /// # Errors
    /// The socket cannot be used with tokio's runtime, in which this is to be called.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(Arc::new(UdpSocket::from_std(socket)?)))
    }
}

impl AsyncUdpSocket for Plain {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self.0.clone(), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.0.try_send_to(transmit.contents, transmit.destination) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // as good as lost on the way: a peer that cannot be reached is found out by silence
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        loop {
            let mut read = ReadBuf::new(buffer);
            match ready!(self.0.poll_recv_from(cx, &mut read)) {
                Ok(addr) => {
                    let len = read.filled().len();
                    *meta = RecvMeta { addr, len, stride: len, ..RecvMeta::default() };
                    return Poll::Ready(Ok(1));
                }
                // Windows reports here that something sent earlier was not taken at the other end
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Waits until the socket takes a datagram.
struct Poller {
    socket: Arc<UdpSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket.fmt(f)
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { socket.writable().await }));
        let done = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(done)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn transmit<'a>(destination: SocketAddr, contents: &'a [u8]) -> Transmit<'a> {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    #[tokio::test]
    async fn datagrams_arrive_whole_and_say_from_where() {
        let make = || Arc::new(Plain::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        let (from, to) = (make(), make());
        let mut poller = from.clone().create_io_poller();
        for len in [1, 1200, 1452] {
            std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
            from.try_send(&transmit(to.local_addr().unwrap(), &vec![7; len])).unwrap();
            let mut buffer = vec![0; 2000];
            let mut meta = [RecvMeta::default()];
            let got = std::future::poll_fn(|cx| to.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await.unwrap();
            assert_eq!((got, meta[0].len, meta[0].stride, meta[0].addr), (1, len, len, from.local_addr().unwrap()));
            assert!(buffer[..len].iter().all(|byte| *byte == 7));
        }
        let mut buffer = vec![0; 2000];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let got = to.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut buffer)], &mut [RecvMeta::default()]);
        assert!(matches!(got, Poll::Pending));
    }
}
