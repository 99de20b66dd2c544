//! Larger batches than quinn hands over: it gives ten datagrams at a time, the kernel takes four times as many in one call.
//!
//! ```text
//!   try_send(10 datagrams) --copy--> batch --full, another peer, or nobody adds any more--> one sendmsg (UDP_SEGMENT, Linux 4.18)
//!                                      '-- what is more than one call takes waits for the next
//! ```
//! What is sent waits for as long as the runtime's other tasks go on adding to it, which is microseconds; so this is for the bulk
//! endpoint, and not for probes. A copy of 60 KB costs less than the system calls that it saves: with stock batches half of the sender's
//! time is theirs.

use std::{
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::sync::Notify;

use crate::settings::BULK_MTU;

/// Bytes of one batch; what the kernel takes as one datagram before it is cut, less its headers.
const BYTES: usize = 65_000;
/// Datagrams of one batch. Linux takes 64, newer ones more.
const DATAGRAMS: usize = 60;
/// What the kernel hands over at once, and so what a buffer must hold.
const ARRIVES: usize = 64 << 10;

/// A socket whose sends are gathered.
#[derive(Debug)]
pub(crate) struct Batched {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn AsyncUdpSocket>,
    batch: Mutex<Batch>,
    /// Something waits to be sent.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Batch {
    /// At most what one call takes, and one transmit.
    contents: Vec<u8>,
    /// Bytes of them that are sent.
    sent: usize,
    to: Option<To>,
    /// A datagram that is shorter than the others must be the last one.
    is_closed: bool,
    /// The socket took no more; it is to be asked before anything is added.
    is_stuck: bool,
    /// Grows with each addition.
    additions: u64,
    /// The socket was given up.
    is_over: bool,
}

/// What all datagrams of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct To {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
    segment: usize,
}

impl To {
    fn of(transmit: &Transmit<'_>) -> Self {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        Self { destination: transmit.destination, ecn: transmit.ecn, src_ip: transmit.src_ip, segment }
    }

    /// Whether datagrams of `other` may follow: of the same size, or one that is shorter.
    fn takes(&self, other: &Self) -> bool {
        Self { segment: self.segment, ..*other } == *self && other.segment <= self.segment
    }
}

impl Batch {
    fn takes(&self, transmit: &Transmit<'_>) -> bool {
        let Some(to) = &self.to else { return true };
        let next = To::of(transmit);
        let is_one = transmit.contents.len() <= next.segment;
        // one that is larger than the path takes, as when that is probed, must not take another one with it
        let is_probe = self.contents.len() <= to.segment && next.segment < to.segment;
        !self.is_closed && !is_probe && to.takes(&next) && (next.segment == to.segment || is_one)
    }

    fn add(&mut self, transmit: &Transmit<'_>) {
        let to = *self.to.get_or_insert_with(|| To::of(transmit));
        self.contents.extend_from_slice(transmit.contents);
        self.is_closed = !self.contents.len().is_multiple_of(to.segment.max(1));
        self.additions += 1;
    }

    /// Hands over what fills calls of `most` datagrams, and `all`: what is left too. What fails otherwise than for want of room is
    /// lost, as datagrams may be.
    fn send(&mut self, socket: &dyn AsyncUdpSocket, most: usize, all: bool) -> io::Result<()> {
        let Some(to) = self.to else { return Ok(()) };
        let call = (BYTES / to.segment.max(1)).clamp(1, most) * to.segment;
        let mut failed = Ok(());
        while self.sent < self.contents.len() && (all || self.contents.len() - self.sent >= call) {
            let contents = &self.contents[self.sent..self.contents.len().min(self.sent + call)];
            let segment_size = (contents.len() > to.segment).then_some(to.segment);
            let sent = socket.try_send(&Transmit { destination: to.destination, ecn: to.ecn, contents, segment_size, src_ip: to.src_ip });
            self.is_stuck = sent.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
            if self.is_stuck {
                return sent;
            }
            self.sent += contents.len();
            failed = failed.and(sent);
        }
        if self.sent == self.contents.len() {
            (self.to, self.is_closed) = (None, false);
        }
        self.contents.drain(..self.sent);
        self.sent = 0;
        failed
    }
}

impl Shared {
    /// Datagrams of one call.
    fn most(&self) -> usize {
        self.inner.max_transmit_segments().min(DATAGRAMS)
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_flush(&self, poller: &mut Pin<Box<dyn UdpPoller>>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.batch().send(&*self.inner, self.most(), true) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::debug!(%error, "datagrams were not sent");
                    return Poll::Ready(());
                }
                Ok(()) => return Poll::Ready(()),
            }
            if let Err(error) = ready!(poller.as_mut().poll_writable(cx)) {
                tracing::debug!(%error, "the socket cannot be waited for");
                return Poll::Ready(());
            }
        }
    }
}

impl Batched {
    /// Gathers what is sent through `inner`, where that takes batches at all. Needs a tokio runtime.
    pub(crate) fn over(inner: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        let segments = inner.max_transmit_segments();
        if segments <= 1 {
            tracing::info!("payloads go to the system one datagram a call: it has no UDP segmentation offload (Linux has it since 4.18)");
            return inner;
        }
        tracing::info!(segments, "payloads go to the system many datagrams a call (UDP segmentation offload)");
        let shared = Arc::new(Shared { inner, batch: Mutex::default(), filled: Notify::new() });
        tokio::spawn(flush(shared.clone()));
        Arc::new(Self { shared })
    }
}

impl Drop for Batched {
    fn drop(&mut self) {
        self.shared.batch().is_over = true;
        self.shared.filled.notify_one();
    }
}

/// Sends what is gathered once nobody adds to it any more. Ends with the socket.
async fn flush(shared: Arc<Shared>) {
    let mut poller = shared.inner.clone().create_io_poller();
    while !shared.batch().is_over {
        shared.filled.notified().await;
        let mut seen = 0;
        loop {
            let additions = shared.batch().additions;
            if additions == seen {
                break;
            }
            seen = additions;
            tokio::task::yield_now().await;
        }
        poll_fn(|cx| shared.poll_flush(&mut poller, cx)).await;
    }
}

impl AsyncUdpSocket for Batched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let inner = self.shared.inner.clone().create_io_poller();
        Box::pin(Poller { shared: self.shared.clone(), inner })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (mut batch, most) = (self.shared.batch(), self.shared.most());
        if batch.is_stuck || !batch.takes(transmit) {
            batch.send(&*self.shared.inner, most, true)?;
        }
        batch.add(transmit);
        // it is taken, whatever becomes of it
        let _ = batch.send(&*self.shared.inner, most, false);
        drop(batch);
        self.shared.filled.notify_one();
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        self.shared.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.shared.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.shared.inner.max_receive_segments().min(ARRIVES.div_ceil(BULK_MTU.into()))
    }

    fn may_fragment(&self) -> bool {
        self.shared.inner.may_fragment()
    }
}

#[derive(Debug)]
struct Poller {
    shared: Arc<Shared>,
    inner: Pin<Box<dyn UdpPoller>>,
}

impl UdpPoller for Poller {
    /// A batch takes more as long as the socket took the last one.
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.batch().is_stuck { self.inner.as_mut().poll_writable(cx) } else { Poll::Ready(Ok(())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keeps each datagram that was sent, and takes nothing while it is full.
    #[derive(Debug, Default)]
    struct Fake {
        sent: Mutex<Vec<(SocketAddr, Vec<u8>)>>,
        calls: Mutex<usize>,
        is_full: Mutex<bool>,
    }

    #[derive(Debug)]
    struct Always;

    impl UdpPoller for Always {
        fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            cx.waker().wake_by_ref();
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncUdpSocket for Fake {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Always)
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            if std::mem::take(&mut *self.is_full.lock().unwrap()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            *self.calls.lock().unwrap() += 1;
            let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
            assert!(transmit.contents.len() <= BYTES && transmit.contents.len().div_ceil(segment) <= DATAGRAMS);
            let datagrams = transmit.contents.chunks(segment).map(|datagram| (transmit.destination, datagram.to_vec()));
            self.sent.lock().unwrap().extend(datagrams);
            Ok(())
        }

        fn poll_recv(&self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>], _: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }

        fn max_transmit_segments(&self) -> usize {
            64
        }
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    fn transmit(to: u16, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        Transmit { destination: ([127, 0, 0, 1], to).into(), ecn: None, contents, segment_size, src_ip: None }
    }

    #[test]
    fn forty_go_in_one_call_and_a_lone_one_does_not_wait() {
        run(async {
            let fake = Arc::new(Fake::default());
            let socket = Batched::over(fake.clone());
            for _ in 0..4 {
                socket.try_send(&transmit(1, &[7; 10_000], Some(1_000))).unwrap();
            }
            while fake.sent.lock().unwrap().len() < 40 {
                tokio::task::yield_now().await;
            }
            assert_eq!(*fake.calls.lock().unwrap(), 1);
            socket.try_send(&transmit(1, &[8; 30], None)).unwrap();
            while fake.sent.lock().unwrap().len() < 41 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn ten_of_the_largest_datagrams_are_more_than_one_call_and_fill_two_with_those_that_follow() {
        run(async {
            let fake = Arc::new(Fake::default());
            let socket = Batched::over(fake.clone());
            let large = vec![7; 10 * usize::from(BULK_MTU)];
            for _ in 0..7 {
                socket.try_send(&transmit(1, &large, Some(BULK_MTU.into()))).unwrap();
            }
            while fake.sent.lock().unwrap().len() < 70 {
                tokio::task::yield_now().await;
            }
            assert_eq!(*fake.calls.lock().unwrap(), 10);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is sent, to whom, in which sizes, and however often the socket takes nothing: all datagrams go out, once, in order.
        #[test]
        fn nothing_is_lost_doubled_or_cut(
            sends in prop::collection::vec((1u16..3, prop_oneof![Just(100usize), Just(1_452), 1usize..1_500], 1usize..11, 0usize..1_452, any::<bool>(), any::<bool>()), 1..60)
        ) {
            let (sent, wanted) = run(async {
                let fake = Arc::new(Fake::default());
                let socket = Batched::over(fake.clone());
                let mut wanted = Vec::new();
                for (n, (to, segment, count, last, is_full, yields)) in sends.into_iter().enumerate() {
                    *fake.is_full.lock().unwrap() = is_full;
                    let len = segment * (count - 1) + (last % segment) + 1;
                    let contents: Vec<u8> = (0..len).map(|at| (at * 7 + n) as u8).collect();
                    let segment_size = (len > segment).then_some(segment);
                    let send = transmit(to, &contents, segment_size);
                    while socket.try_send(&send).is_err() {
                        tokio::task::yield_now().await;
                    }
                    wanted.extend(contents.chunks(segment).map(|datagram| (send.destination, datagram.to_vec())));
                    if yields {
                        tokio::task::yield_now().await;
                    }
                }
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                }
                let sent = fake.sent.lock().unwrap().clone();
                (sent, wanted)
            });
            prop_assert!(sent == wanted, "{} of {} datagrams", sent.len(), wanted.len());
        }
    }
}
