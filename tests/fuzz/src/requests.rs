//! Requests as clients send them: their paths, queries and headers, and what the daemon is asked for by them.

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use swarm_api::fuzzing::{self, Asked};
use swarm_proto::{
    Problem,
    access::{self, Operation},
    api::{BlobCall, Call, CollectRequest, HostCall, PushRequest},
    http::{RetryRequest, SetRequest},
    peer::Target,
};

use crate::input::Input;

/// The size of every blob, then the lines of a head, an empty one, and a body.
pub(crate) fn requests(bytes: &[u8]) {
    let mut input = Input(bytes);
    let size = input.number();
    let Some(request) = read(input.rest()) else { return };
    door(&request);
    let method = request.method().clone();
    let (answer, asked) = fuzzing::request(request, size);
    if method != Method::HEAD && (answer.status().is_client_error() || answer.status().is_server_error()) {
        let problem = serde_json::from_slice::<Problem>(answer.body());
        assert!(problem.is_ok(), "{} is no problem: {}", answer.status(), String::from_utf8_lossy(answer.body()));
    }
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        part(&answer, size);
    }
    let Some(last) = asked.last() else { return };
    let again = fuzzing::request(written(last).request(), size).1;
    assert_eq!(again.last(), Some(last), "a request that changes");
}

fn read(text: &[u8]) -> Option<Request<Vec<u8>>> {
    let (mut rest, mut request) = (text, Request::builder());
    let line = next(&mut rest)?;
    let (method, uri) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
    request = request.method(method).uri(&uri[1..]);
    while let Some(line) = next(&mut rest).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
        request = request.header(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?);
    }
    request.body(rest.to_vec()).ok()
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let all = *rest;
    let end = all.iter().position(|byte| *byte == b'\n').unwrap_or(all.len());
    *rest = all.get(end + 1..).unwrap_or_default();
    (!all.is_empty()).then(|| &all[..end])
}

/// What comes over the mesh is looked at before it is known who asks.
fn door(request: &Request<Vec<u8>>) {
    let headers = request.headers();
    if fuzzing::passes_the_door(request) {
        assert!(!headers.contains_key(header::ORIGIN), "another origin is let in");
        assert!(headers.contains_key(header::HOST), "a request without a name is let in");
    }
    if let Some(token) = headers.get(header::AUTHORIZATION).and_then(fuzzing::token) {
        let again = HeaderValue::try_from(format!("Bearer {token}")).expect("a token is plain text");
        assert_eq!(fuzzing::token(&again), Some(token), "a token that changes");
    }
}

/// What is said of a part is true of a blob of that size.
fn part(answer: &Response<Vec<u8>>, size: u64) {
    let said = |name: HeaderName| answer.headers()[name].to_str().expect("digits").to_owned();
    let range = said(header::CONTENT_RANGE);
    let (range, all) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).expect("a part of all");
    let (first, last) = range.split_once('-').expect("from, to");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let (first, last) = (number(first), number(last));
    assert!(number(all) == size && first <= last && last < size, "{range} of {size}");
    assert_eq!(number(&said(header::CONTENT_LENGTH)), last - first + 1);
}

/// A request as a client of ours would make it.
struct Written {
    operation: Operation,
    id: String,
    query: String,
    head: Option<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Written {
    fn request(self) -> Request<Vec<u8>> {
        let path = self.operation.path().replace("{id}", &self.id);
        let request = Request::builder().method(self.operation.method().word()).uri(format!("{path}?{}", self.query));
        let request = self.head.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.body(self.body).unwrap_or_else(|why| panic!("{why} in {path}?{}", self.query))
    }

    fn to(operation: Operation) -> Self {
        Self { operation, id: String::new(), query: String::new(), head: None, body: Vec::new() }
    }

    fn of(operation: Operation, id: impl ToString) -> Self {
        let escape = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        Self { id: id.to_string().bytes().map(escape).collect(), ..Self::to(operation) }
    }

    fn with(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.query += &format!("{name}={}&", value.to_string());
        }
        self.query.truncate(self.query.trim_end_matches('&').len() + usize::from(self.query.ends_with('&')));
        self
    }

    fn header(self, name: HeaderName, value: Option<impl ToString>) -> Self {
        Self { head: value.map(|value| (name, value.to_string())), ..self }
    }

    fn body(self, body: &impl Serialize) -> Self {
        Self { body: serde_json::to_vec(body).expect("plain data"), ..self }
    }
}

/// One word of JSON without its quotes.
fn word(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a word").trim_matches('"').to_owned()
}

fn written(asked: &Asked) -> Written {
    match asked {
        Asked::Call(call) => of_call(call),
        Asked::Submit => Written::to(Operation::Submit),
        Asked::Follow(Target::Job(job)) => Written::of(Operation::FollowJob, job),
        Asked::Follow(Target::Task(task)) => Written::of(Operation::FollowTask, task),
        Asked::Events(after) => {
            Written::to(Operation::ReadEvents).with("follow", Some(1)).header(HeaderName::from_static("last-event-id"), Some(after))
        }
        Asked::Output { task, which, follow } => {
            Written::of(Operation::ReadLogs, task).with("stream", Some(word(which))).with("follow", Some(u8::from(*follow)))
        }
        Asked::NodeEvents(after) => Written::to(Operation::NodeEvents).with("after", Some(after)),
        Asked::Status => Written::to(Operation::ShowStatus),
        Asked::Host(HostCall::Init(choices)) => Written::to(Operation::InitMesh).body(choices),
        Asked::Host(HostCall::Join(request)) => Written::to(Operation::JoinMesh).body(request),
        Asked::Host(HostCall::Leave) => Written::to(Operation::LeaveMesh),
        Asked::Put { size, encrypt } => {
            Written::to(Operation::PutBlob).with("encrypt", Some(encrypt)).header(header::CONTENT_LENGTH, size.as_ref())
        }
        Asked::Read { digest, part } => {
            let last = if part.end == u64::MAX { String::new() } else { (part.end - 1).to_string() };
            Written::of(Operation::ReadBlob, digest).header(header::RANGE, Some(format!("bytes={}-{last}", part.start)))
        }
        Asked::Bring { digest, to: None } => Written::of(Operation::FetchBlob, digest),
        Asked::Bring { digest, to: Some(to) } => Written::of(Operation::PushBlob, digest).body(&PushRequest { to: to.clone() }),
        Asked::Blob(BlobCall::Pin(digest)) => Written::of(Operation::PinBlob, digest),
        Asked::Blob(BlobCall::Unpin(digest)) => Written::of(Operation::UnpinBlob, digest),
        Asked::Blob(BlobCall::Verify(digest)) => Written::of(Operation::VerifyBlob, digest),
        Asked::Blob(BlobCall::Collect { keep }) => Written::to(Operation::Collect).body(&CollectRequest { keep: *keep }),
        Asked::Blob(BlobCall::Store) => Written::to(Operation::ShowStore),
    }
}

fn of_call(call: &Call) -> Written {
    let operation = Operation::of(call);
    let to = Written::to(operation);
    match call {
        Call::Jobs { before, limit, open_only } => {
            to.with("before", before.as_ref()).with("limit", Some(limit)).with("state", Some(if *open_only { "open" } else { "any" }))
        }
        Call::Tasks { job, state, after, limit } => {
            let to = to.with("job", job.as_ref()).with("state", state.as_ref().map(word));
            to.with("after", after.as_ref()).with("limit", Some(limit))
        }
        Call::Events { after, limit } => to.with("after", after.as_ref()).with("limit", Some(limit)),
        Call::Blobs { after, limit } => to.with("after", after.as_ref()).with("limit", Some(limit)),
        Call::Job { job } | Call::CancelJob { job } => Written::of(operation, job),
        Call::Task { task } | Call::Explain { task } | Call::CancelTask { task } => Written::of(operation, task),
        Call::RetryJob { job, key } => Written::of(operation, job).body(&RetryRequest { key: key.clone() }),
        Call::RetryTask { task, key } => Written::of(operation, task).body(&RetryRequest { key: key.clone() }),
        Call::Node { node } | Call::Schedule { node, to: _ } | Call::Revoke { node } => Written::of(operation, node),
        Call::RevokeToken { token } => Written::of(operation, token),
        Call::RevokeUser { name } => Written::of(operation, name),
        Call::Blob { digest } => Written::of(operation, digest),
        Call::Set { key, value } => Written::of(operation, key).body(&SetRequest { value: value.clone() }),
        Call::CreateToken(request) => to.body(request),
        Call::CreateUser(request) => to.body(request),
        Call::CreatePass(request) => to.body(request),
        Call::RotateCa(request) => to.body(request),
        Call::Nodes | Call::Leader | Call::Resign | Call::Stats | Call::Tokens | Call::Users | Call::Authorities | Call::Settings => to,
        Call::Leave { node } => panic!("a request makes {node} leave"),
    }
}

/// Requests of every operation, with an id that each of them can take.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let of = |operation: &Operation| {
        let id = match operation.path().split('/').nth(2) {
            Some("jobs") => "j17",
            Some("tasks") => "j17.3",
            Some("tokens") => "0123456789abcdef",
            Some("blobs") => "abababababababababababababababababababababababababababababababab",
            Some(_) | None => "pi%20two",
        };
        format!("{} {}", operation.method().word(), operation.path().replace("{id}", id))
    };
    let plain = access::Operation::ALL.iter().map(|operation| of(operation) + "\n\n{}");
    let told = [
        "GET /v1/jobs?before=j44&limit=3&state=open",
        "GET /v1/jobs/j17?wait=1.5",
        "GET /v1/tasks?job=j17&state=failed&after=j17.3&limit=1000",
        "GET /v1/tasks/j17.3/logs?follow=1&stream=stderr&raw=1",
        "GET /v1/events?after=4.1&limit=9\nlast-event-id: 120.0\naccept: application/json",
        "GET /v1/events?follow\nlast-event-id: 120.2\naccept: text/event-stream",
        "GET /v1/node-events?after=7",
        "GET /v1/blobs?after=abababababababababababababababababababababababababababababababab",
        "POST /v1/blobs?encrypt=true\ncontent-length: 5\n\nbytes",
        "GET /v1/blobs/abababababababababababababababababababababababababababababababab/bytes\nrange: bytes=2-5",
        "GET /v1/blobs/abababababababababababababababababababababababababababababababab/bytes\nrange: bytes=0-",
        "HEAD /v1/blobs/abababababababababababababababababababababababababababababababab/bytes",
        "POST /v1/blobs/abababababababababababababababababababababababababababababababab/push\n\n{\"to\":[\"all\"]}",
        "POST /v1/jobs/j17/retry\nhost: [fd00::1]:4749\ncontent-type: application/json; charset=utf-8\n\n{\"key\":\"k\"}",
        "POST /v1/submit\nhost: pi\ncontent-type: application/x-ndjson\nexpect: 100-continue\n\n{\"id\":\"a\",\"argv\":[\"true\"]}\n",
        "POST /v1/users\nhost: swarm\n\n{\"name\":\"ann\",\"role\":\"observer\"}",
        "GET /v1/status\nhost: evil.example\norigin: https://evil.example\nsec-fetch-site: cross-site",
        "DELETE /v1/jobs/j17",
    ];
    plain.chain(told.map(str::to_owned)).map(|text| [&[10], text.as_bytes()].concat()).collect()
}
