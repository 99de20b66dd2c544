//! Bytes as commands about few things, so that they meet.

use std::sync::Arc;

use swarm_core::ledger::Ledger;
use swarm_proto::{
    AttemptNo, ClusterId, Digest, Fence, JobId, LogIndex, Millis, NodeId, PeerKey, RaftDir, TaskId, Term, TokenId, UnixMillis,
    access::Role,
    admission::Rule,
    identity::{Applicant, Authority, Change, Enroll, Found, Invite, Kind, NewToken, NodeRole, Secret, Step, Warrant},
    ledger::{Addrs, Admit, Assign, Command, End, Finish, JobRef, Outcome, Output, Recorded, RecordedTask, Schedule, Submit, TaskState},
    settings::Set,
    spec::{Array, Cause, Durability, Exec, JobSpec, OnPartition, Work},
    token::root_id,
};

use crate::input::Input;

const USERS: [&str; 4] = ["ann", "bob", "carol", "local"];
const NAMES: [&str; 5] = ["pi", "n2", "desk", "pi-2", ""];

/// A swarm with a node in it.
pub(crate) fn beginning() -> Vec<Command> {
    let first = [1, 2, 3, 4].map(|key| PeerKey([key; 32])).into();
    let found = Found { cluster: ClusterId([1; 16]), nodes: authority(0), users: authority(100), first };
    let lead = Command::Lead { node: NodeId(1), term: Term(1) };
    vec![Command::Identity(Box::new(Change::Found(found))), Command::Admit(admit(1, 1, "pi")), Command::Admit(admit(2, 2, "desk")), lead]
}

/// Later, mostly; a clock may be wrong in any way.
pub(crate) fn clock(at: u64, input: &mut Input<'_>) -> u64 {
    match input.below(8) {
        0 => at.saturating_add(3_600_000 * u64::from(input.byte())),
        1 => at.saturating_sub(1_000),
        2 => input.number(),
        _ => at.saturating_add(1),
    }
}

pub(crate) fn command(input: &mut Input<'_>, ledger: &Ledger) -> Command {
    match input.below(27) {
        0 => Command::Lead { node: node(input), term: Term(input.number()) },
        1..=5 => submit(input),
        6..=9 => {
            let job = if input.chance(3) { JobRef::InBatch(input.number() as u32) } else { JobRef::Known(job(input, ledger)) };
            Command::Assign(Assign { job, first: index(input), count: input.number() as u32, node: node(input) })
        }
        10..=13 => {
            let (task, fence) = attempt(input, ledger);
            Command::Finish(Finish { task, fence, outcome: outcome(input) })
        }
        14 => {
            let (task, fence) = attempt(input, ledger);
            Command::Lose { task, fence, cause: Cause::ALL[input.below(Cause::ALL.len())] }
        }
        15 => Command::CancelJob { job: job(input, ledger) },
        16 => Command::CancelTask { task: attempt(input, ledger).0 },
        17 => Command::Admit(admit(input.byte() % 8, input.byte() % 8, NAMES[input.below(NAMES.len())])),
        18 => Command::Schedule { node: node(input), to: [Schedule::Open, Schedule::Cordoned, Schedule::Draining][input.below(3)] },
        19 => Command::Leave { node: node(input) },
        // a ledger that is raised to what this version does not know is not for it to read
        20 => Command::Raise { protocol: [0, 1, 3][input.below(3)] },
        21 => Command::Set(set(input)),
        22 => Command::Reserve { count: input.number() as u32 },
        23 | 24 => Command::Record(Box::new(recorded(input, ledger))),
        _ => Command::Identity(Box::new(change(input))),
    }
}

/// A number that was reserved perhaps, and mostly as many ends as tasks.
fn recorded(input: &mut Input<'_>, ledger: &Ledger) -> Recorded {
    let Command::Submit(mut submit) = submit(input) else { unreachable!("that is what it makes") };
    let spec = JobSpec { durability: [Durability::Async, Durability::Majority][usize::from(input.chance(8))], ..(*submit.spec).clone() };
    submit.spec = Arc::new(spec);
    let job = JobId(ledger.next_number().0.wrapping_sub(input.below(9) as u64));
    let count = (submit.array.count as usize).min(64).saturating_sub(usize::from(input.chance(16)));
    let states = [TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled, TaskState::Lost, TaskState::Assigned];
    let end = |input: &mut Input<'_>| RecordedTask {
        state: states[usize::from(input.byte()).checked_sub(4).map_or(4, |n| n % 4)],
        fence: Fence { index: LogIndex(input.number()), attempt: AttemptNo(u32::from(input.byte())) },
        node: node(input),
        is_reported: input.chance(2),
        outcome: (!input.chance(4)).then(|| outcome(input)),
    };
    let tasks = (0..count).map(|_| end(input)).collect();
    Recorded { job, submit, submitted: UnixMillis(input.number()), ended: UnixMillis(input.number()), tasks }
}

fn node(input: &mut Input<'_>) -> NodeId {
    NodeId(input.below(9) as u64)
}

fn index(input: &mut Input<'_>) -> u32 {
    match input.below(8) {
        0 => input.number() as u32,
        small => small as u32 - 1,
    }
}

fn job(input: &mut Input<'_>, ledger: &Ledger) -> JobId {
    let known: Vec<JobId> = ledger.jobs().map(|job| job.id()).collect();
    match input.below(8) {
        0 => JobId(input.number()),
        _ => input.pick(&known).unwrap_or_default(),
    }
}

/// A task, and the fence that it has now or one beside it.
pub(crate) fn attempt(input: &mut Input<'_>, ledger: &Ledger) -> (TaskId, Fence) {
    let held: Vec<(TaskId, Fence)> = ledger.nodes().flat_map(|node| ledger.assigned_to(node.id)).take(64).collect();
    let (task, fence) = if input.chance(4) { None } else { input.pick(&held) }.unwrap_or_else(|| {
        let task = TaskId { job: job(input, ledger), index: index(input) };
        (task, Fence { index: LogIndex(input.number()), attempt: AttemptNo(input.number() as u32) })
    });
    match input.below(12) {
        0 => (task, Fence { index: LogIndex(fence.index.0.wrapping_sub(1)), ..fence }),
        1 => (task, Fence { attempt: AttemptNo(fence.attempt.0.wrapping_add(1)), ..fence }),
        _ => (task, fence),
    }
}

fn submit(input: &mut Input<'_>) -> Command {
    let mut spec = JobSpec::new(match input.below(3) {
        0 => Work::Exec(Exec { argv: vec!["true".into()], env: Default::default(), stdin: input.take(3).to_vec().into(), cwd: None }),
        _ => Work::Noop,
    });
    for _ in 0..input.below(4) {
        spec.retries = spec.retries.with(Cause::ALL[input.below(Cause::ALL.len())], input.number() as u16);
    }
    spec.at_most_once = input.chance(4);
    spec.on_partition = [OnPartition::Replace, OnPartition::Stop, OnPartition::Wait][input.below(3)];
    spec.name = input.chance(4).then(|| "x".repeat(input.below(200)));
    let items: Vec<String> = if input.chance(4) { (0..input.below(6)).map(|n| "i".repeat(n)).collect() } else { Vec::new() };
    let array = match input.below(4) {
        0 | 1 => Array::single(),
        2 => Array { first: index(input), count: input.byte().into(), is_array: true, items },
        _ => Array { first: input.number() as u32, count: input.number() as u32, is_array: input.chance(2), items },
    };
    Command::Submit(Submit {
        submitter: USERS[input.below(USERS.len())].into(),
        key: input.chance(3).then(|| format!("key {}", input.below(8))),
        spec: Arc::new(spec),
        array,
        retry_of: input.chance(6).then(|| JobId(input.number())),
    })
}

/// Of what a task said: more than may be kept of it, and little enough for as many as a batch has here.
fn length(input: &mut Input<'_>) -> usize {
    input.number() as usize % 4_096
}

pub(crate) fn outcome(input: &mut Input<'_>) -> Outcome {
    let end = match input.below(12) {
        0 => End::Exit(input.word().cast_signed()),
        1 => End::Signal(9),
        2 => End::Timeout,
        3 => End::Spawn("é".repeat(length(input))),
        4 => End::Refused("no".into()),
        5 => End::Cancelled,
        6 => End::Lost,
        7 => End::Input("gone".into()),
        8 => End::Output("none".into()),
        _ => End::Succeeded,
    };
    let output = input.chance(3).then(|| {
        let stdout = vec![b'x'; length(input)];
        let stdout_blob = input.chance(4).then_some(Digest([4; 32]));
        Box::new(Output {
            stdout_len: stdout.len() as u64,
            stdout: stdout.into(),
            stdout_blob,
            stderr_len: input.number(),
            ..Output::default()
        })
    });
    Outcome { end, started: UnixMillis(input.number()), ended: UnixMillis(input.number()), output }
}

fn admit(key: u8, raft: u8, name: &str) -> Admit {
    let at = |port| ([127, 0, 0, 1], port).into();
    Admit {
        key: PeerKey([key; 32]),
        raft: RaftDir([raft; 16]),
        name: name.into(),
        addrs: Addrs { control: at(4747), bulk: at(4748) },
        may_vote: key.is_multiple_of(2),
    }
}

fn set(input: &mut Input<'_>) -> Set {
    let key = ["log.level", "mesh.preset", "mesh.admit", "mesh.certificate_life", "node.name"][input.below(5)];
    let value = [None, Some("info"), Some("lan"), Some("wan"), Some("tag:swarm"), Some("24h"), Some("nothing")][input.below(7)];
    Set { key: key.into(), value: value.map(str::to_owned), by: "ann".into() }
}

fn authority(seed: u8) -> Authority {
    Authority { certificate: vec![seed; 40].into(), key: Secret(vec![seed; 48].into()) }
}

fn kind(input: &mut Input<'_>) -> Kind {
    if input.chance(2) { Kind::User } else { Kind::Node }
}

fn change(input: &mut Input<'_>) -> Change {
    let user = |input: &mut Input<'_>| USERS[input.below(USERS.len())].to_owned();
    let role = |input: &mut Input<'_>| Role::ALL[input.below(Role::ALL.len())];
    let root = |input: &mut Input<'_>| root_id(&authority(input.byte() % 4).certificate);
    match input.below(16) {
        0 => Change::Found(Found { cluster: ClusterId([2; 16]), nodes: authority(0), users: authority(1), first: Vec::new() }),
        1..=3 => token(input),
        4 => Change::RevokeToken { token: TokenId([input.byte() % 6; 8]) },
        5..=7 => enroll(input),
        8 => Change::Step { node: node(input), step: [Step::Registered, Step::Welcomed, Step::Synced, Step::Ready][input.below(4)] },
        9 => Change::Revoke { node: node(input) },
        10 => Change::SetUser { name: user(input), role: role(input) },
        11 => Change::RevokeUser { name: user(input) },
        12 | 13 => Change::AddRoot { kind: kind(input), authority: authority(input.byte() % 4) },
        14 => Change::DropRoot { kind: kind(input), root: root(input) },
        _ => Change::Issued { node: node(input), root: root(input) },
    }
}

fn token(input: &mut Input<'_>) -> Change {
    let name = USERS[input.below(USERS.len())].to_owned();
    let labels = || [("zone".to_owned(), "attic".to_owned())].into();
    let invite = match input.below(3) {
        0 => Invite::User { name },
        1 => Invite::Pass { user: name, role: Role::ALL[input.below(Role::ALL.len())] },
        _ => Invite::Node {
            role: if input.chance(2) { NodeRole::Worker } else { NodeRole::Voter },
            name: input.chance(3).then(|| NAMES[input.below(NAMES.len())].into()),
            labels: if input.chance(3) { labels() } else { Default::default() },
        },
    };
    let id = input.byte() % 6;
    let life = Millis(input.number().saturating_mul(60_000));
    let key = Secret(vec![id; 32].into());
    Change::CreateToken(NewToken { id: TokenId([id; 8]), key, invite, uses: input.number() as u32, life, by: "ann".into() })
}

fn enroll(input: &mut Input<'_>) -> Change {
    let by = if input.chance(4) { Warrant::Tailnet(Rule::Tag("tag:swarm".into())) } else { Warrant::Token(TokenId([input.byte() % 6; 8])) };
    let who = if input.chance(2) {
        let labels = if input.chance(2) { [("zone".to_owned(), "attic".to_owned())].into() } else { Default::default() };
        Applicant::Node { admit: admit(input.byte() % 9, input.byte() % 9, NAMES[input.below(NAMES.len())]), labels }
    } else {
        Applicant::User { key: PeerKey([input.byte() % 9; 32]) }
    };
    Change::Enroll(Enroll { by, who })
}
