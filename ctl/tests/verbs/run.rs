//! `run`: output, input, exit codes, Ctrl-C.

use swarm_proto::{Code, JobId, Problem, spec::Work};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::with_swarm;

#[test]
fn output_and_exit_code_are_the_tasks() {
    with_swarm(async |swarm| {
        swarm.call(&["run", "print", "hello\n"]).await.is(0, "hello\n");
        swarm.call(&["run", "--", "print", "no newline"]).await.is(0, "no newline");
        swarm.call(&["run", "exit", "3"]).await.is(3, "");
        swarm.call(&["run", "slow"]).await.is(124, "");
        let missing = swarm.call(&["run", "missing"]).await;
        missing.is(125, "");
        assert_eq!(
            missing.stderr,
            "error: j5.0 could not be started on n1\n  why: No such file or directory\n  try: swarmctl task show j5.0\n"
        );
    });
}

#[test]
fn output_is_live() {
    // The script writes its second line only when the first one was read.
    with_swarm(async |swarm| swarm.call(&["run", "lines"]).await.is(0, "one\ntwo\n"));
}

#[test]
fn nothing_is_lost_or_doubled_where_sources_overlap() {
    with_swarm(async |swarm| {
        let all: String = (0..2_000).map(|n| format!("line {n}\n")).collect();
        for cut in ["1000", "7000", "1000000"] {
            swarm.call(&["run", "big", cut]).await.is(0, &all);
        }
        // its live output had an end before it began
        swarm.call(&["run", "late", &all]).await.is(0, &all);
    });
}

#[test]
fn another_attempt_is_told_of_and_copied_whole() {
    with_swarm(async |swarm| {
        let ended = swarm.after_first_line(&["run", "rerun"], "first\n", |_| swarm.fake.set_seen(JobId(1))).await;
        ended.is(0, "second\n");
        assert_eq!(ended.stderr, "swarmctl: attempt 1 is gone; what follows is of attempt 2\n");
    });
}

#[test]
fn input_goes_to_the_task() {
    with_swarm(async |swarm| {
        swarm.call_with(&["run", "cat"], b"a\nb").await.is(0, "a\nb");
        let most = "x".repeat(65_536);
        swarm.call_with(&["run", "cat"], most.as_bytes()).await.is(0, &most);
        let ended = swarm.call_with(&["run", "cat"], "x".repeat(65_537).as_bytes()).await;
        ended.is(2, "");
        assert_eq!(ended.stderr, "error: the task's input is too large\n  why: standard input has more than 65536 bytes\n");
    });
}

#[test]
fn flags_reach_the_job() {
    with_swarm(async |swarm| {
        swarm
            .call(&["run", "--cores", "0.5", "--name", "n", "-e", "A=b", "--label", "zone=attic", "print", "--cores"])
            .await
            .is(0, "--cores");
        let submit = swarm.fake.submitted(JobId(1));
        assert_eq!((submit.spec.needs.milli_cores, submit.spec.name.as_deref()), (500, Some("n")));
        assert_eq!(submit.spec.labels["zone"], "attic");
        assert!(submit.key.is_some_and(|key| key.len() == 32));
        let Work::Exec(exec) = &submit.spec.work else { panic!("it runs a process") };
        assert_eq!((exec.env["A"].as_str(), exec.argv.len()), ("b", 2));
    });
}

#[test]
fn ctrl_c_takes_the_job_back() {
    with_swarm(async |swarm| {
        let running = swarm.after_first_line(&["run", "hang"], "here\n", crate::interrupt).await;
        running.is(130, "");
        assert_eq!(running.stderr, "swarmctl: interrupted; j1 is cancelled\n");
        let pending = swarm.interrupt(&["run", "never"], swarm.fake.until(|view| view.task.job == JobId(2))).await;
        assert_eq!(pending.code, Some(130), "{pending:?}");
        assert!(swarm.fake.is_cancelled(JobId(1)) && swarm.fake.is_cancelled(JobId(2)));
    });
}

#[test]
fn a_task_that_waits_in_vain_is_told_of() {
    with_swarm(async |swarm| {
        let mut child = swarm.command(&["run", "never"]).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let told = stderr.next_line().await.unwrap().unwrap();
        assert_eq!(told, "swarmctl: j1.0 waits: there is no node; more: swarmctl task explain j1.0");
        crate::interrupt(&child);
        assert_eq!(child.wait().await.unwrap().code(), Some(130));
    });
}

#[test]
fn a_stream_that_breaks_is_taken_up_again() {
    with_swarm(async |swarm| {
        *swarm.fake.breaks.lock().unwrap() = 2;
        swarm.call(&["run", "print", "once\n"]).await.is(0, "once\n");
        swarm
            .call(&["task", "list", "-o", "jsonl"])
            .await
            .stdout
            .lines()
            .count()
            .checked_sub(1)
            .filter(|more| *more == 0)
            .expect("one job");
    });
}

#[test]
fn own_failures_are_125() {
    with_swarm(async |swarm| {
        swarm.fake.refusals.lock().unwrap().push(Problem::new(Code::Denied, "that is not yours", "somebody else's"));
        let denied = swarm.call(&["run", "print", "x"]).await;
        denied.is(125, "");
        assert_eq!(denied.stderr, "error: that is not yours\n  why: somebody else's\n");
        swarm.call(&["--socket", "/nowhere/s", "run", "true"]).await.is(125, "");
        swarm.call(&["run", "--memory", "8XiB", "true"]).await.is(2, "");
        swarm.call(&["run", "--timeout", "0s", "true"]).await.is(2, "");
    });
}
