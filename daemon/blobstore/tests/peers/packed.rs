//! Segments that travel as zstd frames.

use std::time::{Duration, Instant};

use swarm_blobstore::Paces;

use crate::support::{Gives, Host, SEGMENT, Trick, bytes, text};

/// Fetches it, and answers how much of its size went over the wire, and how long that took.
async fn cost(from: &Host, to: &Host, data: &[u8]) -> (f64, Duration) {
    let (digest, before, began) = (from.put(data), from.sent(), Instant::now());
    to.fetch(digest, &[from]).await.unwrap();
    assert!(to.has(digest, data));
    to.store.remove(digest).unwrap();
    ((from.sent() - before) as f64 / data.len() as f64, began.elapsed())
}

#[tokio::test]
async fn what_shrinks_goes_smaller_over_a_slow_link_alone() {
    let rate = 12 << 20;
    let (slow, quick) = (Host::start_with(1, Paces::new(Some(rate), None)), Host::start(2));
    let to = Host::start(3);
    to.knows(&[&slow, &quick]);
    let text = text(16 * SEGMENT);
    slow.gives_plain(true);
    let (plain, took_plain) = cost(&slow, &to, &text).await;
    slow.gives_plain(false);
    let (packed, took_packed) = cost(&slow, &to, &text).await;
    assert!(plain > 1.0 && packed < 0.6, "plain {plain:.2}, packed {packed:.2}");
    assert!(took_packed < took_plain.mul_f64(0.7), "plain {took_plain:?}, packed {took_packed:?}");
    // what cannot be made smaller goes as it is
    let mut noise = vec![0; 8 * SEGMENT];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let (sent, _) = cost(&slow, &to, &noise).await;
    assert!((1.0..1.1).contains(&sent), "{sent:.2}");
    // and everything where the link is faster than the work
    for _ in 0..3 {
        let (sent, _) = cost(&quick, &to, &text).await;
        assert!(sent > 1.0, "{sent:.2}");
    }
}

/// Nobody bounds the rate: the wire is slow, and only what comes of the waiting tells that.
#[tokio::test]
async fn a_wire_that_is_slow_is_found_to_be() {
    let (from, to) = (Host::start(1), Host::start(2));
    to.knows_over_wire(&from, 8 << 20).await;
    let text = text(8 * SEGMENT);
    let (first, took) = cost(&from, &to, &text).await;
    let (second, took_again) = cost(&from, &to, &text).await;
    assert!(first < 1.1 && second < 0.5, "{first:.2} in {took:?}, then {second:.2} in {took_again:?}");
}

#[tokio::test]
async fn a_frame_that_is_wrong_is_a_lie() {
    let (honest, liar, to) = (Host::start(1), Host::start(2), Host::start(3));
    to.knows(&[&honest, &liar]);
    // zeros, so that a frame is short, and an end that is not
    let data = [vec![0; 24 * SEGMENT], bytes(1, 5)].concat();
    let digest = honest.put(&data);
    liar.put(&data);
    for (trick, is_lie) in [
        (Trick::None, false),
        (Trick::Beyond, true),
        (Trick::Short, true),
        (Trick::Garbage, true),
        (Trick::Window, true),
        (Trick::Unbounded, true),
    ] {
        liar.gives(Gives::Framed(trick));
        let told = to.fetch(digest, &[&liar, &honest]).await.unwrap();
        assert!(to.has(digest, &data), "{trick:?}");
        let view = told.sources.iter().find(|view| view.node == liar.node).unwrap();
        assert_eq!(view.is_liar, is_lie, "{trick:?}: {told:?}");
        to.store.remove(digest).unwrap();
        // alone it gives nothing, and is named
        match to.fetch(digest, &[&liar]).await {
            Ok(_) if !is_lie => to.store.remove(digest).unwrap(),
            Err(error) if is_lie => assert!(error.to_string().contains("n2: what it gives is not the blob"), "{trick:?}: {error}"),
            end => panic!("{trick:?}: {end:?}"),
        }
    }
}
