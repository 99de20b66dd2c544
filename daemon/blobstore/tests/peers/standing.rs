//! What is asked of a host before it is there.

use std::{sync::Arc, time::Duration};

use swarm_blobstore::{Begun, Outliner, Partial};
use swarm_proto::{
    Digest,
    blob::{BlobAnswer, BlobPart, BlobRequest, Claim, SegmentHeader, SegmentRange},
    peer::Open,
};
use swarm_transport::FrameRx;

use crate::support::{Host, SEGMENT, bytes};

/// A host that has the second of three segments, and will get the others.
fn begun(host: &Host, data: &[u8]) -> Arc<Partial> {
    let mut outliner = Outliner::default();
    outliner.update(data);
    let Begun::Partial(partial) = host.store.begin(outliner.finish(), false).unwrap() else { panic!("it is new") };
    write(&partial, data, 1);
    partial
}

fn write(partial: &Partial, data: &[u8], index: usize) {
    partial.write(u32::try_from(index).unwrap(), &data[index * SEGMENT..][..SEGMENT]).unwrap();
}

/// Asks for segments in this order; what was asked for is being given when this returns.
async fn ask(by: &Host, of: &Host, digest: Digest, segments: &[u32]) -> FrameRx {
    let connection = (by.fetcher().reach)(of.node).await.unwrap();
    let ranges = segments.iter().map(|&first| SegmentRange { first, count: 1 }).collect();
    let request = BlobRequest { digest, part: BlobPart::Segments(ranges), takes_zstd: false, claim: Claim::local() };
    let (mut tx, mut rx) = connection.open(&Open::Blob(request)).await.unwrap();
    tx.finish().unwrap();
    let answer = rx.recv::<BlobAnswer>().await.unwrap().unwrap();
    assert!(matches!(answer, BlobAnswer::Here { whole: false, .. }), "{answer:?}");
    rx
}

/// The next segment; `None` at the end.
async fn next(rx: &mut FrameRx) -> Option<(u32, Vec<u8>)> {
    let mut head = [0; SegmentHeader::LEN];
    let comes = tokio::time::timeout(Duration::from_secs(60), rx.read_exact_or_end(&mut head));
    if !comes.await.expect("it comes or ends").unwrap() {
        return None;
    }
    let header = SegmentHeader::decode(head);
    let mut data = vec![0; header.wire as usize];
    rx.read_exact(&mut data, |_| ()).await.unwrap();
    Some((header.index, data))
}

#[tokio::test]
async fn what_was_asked_for_is_given_when_it_comes() {
    let (a, b) = (Host::start(1), Host::start(2));
    b.knows(&[&a]);
    let data = bytes(11, 3 * SEGMENT);
    let partial = begun(&a, &data);
    let mut rx = ask(&b, &a, partial.outline().digest(), &[0, 1, 2]).await;
    for index in [0, 2] {
        write(&partial, &data, index);
    }
    for index in [0, 1, 2] {
        let (which, segment) = next(&mut rx).await.unwrap();
        assert_eq!(which, index);
        assert!(segment == data[index as usize * SEGMENT..][..SEGMENT]);
    }
    assert!(next(&mut rx).await.is_none());
}

#[tokio::test]
async fn what_does_not_come_in_time_holds_up_nothing_for_ever() {
    let (a, b) = (Host::start(1), Host::start(2));
    b.knows(&[&a]);
    let data = bytes(12, 3 * SEGMENT);
    let partial = begun(&a, &data);
    let mut rx = ask(&b, &a, partial.outline().digest(), &[0, 1, 2]).await;
    let (which, segment) = next(&mut rx).await.unwrap();
    assert_eq!(which, 1);
    assert!(segment == data[SEGMENT..2 * SEGMENT]);
    assert!(next(&mut rx).await.is_none());
}
