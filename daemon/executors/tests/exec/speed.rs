//! How fast `true` runs, beside a bare loop. Not a test of anything: run it alone, with `--run-ignored only --no-capture`.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use swarm_executors::ExecEvent;

use crate::rig::Rig;

fn bare(total: usize) -> f64 {
    let threads = std::thread::available_parallelism().unwrap().get();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..total / threads {
                    let mut command = Command::new("/usr/bin/true");
                    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(command.spawn().unwrap().wait().unwrap().success());
                }
            });
        }
    });
    total as f64 / begun.elapsed().as_secs_f64()
}

async fn kept(mut rig: Rig, total: u32, in_flight: u32) -> f64 {
    let spec = Arc::new(rig.spec(&["true"]));
    let warm = rig.start_array(Arc::clone(&spec), false, 0, None);
    rig.ended(warm).await;
    let begun = Instant::now();
    let (mut started, mut ended) = (0, 0);
    while ended < total {
        while started < total && started - ended < in_flight {
            rig.start_array(Arc::clone(&spec), false, started, None);
            started += 1;
        }
        if let ExecEvent::Ended { task, fence, .. } = rig.event().await {
            swarm_executors::Executor::forget(&rig.exec, task, fence);
            ended += 1;
        }
    }
    f64::from(total) / begun.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn spawn_rate() {
    for _ in 0..3 {
        let bare = bare(4000);
        for in_flight in [2, 8, 64] {
            let kept = kept(Rig::new().await, 4000, in_flight).await;
            println!("bare {bare:.0}/s, through the keeper with {in_flight} in flight {kept:.0}/s: {:.2}", kept / bare);
        }
    }
}

/// Only root can take this one.
#[tokio::test]
#[ignore = "a measurement"]
async fn spawn_rate_as_another_user() {
    let Some((first, _home)) = crate::user::rig().await else { return };
    drop(first);
    for _ in 0..3 {
        let own = kept(Rig::new().await, 4000, 8).await;
        let Some((rig, _home)) = crate::user::rig().await else { return };
        let other = kept(rig, 4000, 8).await;
        println!("as the keeper {own:.0}/s, as another user {other:.0}/s: {:.2}", other / own);
    }
}
