//! Output: live, kept, and missed.

use std::time::Duration;

use swarm_executors::Executor;
use swarm_proto::{
    ledger::End,
    limits::KEPT_OUTPUT,
    peer::{OutputChunk, Which},
};

use crate::rig::{Rig, STDOUT_LIMIT, hear, text};

#[tokio::test]
async fn output_is_there_while_the_task_runs_and_afterwards() {
    let mut rig = Rig::new().await;
    let key = rig.sh("echo one; echo oops >&2; while [ ! -e $GO/go ]; do sleep 0.01; done; echo two");
    rig.wait_for_line(key, "one").await;
    let live = rig.read(key, Which::Both, true);
    rig.go("go");
    let heard = hear(live, Duration::ZERO).await;
    assert_eq!((text(&heard.bytes[0]), text(&heard.bytes[1])), ("one\ntwo\n", "oops\n"));
    rig.ended(key).await;
    let heard = hear(rig.read(key, Which::Stderr, false), Duration::ZERO).await;
    assert_eq!((text(&heard.bytes[0]), text(&heard.bytes[1])), ("", "oops\n"));
    assert_eq!(heard.skipped, [(0, 0); 2]);
}

#[tokio::test]
async fn a_reader_that_does_not_follow_gets_what_there_is() {
    let mut rig = Rig::new().await;
    let key = rig.sh("echo one; exec sleep 1000");
    rig.wait_for_line(key, "one").await;
    let heard = hear(rig.read(key, Which::Both, false), Duration::ZERO).await;
    assert_eq!(text(&heard.bytes[0]), "one\n");
    rig.exec.kill(key.0, key.1, End::Cancelled);
    assert_eq!(rig.ended(key).await.end, End::Cancelled);
}

#[tokio::test]
async fn silence_and_ignorance_differ() {
    let mut rig = Rig::new().await;
    let key = rig.sh("true");
    rig.ended(key).await;
    let heard = hear(rig.read(key, Which::Both, true), Duration::ZERO).await;
    assert!(heard.bytes.iter().all(Vec::is_empty));
    let unknown = ("j99.9".parse().unwrap(), key.1);
    assert!(matches!(rig.read(unknown, Which::Both, true).recv().await, Some(OutputChunk::Failed(_))));
}

#[tokio::test]
async fn more_than_is_kept_is_counted() {
    let mut rig = Rig::new().await;
    let key = rig.sh("yes 123456789 | head -n 1500000; yes 123456789 | head -n 1500000 >&2");
    let outcome = rig.settled(key).await;
    let output = outcome.output.clone().unwrap();
    assert_eq!((output.stdout_len, output.stderr_len), (15_000_000, 15_000_000));
    assert_eq!(output.stdout.len(), swarm_proto::limits::INLINE_RESULT);
    let heard = hear(rig.read(key, Which::Both, false), Duration::ZERO).await;
    for (n, kept) in [STDOUT_LIMIT, KEPT_OUTPUT].into_iter().enumerate() {
        assert_eq!(heard.bytes[n].len() as u64, kept);
        let lines_kept = heard.bytes[n].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(heard.skipped[n], (15_000_000 - kept, 1_500_000 - lines_kept));
    }
    // that it is a blob by now is said by its end having got to where it belongs
    rig.exec.forget(key.0, key.1);
    let file = rig.exec.outputs().stdout_file(key.0, key.1);
    while std::fs::metadata(&file).unwrap().len() > KEPT_OUTPUT {
        tokio::task::yield_now().await;
    }
    let heard = hear(rig.read(key, Which::Stdout, false), Duration::ZERO).await;
    assert_eq!((heard.bytes[0].len() as u64, heard.skipped[0].0), (KEPT_OUTPUT, 15_000_000 - KEPT_OUTPUT));
}

/// It loses its oldest lines, is told how many, and slows nobody.
#[tokio::test]
async fn a_slow_reader_loses_lines_and_nobody_waits() {
    let mut rig = Rig::new().await;
    let key = rig.sh("echo up; while [ ! -e $GO/go ]; do sleep 0.01; done; yes 123456789 | head -n 4000000; echo the last line");
    rig.wait_for_line(key, "up").await;
    let slow = rig.read(key, Which::Stdout, true);
    rig.go("go");
    // nothing is read until the task has ended
    rig.ended(key).await;
    let heard = hear(slow, Duration::ZERO).await;
    let total = 3 + 40_000_000 + 14;
    let (bytes, lines) = heard.skipped[0];
    assert!(bytes > 20_000_000 && lines > 2_000_000, "{bytes} {lines}");
    assert_eq!(heard.bytes[0].len() as u64 + bytes, total);
    let heard_lines = heard.bytes[0].iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(heard_lines + lines, 4_000_002);
    assert!(heard.bytes[0].ends_with(b"the last line\n"));
}

#[tokio::test]
async fn a_prompt_reader_misses_nothing() {
    let mut rig = Rig::new().await;
    let key = rig.sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done");
    let heard = hear(rig.read(key, Which::Stdout, true), Duration::ZERO).await;
    let want: String = (0..3000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text(&heard.bytes[0]), want);
    rig.ended(key).await;
}
