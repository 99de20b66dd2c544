//! Who may speak, how much, and in which words it is refused.

use std::{os::unix::fs::PermissionsExt as _, process::Command, sync::Arc};

use swarm_api::{Accept, Bounds, GroupAccess, ListenError, Rate, Socket, Visitor};
use swarm_client::Client;
use swarm_proto::{Code, Millis, Problem, access::Role, limits};
use tokio::net::UnixStream;

use crate::{World, noop, soon, table::Table};

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_same_words() {
    let world = World::new();
    for (request, status) in [
        ("GET /", 404),
        ("GET /v1/job/j1", 404),
        ("GET /v1/jobs/j1/../j2/nothing", 404),
        ("GET /v1/submit", 405),
        ("POST /v1/jobs", 405),
        ("DELETE /v1/jobs/j1", 405),
        ("OPTIONS /v1/jobs", 405),
        ("TRACE /healthz", 405),
        ("GET /v1/jobs/17", 400),
        ("GET /v1/tasks/j17.x", 400),
        ("GET /v1/jobs?limt=3", 400),
        ("GET /v1/jobs?state=closed", 400),
        ("GET /v1/tasks?state=done", 400),
        ("GET /v1/jobs/j1?wait=-1", 400),
        ("GET /v1/jobs/j1?wait=x", 400),
        ("GET /v1/events?after=x", 400),
        ("GET /v1/tasks/j1/logs?follow=maybe", 400),
        ("GET /v1/tasks/j1/logs?stream=stdin", 400),
        ("GET /v1/jobs/j1", 404),
    ] {
        let raw = world.raw(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(raw.status, status, "{request}: {}", String::from_utf8_lossy(&raw.body));
        let problem = raw.problem();
        assert!(!problem.what.is_empty() && !problem.why.is_empty(), "{request}: {problem:?}");
        if status == 405 {
            assert!(raw.head.contains("allow: "), "{}", raw.head);
        }
    }
}

#[tokio::test]
async fn a_problem_keeps_its_status_and_says_when_to_come_back() {
    let world = World::new();
    for (code, status) in [(Code::Busy, 429), (Code::NoLeader, 503), (Code::Version, 426), (Code::Timeout, 504), (Code::Denied, 403)] {
        let trouble = Problem::new(code, "it cannot be", "for a test").hint("try later").retry_after(Millis(1_001));
        world.table.0.state().trouble = Some(trouble.clone());
        let raw = world.get("/v1/leader").await;
        assert_eq!((raw.status, raw.problem()), (status, trouble.clone()));
        assert!(raw.head.contains("retry-after: 2\r\n"), "{}", raw.head);
        assert_eq!(world.client.leader().await.unwrap_err(), trouble);
    }
}

fn with_body(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/jobs/j1/retry HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_head_and_a_body_have_their_limits() {
    let world = World::new();
    world.job(&["false"]).await;
    for (over, status) in [(-1_isize, 200), (0, 200), (1, 431)] {
        let head = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-pad: ";
        let pad = limits::HTTP_HEADER.checked_add_signed(over).unwrap() - head.len() - "\r\n\r\n".len();
        let raw = world.raw(format!("{head}{}\r\n\r\n", "x".repeat(pad)).as_bytes()).await;
        assert_eq!(raw.status, status, "{over} over the limit");
    }
    for (over, status) in [(-1_isize, 200), (0, 200), (1, 413)] {
        let mut body = b"{\"key\":null}".to_vec();
        body.resize(limits::HTTP_BODY.checked_add_signed(over).unwrap(), b' ');
        assert_eq!(world.raw(&with_body(&body)).await.status, status, "{over} over the limit");
    }
    for body in ["[]", "{\"kez\":1}", "{", "\"x\""] {
        assert_eq!(world.raw(&with_body(body.as_bytes())).await.problem().code, Code::BadRequest, "{body}");
    }
}

#[tokio::test]
async fn connections_are_counted_and_the_next_is_told() {
    let world = World::within(Bounds { connections: 2, ..Bounds::default() });
    let first = Client::connect(&world.socket).await.unwrap();
    first.healthy().await.unwrap();
    let second = Client::connect(&world.socket).await.unwrap();
    second.healthy().await.unwrap();
    let third = Client::connect(&world.socket).await.unwrap();
    let problem = third.healthy().await.unwrap_err();
    assert_eq!((problem.code, problem.retry_after_ms), (Code::Busy, Some(1_000)));
    drop(first);
    let freed = async {
        while third.healthy().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let world = World::within(Bounds { requests: Rate::new(5, 20), ..Bounds::default() });
    let mut refused = None;
    for asked in 0..30 {
        let raw = world.get("/healthz").await;
        if raw.status == 429 {
            assert!(asked >= 20, "the whole burst is free, {asked} were");
            assert!(raw.head.contains("retry-after: 1\r\n"), "{}", raw.head);
            refused = Some(raw.problem());
        }
    }
    let problem = refused.expect("thirty are more than twenty and what comes in meanwhile");
    let wait = problem.retry_after_ms.expect("a busy node says when");
    assert_eq!((problem.code, wait <= 200), (Code::Busy, true), "{problem:?}");
    assert!(world.table.0.state().jobs.is_empty());
    tokio::time::sleep(std::time::Duration::from_millis(wait + 1)).await;
    assert_eq!(world.get("/healthz").await.status, 200);
}

/// A socket on which everybody is somebody else.
struct Strangers(Socket);

impl Accept for Strangers {
    type Stream = UnixStream;

    async fn accept(&mut self) -> std::io::Result<(UnixStream, Visitor)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Visitor::Stranger("for a test".into())))
    }
}

#[tokio::test]
async fn a_stranger_is_denied_everything() {
    let table = Table::new();
    let world = World::with(table.clone(), Arc::new(table), Bounds::default(), Strangers);
    for path in ["/healthz", "/v1/status", "/nothing"] {
        let raw = world.get(path).await;
        assert_eq!((raw.status, raw.problem().code), (403, Code::Denied), "{path}");
    }
    assert_eq!(world.client.submit(&noop("1")).await.unwrap_err().code, Code::Denied);
    assert!(world.table.0.state().jobs.is_empty());
}

#[tokio::test]
async fn another_user_is_denied_by_the_kernels_word() {
    if !crate::can_be_somebody_else() {
        return;
    }
    ["setpriv", "curl"].into_iter().for_each(crate::needs);
    let world = World::new();
    // As if a group could open it: who may connect is decided by the file, who may speak by the caller's user id.
    std::fs::set_permissions(&world.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(world.socket.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let curl = |user: &'static str, socket: std::path::PathBuf| {
        let mut curl = Command::new("setpriv");
        curl.args(["--reuid", user, "--regid", user, "--clear-groups", "curl", "-s", "-w", "%{http_code}", "--unix-socket"]);
        let output = curl.arg(socket).arg("http://x/v1/status").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let run = |user| {
        tokio::task::spawn_blocking({
            let socket = world.socket.clone();
            move || curl(user, socket)
        })
    };
    let denied = run("65534").await.unwrap();
    assert!(denied.ends_with("403") && denied.contains("user id 65534 is neither"), "{denied}");
    let allowed = run("0").await.unwrap();
    assert!(allowed.ends_with("200"), "{allowed}");
}

#[tokio::test]
async fn curl_is_told_to_continue_before_it_sends() {
    crate::needs("curl");
    let world = World::new();
    let socket = world.socket.clone();
    let run = move || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-v", "--expect100-timeout", "30", "-H", "Expect: 100-continue", "--max-time", "20", "--unix-socket"])
            .arg(socket);
        curl.args(["--data-binary", "{\"id\":\"1\",\"noop\":true}\n", "http://x/v1/submit"]).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert!(told.contains("HTTP/1.1 100 Continue"), "{told}");
    assert!(said.contains("\"accepted\"") && said.contains("\"ended\""), "{said}");
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarmd.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(Client::connect(&path).await.err().unwrap().code, Code::NoDaemon);
    let group = GroupAccess { gid: rustix::process::getegid().as_raw(), role: Role::Submitter };
    let live = Socket::bind(&path, Some(group)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let refused = Socket::bind(&path, None).err().unwrap();
    assert!(matches!(refused, ListenError::InUse(_)), "{refused}");
    assert!(refused.to_string().starts_with("another swarmd already answers at /"), "{refused}");
    assert!(Client::connect(live.path()).await.is_ok(), "the live one still listens");
    drop(live);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays behind");

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Socket::bind(&path, None), Err(ListenError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let nowhere = dir.path().join("missing").join("swarmd.sock");
    assert!(matches!(Socket::bind(&nowhere, None), Err(ListenError::Io { .. })));
}

#[tokio::test]
async fn a_sockets_path_may_be_as_long_as_its_address_holds() {
    const MOST: usize = 107;
    let dir = tempfile::tempdir().unwrap();
    let deep = "d".repeat(MOST - dir.path().as_os_str().len() - "//swarmd.sock".len());
    let path = dir.path().join(deep).join("swarmd.sock");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    assert_eq!(path.as_os_str().len(), MOST);
    let live = Socket::bind(&path, None).unwrap();
    assert!(Client::connect(live.path()).await.is_ok());
    assert!(matches!(Socket::bind(&path.with_file_name("swarmd2.sock"), None), Err(ListenError::Io { .. })), "it is full");
}

#[tokio::test]
async fn without_a_daemon_the_client_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(dir.path().join("none.sock"));
    let problem = client.status().await.unwrap_err();
    assert_eq!(problem.code, Code::NoDaemon);
    assert!(problem.hint.contains("swarmd run") && problem.why == "there is no such socket", "{problem}");
    assert_eq!(client.submit_stream().await.err().unwrap().code, Code::NoDaemon);
}

#[tokio::test]
async fn a_restarted_daemon_is_found_again_by_the_same_client() {
    let mut world = World::new();
    world.client.healthy().await.unwrap();
    let held = world.task(&["hold"]).await;
    let waiting = world.client.clone();
    let waiting = tokio::spawn(async move { waiting.wait_task(held, std::time::Duration::from_secs(3_000)).await });
    while world.table.0.state().recalls == 0 {
        tokio::task::yield_now().await;
    }
    world.stop.take().unwrap().send(()).unwrap();
    soon(&mut world.server).await.unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap_err().code, Code::NoDaemon, "what was not answered in time broke off");
    assert_eq!(world.client.healthy().await.unwrap_err().code, Code::NoDaemon);

    let again = Socket::bind(&world.socket, None).unwrap();
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(swarm_api::serve(again, Arc::new(world.table.clone()), async {
        let _ = stopped.await;
    }));
    world.client.healthy().await.unwrap();
    world.client.cancel_task(held).await.unwrap();
}

#[tokio::test]
async fn what_is_in_flight_at_the_end_is_finished() {
    let mut world = World::new();
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    sender.send(&noop("1")).await.unwrap();
    assert!(soon(answers.next()).await.unwrap().is_some());
    world.stop.take().unwrap().send(()).unwrap();
    tokio::task::yield_now().await;
    sender.send(&noop("2")).await.unwrap();
    sender.finish();
    let mut lines = Vec::new();
    while soon(answers.next_many(&mut lines)).await.unwrap() > 0 {}
    assert_eq!(lines.len(), 3, "{lines:?}");
    soon(&mut world.server).await.unwrap();
    assert!(!world.socket.exists());
}
