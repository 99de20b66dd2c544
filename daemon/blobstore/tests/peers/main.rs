//! Blobs between hosts, over real QUIC on loopback.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod packed;
mod sealed;
mod standing;
mod support;

use std::{io::Write as _, time::Duration};

use support::{Gives, Host, SEGMENT, bytes};
use swarm_blobstore::{Begun, Checked, FetchError, Outliner, Progress, SourceAt};
use swarm_proto::{Digest, NodeId};
use tokio::sync::watch;

#[tokio::test]
async fn blobs_of_any_size_come_whole() {
    let (a, b) = (Host::start(1), Host::start(2));
    b.knows(&[&a]);
    let mut all = 0;
    for len in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 40 * SEGMENT + 3] {
        let data = bytes(1, len);
        let (digest, before) = (a.put(&data), a.asked());
        b.fetch(digest, &[&a]).await.unwrap();
        assert!(b.has(digest, &data), "{len}");
        assert_eq!(a.asked() == before + 1, len <= SEGMENT, "what is small comes with the first answer: {len}");
        b.fetch(digest, &[]).await.expect("what is here needs nobody");
        all += len as u64;
        let (from, to) = (a.store.carried(), b.store.carried());
        assert_eq!([from.given(), from.taken(), to.given(), to.taken()], [all, 0, 0, all], "{len}");
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_said_with_the_reason() {
    let (a, b, c) = (Host::start(1), Host::start(2), Host::start(3));
    b.knows(&[&a, &c]);
    let error = b.fetch(Digest([5; 32]), &[&a, &c]).await.unwrap_err();
    assert!(matches!(&error, FetchError::NoSource(failures) if failures.len() == 2), "{error}");
    assert!(error.to_string().contains("nothing of 0505"), "{error}");
    let digest = a.put(&bytes(1, 10));
    let sources = [SourceAt { node: a.node, is_spare: false }];
    let progress = watch::Sender::new(Progress::default());
    let error = b.fetcher().fetch(digest, Some(11), &sources, &progress).await.unwrap_err();
    assert!(matches!(error, FetchError::Size { got: 10, promised: 11 }), "{error}");
    b.store.set_quota(5);
    let error = b.fetch(digest, &[&a]).await.unwrap_err();
    assert!(error.to_string().contains("10 bytes more are needed and 5 of the quota of 5 are free"), "{error}");
}

#[tokio::test]
async fn a_liar_is_named_and_costs_one_segment() {
    let (honest, liar, to) = (Host::start(1), Host::start(2), Host::start(3));
    to.knows(&[&honest, &liar]);
    let data = bytes(2, 60 * SEGMENT);
    let digest = honest.put(&data);
    liar.put(&data);
    liar.gives(Gives::Changed);
    let told = to.fetch(digest, &[&liar, &honest]).await.unwrap();
    assert!(to.has(digest, &data));
    let view = told.sources.iter().find(|view| view.node == liar.node).unwrap();
    assert!(view.is_liar && view.bytes <= 8 * SEGMENT as u64, "{told:?}");
    // alone it gives nothing
    to.store.remove(digest).unwrap();
    let error = to.fetch(digest, &[&liar]).await.unwrap_err();
    assert!(error.to_string().contains("n2: what it gives is not the blob"), "{error}");
    assert!(to.store.size_of(digest).is_none());
    // a disk that rotted is no better, and is found by its owner too
    let path = honest.whole_path(digest);
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(b"rot").unwrap();
    let error = to.fetch(digest, &[&honest]).await.unwrap_err();
    assert!(error.to_string().contains("n1: what it gives is not the blob"), "{error}");
    // which was told so, and the liar was too, whose disk is sound
    let suspected = tokio::time::timeout(Duration::from_secs(10), honest.store.suspected());
    assert_eq!(suspected.await.unwrap(), digest);
    assert!(tokio::time::timeout(Duration::ZERO, liar.store.suspected()).await.is_err());
    assert_eq!(honest.store.check(digest).unwrap(), Checked::Partial(vec![0]));
    // and healed by somebody else, who gives that segment alone
    let healer = Host::start(4);
    healer.put(&data);
    honest.knows(&[&healer]);
    honest.fetch(digest, &[&healer]).await.unwrap();
    assert!(honest.has(digest, &data));
    assert!(healer.sent() < 4 * SEGMENT as u64, "{}", healer.sent());
}

#[tokio::test]
async fn who_lies_with_the_outline_is_named_too() {
    let (honest, liar, to) = (Host::start(1), Host::start(2), Host::start(3));
    to.knows(&[&honest, &liar]);
    let data = bytes(5, SEGMENT / 2);
    let digest = [&liar, &honest].map(|host| host.put(&data))[0];
    liar.gives(Gives::Forged);
    let told = to.fetch(digest, &[&liar, &honest]).await.unwrap();
    assert!(to.has(digest, &data));
    let named: Vec<_> = told.sources.iter().filter(|view| view.is_liar).map(|view| view.node).collect();
    assert_eq!(named, [liar.node], "{told:?}");
}

#[tokio::test]
async fn what_falls_silent_or_breaks_off_is_made_up_for_by_others() {
    let (silent, broken, sound, to) = (Host::start(1), Host::start(2), Host::start(3), Host::start(4));
    to.knows(&[&silent, &broken, &sound]);
    let data = bytes(3, 64 * SEGMENT);
    let digest = [&silent, &broken, &sound].map(|host| host.put(&data))[0];
    silent.gives(Gives::Silent(3));
    broken.gives(Gives::Broken);
    let told = to.fetch(digest, &[&silent, &broken, &sound]).await.unwrap();
    assert!(to.has(digest, &data), "{told:?}");
    // somebody who is not there at all
    to.store.remove(digest).unwrap();
    let gone = Host::start(9);
    to.fetch(digest, &[&gone, &sound]).await.unwrap();
    assert!(to.has(digest, &data));
}

/// Nothing of what they say is believed, and none of them holds the others up.
#[tokio::test]
async fn whoever_lies_in_another_way_costs_no_segment_and_little_time() {
    let data = bytes(3, 24 * SEGMENT);
    for gives in [Gives::Mute, Gives::OtherSize, Gives::Unasked, Gives::Boasts] {
        let (liar, sound, to) = (Host::start(1), Host::start(2), Host::start(3));
        to.knows(&[&liar, &sound]);
        let digest = [&liar, &sound].map(|host| host.put(&data))[0];
        liar.gives(gives);
        let began = std::time::Instant::now();
        let told = to.fetch(digest, &[&liar, &sound]).await.unwrap();
        assert!(to.has(digest, &data), "{gives:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "{gives:?} held it up for {:?}", began.elapsed());
        let of_liar = told.sources.iter().find(|view| view.node == liar.node).map_or(0, |view| view.bytes);
        assert_eq!(of_liar, 0, "{gives:?}: {told:?}");
    }
}

/// A blob that came and cannot be kept takes no room from others, and is not fetched again when it can.
#[tokio::test]
async fn what_cannot_be_kept_sets_no_room_aside() {
    let (a, b) = (Host::start(1), Host::start(2));
    b.knows(&[&a]);
    let data = bytes(8, 5 * SEGMENT + 1);
    let digest = a.put(&data);
    let drafts = b.dir.path().join("draft");
    std::fs::remove_dir(&drafts).unwrap();
    let error = b.fetch(digest, &[&a]).await.unwrap_err();
    assert!(matches!(error, FetchError::Store(_)), "{error}");
    std::fs::create_dir(&drafts).unwrap();
    let before = a.sent();
    b.fetch(digest, &[&a]).await.unwrap();
    assert!(b.has(digest, &data));
    assert!(a.sent() - before < 2 * SEGMENT as u64, "{} bytes came again", a.sent() - before);
    b.store.remove(digest).unwrap();
    std::fs::remove_dir(&drafts).unwrap();
    b.fetch(digest, &[&a]).await.unwrap_err();
    b.store.collect(0);
    assert_eq!(b.store.room().0, 0, "nobody fetches it any more");
}

/// The second receiver's source is the first one, which has nothing yet.
#[tokio::test]
async fn a_chain_passes_on_what_it_does_not_have_whole() {
    let (origin, first, second) = (Host::start(1), Host::start(2), Host::start(3));
    first.knows(&[&origin]);
    second.knows(&[&first, &origin]);
    let data = bytes(4, 80 * SEGMENT + 1);
    let digest = origin.put(&data);
    let down = async {
        // as soon as the first one has begun
        while first.store.reader(digest).unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let sources = [SourceAt { node: first.node, is_spare: false }, SourceAt { node: origin.node, is_spare: true }];
        let progress = watch::Sender::new(Progress::default());
        second.fetcher().fetch(digest, Some(data.len() as u64), &sources, &progress).await
    };
    let from = [&origin];
    let (one, two) = tokio::join!(first.fetch(digest, &from), down);
    one.unwrap();
    two.unwrap();
    assert!(first.has(digest, &data) && second.has(digest, &data));
    let sent = origin.sent() as f64 / data.len() as f64;
    assert!(sent < 1.15, "the origin sent {sent:.2} times the blob");
}

/// Nobody else is asked meanwhile, but one who says so for ever is not waited for alone.
#[tokio::test]
async fn one_that_is_about_to_get_it_is_waited_for() {
    let data = bytes(4, 3 * SEGMENT);
    let (soon, spare, to) = (Host::start(1), Host::start(2), Host::start(3));
    to.knows(&[&soon, &spare]);
    let digest = [&soon, &spare].map(|host| host.put(&data))[0];
    let sources = [SourceAt { node: soon.node, is_spare: false }, SourceAt { node: spare.node, is_spare: true }];
    for (times, is_in_time) in [(5, true), (u32::MAX, false)] {
        soon.gives(Gives::Soon(times));
        let progress = watch::Sender::new(Progress::default());
        to.fetcher().fetch(digest, None, &sources, &progress).await.unwrap();
        assert!(to.has(digest, &data));
        assert_eq!(spare.store.carried().given() == 0, is_in_time, "{times}: {:?}", *progress.borrow());
        to.store.remove(digest).unwrap();
    }
}

#[tokio::test]
async fn a_fetch_that_was_dropped_goes_on_where_it_was() {
    let (a, b) = (Host::start(1), Host::start(2));
    b.knows(&[&a]);
    let data = bytes(5, 60 * SEGMENT);
    let digest = a.put(&data);
    let progress = watch::Sender::new(Progress::default());
    let (fetcher, sources) = (b.fetcher(), [SourceAt { node: a.node, is_spare: false }]);
    {
        let fetching = fetcher.fetch(digest, None, &sources, &progress);
        let mut seen = progress.subscribe();
        let half = seen.wait_for(|progress| progress.have >= 20 * SEGMENT as u64);
        tokio::select! { _ = fetching => panic!("it had no time to end"), half = half => drop(half.unwrap()) }
    }
    // what was under way when it was dropped may still be sent, and nobody takes it
    let before = b.store.carried().taken();
    b.fetch(digest, &[&a]).await.unwrap();
    assert!(b.has(digest, &data));
    let again = (b.store.carried().taken() - before) as f64 / SEGMENT as f64;
    assert!(again < 45.0, "20 of 60 were there before, and {again:.1} came after that");
}

#[tokio::test]
async fn one_that_is_removed_while_it_is_given_is_had_from_another() {
    let (a, b, other) = (Host::start(1), Host::start(2), Host::start(3));
    b.knows(&[&a, &other]);
    let data = bytes(8, 60 * SEGMENT);
    let digest = a.put(&data);
    let (fetcher, sources) = (b.fetcher(), [SourceAt { node: a.node, is_spare: false }]);
    let progress = watch::Sender::new(Progress::default());
    let mut seen = progress.subscribe();
    let removed = async {
        seen.wait_for(|progress| progress.have >= 10 * SEGMENT as u64).await.unwrap();
        a.store.remove(digest).unwrap();
    };
    let (end, ()) = tokio::join!(fetcher.fetch(digest, None, &sources, &progress), removed);
    let error = end.unwrap_err();
    assert!(error.to_string().contains("n1: "), "{error}");
    let had = progress.borrow().have;
    assert!(had >= 10 * SEGMENT as u64 && !b.has(digest, &data), "{had}");
    // what came stays, and somebody else gives the rest
    other.put(&data);
    b.fetch(digest, &[&a, &other]).await.unwrap();
    assert!(b.has(digest, &data));
    let given = other.store.carried().given();
    // two sources may be asked for the same at the end
    assert!(given <= data.len() as u64 - had + 8 * SEGMENT as u64, "{given} were given, {had} were there");
}

#[tokio::test]
async fn what_is_asked_beyond_bounds_is_refused() {
    use swarm_proto::{
        blob::{BlobAnswer, BlobPart, BlobRequest, Claim, SegmentRange},
        limits,
        peer::Open,
    };
    let (a, b) = (Host::start(1), Host::start(2));
    b.knows(&[&a]);
    let digest = a.put(&bytes(6, 2 * SEGMENT));
    let connection = (b.fetcher().reach)(a.node).await.unwrap();
    for (count, is_fine) in [(limits::BLOB_RANGES, true), (limits::BLOB_RANGES + 1, false)] {
        let ranges = vec![SegmentRange { first: 1, count: u32::MAX }; count];
        let (_tx, mut rx) = connection
            .open(&Open::Blob(BlobRequest { digest, part: BlobPart::Segments(ranges), takes_zstd: true, claim: Claim::local() }))
            .await
            .unwrap();
        let answer = rx.recv::<BlobAnswer>().await.unwrap().unwrap();
        assert_eq!(matches!(answer, BlobAnswer::Here { .. }), is_fine, "{answer:?}");
    }
    // one who begins a blob and has nothing of it has no outline to give
    let mut outliner = Outliner::default();
    outliner.update(&bytes(7, 3 * SEGMENT));
    let outline = outliner.finish();
    let Begun::Partial(_partial) = a.store.begin(outline.clone(), false).unwrap() else { panic!("it is new") };
    let error = b.fetch(outline.digest(), &[&a]).await.unwrap_err();
    assert!(matches!(&error, FetchError::NoSource(list) if list[0].0 == NodeId(1)), "{error}");
}
