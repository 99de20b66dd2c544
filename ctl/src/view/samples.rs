//! One of everything, for snapshots.

use std::collections::BTreeMap;

use swarm_proto::{
    AttemptNo, ClusterId, Cursor, Digest, Fence, JobId, LogIndex, NodeId, TaskId, Term, UnixMillis,
    api::{
        Explain, Health, JobOutcome, JobView, LeaderView, MeshStatus, NodeReason, NodeView, Origin, OutputView, PeerStatus, Phase, Reason,
        SpecView, Stats, Status, TaskView, Text, Verdict,
    },
    ledger::{Addrs, Counts, End, Event, Schedule, TaskState, What},
    manifest::Tree,
    peer::Load,
    spec::{Cause, Durability, OnPartition, Resources},
};

use crate::output::{Format, Look, Table, View};

const NOW: UnixMillis = UnixMillis(1_717_243_200_000);

pub(crate) fn look(is_wide: bool) -> Look {
    Look { is_wide, now: NOW }
}

pub(crate) fn shown_list<V: View>(list: &[V], format: Format) -> String {
    let is_wide = format == Format::Wide;
    let mut table = Table::new(&V::columns(is_wide));
    list.iter().for_each(|item| table.add(item.row(look(is_wide))));
    table.render(false)
}

pub(crate) fn shown_card<V: View>(item: &V) -> String {
    item.card(look(false)).render(false)
}

fn ago(seconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 - seconds * 1000)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn tree(files: u32) -> Tree {
    Tree { manifest: Digest([0xa7; 32]), files, bytes: 4_711 }
}

fn counts(succeeded: u64, failed: u64, assigned: u64, pending: u64) -> Counts {
    Counts { pending, assigned, succeeded, failed, cancelled: 0, lost: 0 }
}

pub(crate) fn jobs() -> Vec<JobView> {
    let spec = SpecView {
        kind: "exec".into(),
        argv: ["sh", "-c", "sha256sum \"{}\" && wc -l \"{}\" # for every file of it"].map(String::from).to_vec(),
        env: map(&[("LANG", "C")]),
        needs: Resources { milli_cores: 500, memory: 512 << 20, disk: 1 << 30, gpus: 1, named: BTreeMap::from([("licence".into(), 2)]) },
        labels: map(&[("os", "linux"), ("zone", "attic")]),
        timeout_ms: Some(30_000),
        retries: BTreeMap::from([(Cause::Exit, 3), (Cause::NodeLost, 5)]),
        on_partition: OnPartition::Stop,
        at_most_once: true,
        durability: Durability::Majority,
        inputs: None,
        each: None,
        outputs: Vec::new(),
    };
    let array = JobView {
        job: JobId(17),
        name: None,
        submitter: "local".into(),
        submitted: ago(75),
        ended: None,
        state: None,
        counts: counts(412, 2, 16, 570),
        reruns: 4,
        retry_of: Some(JobId(9)),
        key: Some("2024-06-01".into()),
        is_array: true,
        first: 0,
        tasks: 1000,
        spec: spec.clone(),
    };
    let plain = SpecView {
        kind: "noop".into(),
        argv: vec![],
        env: BTreeMap::new(),
        needs: Resources::default(),
        labels: BTreeMap::new(),
        timeout_ms: None,
        retries: BTreeMap::new(),
        on_partition: OnPartition::Replace,
        at_most_once: false,
        durability: Durability::Async,
        inputs: None,
        each: None,
        outputs: Vec::new(),
    };
    let done = JobView {
        job: JobId(2),
        name: Some("night run".into()),
        submitted: ago(90_000),
        ended: Some(ago(80_000)),
        state: Some(TaskState::Failed),
        counts: counts(0, 1, 0, 0),
        reruns: 0,
        retry_of: None,
        key: None,
        is_array: false,
        tasks: 1,
        spec: plain,
        ..array.clone()
    };
    let waiting = JobView { job: JobId(1), counts: counts(0, 0, 0, 1), tasks: 1, is_array: false, ..array.clone() };
    vec![array, done, waiting]
}

pub(crate) fn outcome() -> JobOutcome {
    JobOutcome { job: JobId(17), state: TaskState::Failed, counts: counts(998, 2, 0, 0), reruns: 1, task: None }
}

pub(crate) fn tasks() -> Vec<TaskView> {
    let ended = TaskView {
        task: TaskId { job: JobId(17), index: 3 },
        state: TaskState::Failed,
        running: false,
        attempt: AttemptNo(2),
        fence: Some(Fence { index: LogIndex(120), attempt: AttemptNo(2) }),
        node: Some(NodeId(3)),
        end: Some(End::Exit(3)),
        started: Some(ago(10)),
        ended: Some(UnixMillis(ago(10).0 + 1_250)),
        output: Some(OutputView {
            stdout: Text::Utf8("line one\nline \u{1b}[31mtwo\n".into()),
            stderr: Text::Base64("/w==".into()),
            stdout_len: 4096,
            stderr_len: 1,
            stdout_blob: None,
            files: None,
        }),
        item: Some("src/main.rs".into()),
    };
    let open = TaskView { end: None, started: None, ended: None, output: None, item: None, ..ended.clone() };
    let index = |index| TaskId { job: JobId(17), index };
    vec![
        ended.clone(),
        TaskView { task: index(4), state: TaskState::Assigned, running: true, started: Some(ago(61)), ..open.clone() },
        TaskView { task: index(5), state: TaskState::Assigned, ..open.clone() },
        TaskView { task: index(6), state: TaskState::Pending, attempt: AttemptNo(0), fence: None, node: None, ..open.clone() },
        TaskView {
            task: index(7),
            end: Some(End::Spawn("No such file or directory (os error 2) about a rather long path".into())),
            output: None,
            ..ended.clone()
        },
        TaskView { task: index(8), state: TaskState::Lost, end: Some(End::Lost), ..ended.clone() },
        TaskView { task: index(9), state: TaskState::Succeeded, end: Some(End::Succeeded), ..ended },
    ]
}

fn addrs(host: u8) -> Addrs {
    Addrs { control: ([100, 64, 0, host], 4747).into(), bulk: ([100, 64, 0, host], 4748).into() }
}

pub(crate) fn nodes() -> Vec<NodeView> {
    let load = Load { disk_free: 900 << 30, memory_free: 12 << 30, milli_load: 1_250, running: 3, waiting: 1, window: 16 };
    let first = NodeView {
        node: NodeId(1),
        name: "server".into(),
        health: Health::Alive,
        is_leader: true,
        is_voter: true,
        may_vote: true,
        schedule: Schedule::Open,
        addrs: addrs(1),
        software: "0.1.0".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        capacity: Resources { milli_cores: 16_000, memory: 32 << 30, disk: 1 << 40, gpus: 1, named: BTreeMap::new() },
        labels: map(&[("arch", "x86_64"), ("os", "linux"), ("zone", "attic")]),
        executors: vec!["exec".into(), "noop".into()],
        load: Some(load),
        assigned: 4,
        running: 3,
        key: "a7".repeat(32),
    };
    let second = NodeView {
        node: NodeId(2),
        name: "pi4".into(),
        is_leader: false,
        schedule: Schedule::Draining,
        addrs: addrs(2),
        arch: "aarch64".into(),
        capacity: Resources { milli_cores: 3_500, memory: 4 << 30, ..Resources::default() },
        load: None,
        ..first.clone()
    };
    let third =
        NodeView { node: NodeId(3), name: "laptop".into(), health: Health::Down, is_voter: false, is_leader: false, ..second.clone() };
    vec![first, second, third]
}

pub(crate) fn leader() -> LeaderView {
    LeaderView {
        node: NodeId(1),
        name: "server".into(),
        term: Term(4),
        voters: vec![NodeId(1), NodeId(2)],
        standbys: vec![],
        warning: "two nodes have one voter".into(),
    }
}

pub(crate) fn status() -> Status {
    let peer = |node, name: &str, health, connected, rtt_us| PeerStatus {
        node: NodeId(node),
        name: name.into(),
        health,
        addr: ([100, 64, 0, 2], 4747).into(),
        connected,
        rtt_us,
        mtu: rtt_us.map(|_| 1_252),
        software: "0.1.0".into(),
        found: if connected { Origin::Tailscale } else { Origin::Remembered },
    };
    Status {
        node: Some(NodeId(1)),
        phase: Phase::Ready,
        leader: Some(NodeId(1)),
        term: Term(4),
        is_voter: true,
        log_index: LogIndex(1_234),
        peers: vec![peer(2, "pi4", Health::Alive, true, Some(1_234)), peer(3, "laptop", Health::Down, false, None)],
        datagrams_a_call: 64,
        up_ms: 3_700_000,
        preset: "wan".into(),
        mesh: MeshStatus {
            kind: "tailscale".into(),
            interface: Some("tailscale0".into()),
            address: Some([100, 64, 0, 1].into()),
            ..MeshStatus::default()
        },
        ..Status::new("server".into(), "0.1.0".into(), ClusterId([7; 16]), addrs(1))
    }
}

pub(crate) fn stats() -> Stats {
    Stats {
        nodes: 3,
        nodes_online: 2,
        nodes_busy: 1,
        nodes_by_label: BTreeMap::from([("os=linux".into(), 2), ("zone=attic".into(), 1)]),
        tasks_pending: 570,
        tasks_assigned: 16,
        tasks_running: 12,
        tasks_succeeded: 412,
        tasks_failed: 2,
        tasks_cancelled: 0,
        tasks_lost: 0,
        success_rate: Some(412.0 / 414.0),
        throughput: 41.25,
        jobs_open: 1,
        jobs_ended: 16,
        results_refused: 1,
        leader: Some(NodeId(1)),
        term: Term(4),
        log_index: LogIndex(1_234),
    }
}

pub(crate) fn explain() -> Explain {
    let node = |node, name: &str, reason| NodeReason { node: NodeId(node), name: name.into(), reason };
    let label = |has: Option<&str>| Reason::Label { key: "gpu".into(), want: "3090".into(), has: has.map(String::from) };
    Explain {
        task: TaskId { job: JobId(17), index: 3 },
        state: TaskState::Pending,
        verdict: Verdict::NobodyCan,
        nodes: vec![
            node(1, "a", Reason::Fits),
            node(2, "b", Reason::NotAlive(Health::Down)),
            node(3, "c", Reason::NotConnected),
            node(4, "d", Reason::Cordoned),
            node(5, "e", Reason::Draining),
            node(6, "f", Reason::ExecutorOff { executor: "exec".into() }),
            node(7, "g", label(None)),
            node(8, "h", label(Some("2080"))),
            node(9, "i", Reason::TooSmall { resource: "milli_cores".into(), need: 8_000, has: 3_500 }),
            node(10, "j", Reason::Full { resource: "memory".into(), need: 8 << 30, free: 1 << 30 }),
            node(11, "k", Reason::Full { resource: "licence".into(), need: 2, free: 1 }),
            node(12, "l", Reason::WindowFull { window: 16 }),
            node(13, "m", Reason::NotAlive(Health::Unknown)),
        ],
        ahead: 570,
        inputs: vec![],
        files: None,
    }
}

pub(crate) fn events() -> Vec<Event> {
    let (job, node, attempt) = (JobId(17), NodeId(3), AttemptNo(2));
    let task = TaskId { job, index: 3 };
    let all = [
        What::LeaderElected { node, term: Term(4) },
        What::JobSubmitted { job, tasks: 1 },
        What::JobSubmitted { job, tasks: 1000 },
        What::TasksAssigned { job, first: 3, count: 1, attempt, node },
        What::TasksAssigned { job, first: 0, count: 16, attempt, node },
        What::TaskEnded { task, state: TaskState::Succeeded, attempt, node: Some(node) },
        What::TaskEnded { task, state: TaskState::Cancelled, attempt, node: None },
        What::TaskRetried { task, attempt, cause: Cause::NodeLost },
        What::ResultRefused { task, attempt },
        What::JobEnded { job, counts: counts(998, 2, 0, 0) },
        What::NodeAdmitted { node, name: "pi4".into() },
        What::NodeScheduled { node, to: Schedule::Draining },
        What::NodeLeft { node },
        What::VotersChanged { voters: vec![NodeId(1), NodeId(3)] },
        What::ProtocolRaised { protocol: 2 },
    ];
    let event = |(sub, what)| Event { cursor: Cursor { index: LogIndex(120), sub }, at: NOW, what };
    (0..).zip(all).map(event).collect()
}
