//! What a task sees, and what is seen of it.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use swarm_executors::{Exec, Executor, KeeperAt};
use swarm_proto::{
    ledger::End,
    spec::{JobSpec, Work},
};
use tokio::sync::mpsc;

use crate::rig::{Rig, said, settings, text};

fn with(mut spec: JobSpec, change: impl FnOnce(&mut swarm_proto::spec::Exec)) -> JobSpec {
    if let Work::Exec(exec) = &mut spec.work {
        change(exec);
    }
    spec
}

#[tokio::test]
async fn echo_says_what_it_was_told() {
    let mut rig = Rig::new().await;
    let spec = rig.spec(&["echo", "hello", "{}", "world"]);
    let key = rig.start(spec);
    let outcome = rig.ended(key).await;
    assert_eq!(said(&outcome), "hello {} world\n");
    let output = outcome.output.unwrap();
    assert_eq!((output.stdout_len, output.stderr_len), (15, 0));
    assert!(outcome.started.0 > 1_600_000_000_000 && outcome.ended >= outcome.started);
}

#[tokio::test]
async fn ends_are_told_apart() {
    let mut rig = Rig::new().await;
    for (script, want) in
        [("exit 0", End::Succeeded), ("exit 7", End::Exit(7)), ("kill -9 $$", End::Signal(9)), ("kill -15 $$", End::Signal(15))]
    {
        let key = rig.sh(script);
        assert_eq!(rig.ended(key).await.end, want, "{script}");
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut rig = Rig::new().await;
    let spec = rig.spec(&["no-such-program-anywhere"]);
    let key = rig.start(spec);
    let End::Spawn(why) = rig.ended(key).await.end else { panic!() };
    assert!(why.contains("no-such-program-anywhere: not found in PATH"), "{why}");
    let spec = with(rig.spec(&["true"]), |exec| exec.cwd = Some("/no/such/place".into()));
    let key = rig.start(spec);
    let End::Spawn(why) = rig.ended(key).await.end else { panic!() };
    assert_eq!(why, "the working directory /no/such/place is not there");
    let spec = rig.spec(&["/etc/passwd"]);
    let key = rig.start(spec);
    let End::Spawn(why) = rig.ended(key).await.end else { panic!() };
    assert!(why.contains("/etc/passwd: Permission denied"), "{why}");
}

#[tokio::test]
async fn a_task_sees_its_input_and_its_environment() {
    let mut rig = Rig::new().await;
    let input: Bytes = (0..65_536u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let spec = with(rig.spec(&["sh", "-c", "wc -c; env; pwd; ls -A | wc -l"]), |exec| {
        exec.stdin = input;
        exec.env.insert("MINE".into(), "with = and spaces".into());
        exec.env.insert("SWARM_TASK_ID".into(), "forged".into());
    });
    let key = rig.start(spec);
    let outcome = rig.ended(key).await;
    let lines: Vec<&str> = said(&outcome).lines().collect();
    assert_eq!(lines[0].trim(), "65536");
    let has = |line: &str| assert!(lines.contains(&line), "{line} is not in {lines:#?}");
    has("MINE=with = and spaces");
    has(&format!("SWARM_TASK_ID={}", key.0));
    has(&format!("SWARM_JOB_ID={}", key.0.job));
    has("SWARM_ATTEMPT=1");
    has(&format!("SWARM_FENCE={}", key.1));
    assert!(!lines.iter().any(|line| line.starts_with("SWARM_INDEX") || line.starts_with("CARGO")), "{lines:#?}");
    let own = Path::new(lines[lines.len() - 2]);
    assert_eq!(own.parent().and_then(Path::file_name), Some("work".as_ref()), "{own:?}");
    assert_eq!(lines[lines.len() - 1].trim(), "0");
}

#[tokio::test]
async fn what_a_task_leaves_in_its_directory_goes() {
    let mut rig = Rig::new().await;
    for script in ["mkdir -p a/b && echo x > a/b/c && pwd", "rmdir $PWD && echo gone", "chmod 500 . && pwd", "ls -A && pwd"] {
        let key = rig.sh(&format!("ls -A; {script}"));
        let outcome = rig.ended(key).await;
        assert_eq!(said(&outcome).lines().count(), 1, "{script}: {outcome:?}");
    }
    let work = rig.dir.join("work");
    let left = || {
        std::fs::read_dir(&work)
            .unwrap()
            .filter(|entry| std::fs::read_dir(entry.as_ref().unwrap().path()).unwrap().next().is_some())
            .count()
    };
    crate::rig::until("only empty directories are left", || left() == 0).await;
}

#[tokio::test]
async fn an_array_s_tasks_see_their_items() {
    let mut rig = Rig::new().await;
    let spec = Arc::new(rig.spec(&["sh", "-c", "echo \"$1\" $SWARM_INDEX $SWARM_ITEM", "sh", "<{}> {{}}"]));
    let keys: Vec<_> = (5..8).map(|n| rig.start_array(Arc::clone(&spec), true, n, (n != 6).then(|| format!("item {n}")))).collect();
    for (key, want) in keys.into_iter().zip(["<item 5> {} 5 item 5\n", "<6> {} 6 6\n", "<item 7> {} 7 item 7\n"]) {
        assert_eq!(said(&rig.ended(key).await), want);
    }
}

#[tokio::test]
async fn a_thousand_tasks_all_end() {
    let mut rig = Rig::new().await;
    let spec = Arc::new(rig.spec(&["sh", "-c", "exit $((SWARM_INDEX % 3))"]));
    let mut open: std::collections::BTreeMap<_, _> = (0..1000).map(|n| (rig.start_array(Arc::clone(&spec), true, n, None), n)).collect();
    while !open.is_empty() {
        if let swarm_executors::ExecEvent::Ended { task, fence, outcome } = rig.event().await {
            let n = open.remove(&(task, fence)).expect("ends once");
            let want = if n % 3 == 0 { End::Succeeded } else { End::Exit(i32::try_from(n % 3).unwrap()) };
            assert_eq!(outcome.end, want);
        }
    }
}

#[tokio::test]
async fn a_keeper_that_cannot_start_is_the_task_s_end() {
    let temp = tempfile::tempdir().unwrap();
    let (tx, mut events) = mpsc::unbounded_channel();
    let mut bad = settings(temp.path());
    bad.keeper = KeeperAt::Program(vec!["/no/such/swarmd".into()]);
    let (exec, _) = Exec::open(bad, tx).await.unwrap();
    let rig = Rig::new().await;
    let mut starts = rig.spec(&["true"]);
    starts.timeout = None;
    let task = "j1.0".parse().unwrap();
    exec.start(swarm_executors::Start {
        task,
        fence: "1.1".parse().unwrap(),
        spec: Arc::new(starts),
        is_array: false,
        item: None,
        own: None,
        key: None,
    });
    let Some(swarm_executors::ExecEvent::Ended { outcome, .. }) = events.recv().await else { panic!() };
    assert!(matches!(&outcome.end, End::Spawn(why) if why.contains("/no/such/swarmd")), "{outcome:?}");
}

#[tokio::test]
async fn a_second_keeper_is_refused() {
    let mut rig = Rig::new().await;
    let key = rig.sh("echo up; exec sleep 1000");
    rig.wait_for_line(key, "up").await;
    let second = tokio::process::Command::new(env!("CARGO_BIN_EXE_swarm-keeper")).arg(&rig.dir).output().await.unwrap();
    assert!(!second.status.success());
    assert!(text(&second.stderr).contains("Taken"), "{}", text(&second.stderr));
    assert_eq!(rig.left().len(), 1);
    rig.exec.kill(key.0, key.1, End::Lost);
    assert_eq!(rig.ended(key).await.end, End::Lost);
}

#[tokio::test]
async fn a_long_directory_name_still_has_a_socket() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d".repeat(120)).join("e".repeat(120));
    let (tx, mut events) = mpsc::unbounded_channel();
    let (exec, _) = Exec::open(settings(&dir), tx).await.unwrap();
    let rig = Rig::new().await;
    let spec = Arc::new(rig.spec(&["true"]));
    exec.start(swarm_executors::Start {
        task: "j1.0".parse().unwrap(),
        fence: "1.1".parse().unwrap(),
        spec,
        is_array: false,
        item: None,
        own: None,
        key: None,
    });
    let outcome = loop {
        if let swarm_executors::ExecEvent::Ended { outcome, .. } = events.recv().await.unwrap() {
            break outcome;
        }
    };
    assert_eq!(outcome.end, End::Succeeded);
    swarm_executors::keeper::end(&dir);
}
