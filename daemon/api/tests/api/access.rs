//! Every route as every role, over a real socket; and the page that says what to expect.

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use swarm_api::{Accept, Bounds, GroupAccess, Socket, Visitor};
use swarm_proto::{
    Code,
    access::{self, Caller, How, Method, Operation, Role},
};
use tokio::net::UnixStream;

use crate::{Raw, World, exec, table::Table};

/// What people read. The tests below hold the daemon to it.
const PAGE: &str = concat!(env!("SWARM_ROOT"), "/daemon/api/ROUTES.md");

/// A socket on which everybody is one and the same caller.
struct Everybody(Socket, Caller);

impl Accept for Everybody {
    type Stream = UnixStream;

    async fn accept(&mut self) -> std::io::Result<(UnixStream, Visitor)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Visitor::Local(self.1.clone())))
    }
}

fn world_of(table: &Table, name: &str, role: Role) -> World {
    let caller = Caller { name: name.into(), role, how: How::Certificate };
    World::with(table.clone(), Arc::new(table.clone()), Bounds::default(), |socket| Everybody(socket, caller))
}

/// As if over TLS: who somebody is, is asked each time.
struct Mesh(Socket, Visitor);

impl Accept for Mesh {
    type Stream = UnixStream;

    async fn accept(&mut self) -> std::io::Result<(UnixStream, Visitor)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, self.1.clone()))
    }
}

fn mesh_of(table: &Table, visitor: Visitor) -> World {
    World::with(table.clone(), Arc::new(table.clone()), Bounds::default(), |socket| Mesh(socket, visitor))
}

/// The answer to a request with these heads.
async fn status_of(world: &World, line: &str, heads: &str, body: &str) -> (u16, String) {
    let request = format!("{line} HTTP/1.1\r\n{heads}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let raw = world.raw(request.as_bytes()).await;
    (raw.status, String::from_utf8_lossy(&raw.body).into_owned())
}

#[tokio::test]
async fn over_the_mesh_only_our_own_clients_are_heard() {
    let table = Table::new();
    table.0.state().status.name = "pi4".into();
    let ann = Caller { name: "ann".into(), role: Role::Submitter, how: How::Certificate };
    let world = mesh_of(&table, Visitor::Certified(Arc::new(move || Ok(ann.clone()))));
    for (heads, status) in [
        ("host: swarm\r\n", 200),
        ("host: localhost:4749\r\n", 200),
        ("host: 100.64.0.1\r\n", 200),
        ("host: 100.64.0.1:4749\r\n", 200),
        ("host: [fd7a::1]:4749\r\n", 200),
        ("host: PI4:4749\r\n", 200),
        ("", 400),
        ("host: evil.example\r\n", 403),
        ("host: pi4.evil.example\r\n", 403),
        ("host: 100.64.0.1.evil.example\r\n", 403),
        ("host: swarm.evil.example:4749\r\n", 403),
        ("host: swarm\r\norigin: https://evil.example\r\n", 403),
        ("host: swarm\r\norigin: null\r\n", 403),
        ("host: swarm\r\nsec-fetch-site: cross-site\r\n", 403),
        ("host: swarm\r\nsec-fetch-site: none\r\n", 200),
    ] {
        let (given, body) = status_of(&world, "GET /v1/status", heads, "").await;
        let expected = if status == 400 { vec![400, 403] } else { vec![status] };
        assert!(expected.contains(&given), "{heads}: {given} {body}");
    }
    let line = "{\"id\":\"1\",\"noop\":true}\n";
    for (kind, status) in [
        ("application/json", 200),
        ("application/x-ndjson; charset=utf-8", 200),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
        ("multipart/form-data", 400),
    ] {
        let (given, body) = status_of(&world, "POST /v1/submit", &format!("host: swarm\r\ncontent-type: {kind}\r\n"), line).await;
        assert_eq!(given, status, "{kind}: {body}");
    }
    let (given, _) = status_of(&world, "POST /v1/submit", "host: swarm\r\n", line).await;
    assert_eq!(given, 400, "a body without a kind");
    let (given, _) = status_of(&world, "OPTIONS /v1/submit", "host: swarm\r\n", "").await;
    assert_eq!(given, 405, "nobody is told that another origin may ask");
    assert_eq!(table.0.state().heard.iter().filter(|caller| caller.name == "ann").count(), 2);
}

#[tokio::test]
async fn whoever_is_nobody_any_more_is_heard_no_more_and_loses_what_is_under_way() {
    let table = Table::new();
    let now = Arc::new(std::sync::Mutex::new(Some(Role::Submitter)));
    let seen = Arc::clone(&now);
    let again = move || match *seen.lock().unwrap() {
        Some(role) => Ok(Caller { name: "ann".into(), role, how: How::Certificate }),
        None => Err(swarm_proto::Problem::new(Code::Denied, "the request was refused", "revoked")),
    };
    let world = mesh_of(&table, Visitor::Certified(Arc::new(again)));
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    sender.send(&exec("1", &["hold"])).await.unwrap();
    assert!(crate::soon(answers.next()).await.unwrap().is_some(), "accepted");
    *now.lock().unwrap() = None;
    assert_eq!(world.client.status().await.unwrap_err().why, "revoked");
    let begun = std::time::Instant::now();
    while let Ok(Some(_)) = crate::soon(answers.next()).await {}
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    *now.lock().unwrap() = Some(Role::Observer);
    assert!(world.client.status().await.is_ok());
    assert_eq!(world.client.submit(&exec("2", &["true"])).await.unwrap_err().code, Code::Denied);
}

#[tokio::test]
async fn a_token_is_shown_with_each_request_and_nothing_else_names_anybody() {
    let table = Table::new();
    let world = mesh_of(&table, Visitor::Unnamed { exporter: [7; 32], from: std::net::Ipv4Addr::LOCALHOST.into() });
    let token = swarm_proto::token::Token {
        kind: swarm_proto::identity::Kind::User,
        cluster: swarm_proto::ClusterId([1; 16]),
        pin: [2; 32],
        secret: [3; 20],
        addresses: vec![],
    };
    let bearer = format!("host: swarm\r\nauthorization: Bearer {token}\r\n");
    assert_eq!(status_of(&world, "GET /v1/status", &bearer, "").await.0, 403, "the daemon does not know it yet");
    table.0.state().tokens.insert(token.id(), Caller { name: "ci".into(), role: Role::Observer, how: How::Bearer });
    assert_eq!(status_of(&world, "GET /v1/status", &bearer, "").await.0, 200);
    let (status, body) = status_of(&world, "POST /v1/leader/resign", &bearer, "").await;
    assert_eq!((status, body.contains("'ci' is an observer")), (403, true), "{body}");
    let altered = bearer.replacen("swarm1-", "swarm1-a", 1);
    for heads in ["host: swarm\r\n", "host: swarm\r\nauthorization: Basic YTpi\r\n", "host: swarm\r\nauthorization: Bearer\r\n", &altered] {
        let (status, body) = status_of(&world, "GET /v1/status", heads, "").await;
        assert_eq!(status, 403, "{heads}: {body}");
    }
    let evil = bearer.replacen("host: swarm", "host: evil.example", 1);
    assert_eq!(status_of(&world, "GET /v1/status", &evil, "").await.0, 403);
}

async fn ask(world: &World, method: Method, path: &str) -> Raw {
    let request = format!("{} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", method.word());
    world.raw(request.as_bytes()).await
}

/// Whether the answer is the judge's own. A handler that ran may refuse for other reasons, never with this code.
fn is_denied(raw: &Raw) -> bool {
    raw.status == 403 && raw.problem().code == Code::Denied
}

/// From the page: route to (least role, least role for what is somebody else's).
fn expected() -> BTreeMap<String, (Role, Role)> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let role: Role = cells[3].parse().unwrap();
        (cells[1].trim_matches('`').to_owned(), (role, cells[4].parse().unwrap_or(role)))
    })
    .collect()
}

#[test]
fn the_page_is_made_from_the_table() {
    let page = access::page();
    if std::env::var_os("SWARM_WRITE_PAGES").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(PAGE).unwrap(), page, "write it anew: SWARM_WRITE_PAGES=1 cargo nextest run -p swarm-api page");
    assert_eq!(expected().len(), Operation::ALL.len());
}

#[tokio::test]
async fn every_route_as_every_role() {
    let expected = expected();
    for role in Role::ALL {
        for owner in ["caller", "somebody else"] {
            let table = Table::new();
            // Made anew for each: what one operation does must not change what the next one finds.
            for operation in Operation::ALL {
                let route = format!("{} {}", operation.method().word(), operation.path());
                let job = world_of(&table, owner, Role::Submitter).job(&["false"]).await;
                let id = if operation.path().starts_with("/v1/nodes") { "n1".to_owned() } else { job.to_string() };
                let raw = ask(&world_of(&table, "caller", role), operation.method(), &operation.path().replace("{id}", &id)).await;
                let (own, others) = expected[&route];
                let needed = if owner == "caller" { own } else { others };
                assert_eq!(is_denied(&raw), role < needed, "{route} as {role}, of {owner}: {}", String::from_utf8_lossy(&raw.body));
                if is_denied(&raw) {
                    let (why, named) = (raw.problem().why, if role < own { own } else { others });
                    assert!(why.contains(role.word()) && why.ends_with(named.word()), "{route} as {role}: {why}");
                } else {
                    assert!(raw.status < 500 && ![404, 405].contains(&raw.status), "{route} as {role}: {}", raw.head);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_submission_is_its_callers() {
    let table = Table::new();
    let job = world_of(&table, "alice", Role::Submitter).job(&["hold"]).await;
    let bob = world_of(&table, "bob", Role::Submitter);
    assert_eq!(bob.client.job(job).await.unwrap().submitter, "alice");
    let problem = bob.client.cancel_job(job).await.unwrap_err();
    assert_eq!((problem.code, problem.why.starts_with("j1 is alice's; 'bob' is a submitter")), (Code::Denied, true), "{problem}");
    assert!(bob.client.submit(&exec("1", &["true"])).await.is_ok());
    assert_eq!(bob.client.job(swarm_proto::JobId(2)).await.unwrap().submitter, "bob");
    let again = world_of(&table, "olga", Role::Operator).client.retry_job(swarm_proto::JobId(2), None).await.unwrap();
    assert_eq!(bob.client.job(again.job).await.unwrap().submitter, "olga", "what is tried again belongs to whoever asked for it");
    assert_eq!(world_of(&table, "eve", Role::Observer).client.submit(&exec("1", &["true"])).await.unwrap_err().code, Code::Denied);
    assert!(table.0.state().heard.iter().all(|caller| caller.name != "eve"), "the daemon never heard of it");
}

/// What curl hears as user and group 65534, with `groups` beside.
async fn curl(socket: &Path, groups: &[&str], request: &[&str]) -> String {
    let mut curl = Command::new("setpriv");
    curl.args(["--reuid", "65534", "--regid", "65534"]);
    if groups.is_empty() {
        curl.arg("--clear-groups");
    } else {
        curl.args(["--groups", &groups.join(",")]);
    }
    curl.args(["curl", "-s", "-w", "%{http_code}", "--unix-socket"]).arg(socket).args(request);
    let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn members_of_the_group_have_its_role_by_the_kernels_word() {
    if !crate::can_be_somebody_else() {
        return;
    }
    ["setpriv", "curl"].into_iter().for_each(crate::needs);
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("swarmd.sock");
    let socket = Socket::bind(&path, Some(GroupAccess { gid: 47_474, role: Role::Submitter })).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.gid(), meta.uid()), (0o660, 47_474, 0));
    let table = Table::new();
    tokio::spawn(swarm_api::serve(socket, Arc::new(table.clone()), std::future::pending()));
    let status = ["http://x/v1/status"];
    let resign = ["-X", "POST", "http://x/v1/leader/resign"];
    let submit = ["-d", "{\"id\":\"1\",\"noop\":true}", "http://x/v1/submit"];
    assert_eq!(curl(&path, &[], &status).await, "000", "the file lets nobody else connect");
    assert!(curl(&path, &["47474"], &status).await.ends_with("200"));
    assert!(curl(&path, &["100", "47474"], &submit).await.ends_with("200"));
    assert_eq!(table.0.state().heard[0], Caller { name: "local:65534".into(), role: Role::Submitter, how: How::Local });
    let denied = curl(&path, &["47474"], &resign).await;
    assert!(denied.ends_with("403") && denied.contains("this needs an operator"), "{denied}");
    // as if somebody had opened the file to all
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let denied = curl(&path, &["100"], &status).await;
    assert!(denied.ends_with("403") && denied.contains("the socket's mode was changed"), "{denied}");
}
