//! What peers, logs and keepers say.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use swarm_consensus::fuzzing as consensus;
use swarm_proto::{
    AttemptNo, ClusterId, Code, Cursor, Digest, Fence, JobId, LogIndex, Millis, NodeId, PROTOCOL, PeerKey, Problem, RaftDir, RootId,
    TaskId, Term, TokenId, UnixMillis,
    api::{Call, Reply},
    blob::{BlobAnswer, BlobNews, BlobPart, BlobRequest, BringRequest, Claim, SegmentRange},
    gossip::{self, Head, Kind, Mood, Update, Writer, You},
    identity::{self, Applicant, EnrollAnswer, Petition, Renewed, Roots},
    ledger::{
        Addrs, Admit, Assign, Batch, Command, End, Event, Finish, Grant, JobRef, NodeRecord, Outcome, Output, Schedule, Submit, View, What,
    },
    manifest::Tree,
    peer::{
        Answer, EventPage, FromSubmitDesk, FromWorker, GrantedJob, Hello, Holding, Joined, Load, NodeMeta, Numbered, Open, OutputChunk,
        OutputRequest, Owing, Report, Stream, Target, ToSubmitDesk, ToWorker, Which,
    },
    spec::{Array, Cause, Exec, JobSpec, Resources, Work},
};

use super::{encoded, kind, piece};
use crate::certificate::ours;

const TASK: TaskId = TaskId { job: JobId(7), index: 3 };
const FENCE: Fence = Fence { index: LogIndex(300), attempt: AttemptNo(2) };

fn addrs() -> Addrs {
    ours().addrs
}

fn spec() -> JobSpec {
    let exec = Exec {
        argv: vec!["sha256sum".into(), "{}".into()],
        env: [("LANG".into(), "C".into())].into(),
        stdin: b"text".to_vec().into(),
        cwd: None,
    };
    JobSpec {
        name: Some("sums".into()),
        needs: Resources { milli_cores: 500, memory: 1 << 29, named: [("port".into(), 1)].into(), ..Resources::default() },
        labels: [("os".into(), "linux".into())].into(),
        timeout: Some(Millis(30_000)),
        outputs: vec!["out/{}".into()],
        inputs: Some(tree()),
        ..JobSpec::new(Work::Exec(exec))
    }
}

const fn tree() -> Tree {
    Tree { manifest: Digest([9; 32]), files: 5, bytes: 11 }
}

fn submit() -> Submit {
    let array = Array { first: 5, count: 2, is_array: true, items: vec!["a".into(), "b".into()] };
    Submit { submitter: "ann".into(), key: Some("k".into()), spec: Arc::new(spec()), array, retry_of: Some(JobId(1)) }
}

fn outcome() -> Outcome {
    let output = Output {
        stdout: b"out".to_vec().into(),
        stdout_len: 3,
        stdout_blob: Some(Digest([2; 32])),
        files: Some(tree()),
        ..Output::default()
    };
    Outcome { end: End::Exit(3), started: UnixMillis(1), ended: UnixMillis(2), output: Some(Box::new(output)) }
}

fn finish() -> Finish {
    Finish { task: TASK, fence: FENCE, outcome: outcome() }
}

fn admit() -> Admit {
    Admit { key: PeerKey([1; 32]), raft: RaftDir([2; 16]), name: "pi".into(), addrs: addrs(), may_vote: true }
}

fn meta() -> NodeMeta {
    NodeMeta {
        memory: 1 << 40,
        version: 4,
        name: "pi".into(),
        software: "0.1.0".into(),
        protocol: PROTOCOL,
        addrs: addrs(),
        os: "linux".into(),
        arch: "aarch64".into(),
        capacity: Resources::default(),
        labels: [("zone".into(), "attic".into())].into(),
        executors: vec!["exec".into()],
    }
}

pub(super) fn view() -> View {
    let record = NodeRecord {
        id: NodeId(1),
        key: PeerKey([1; 32]),
        raft: RaftDir([2; 16]),
        name: "pi".into(),
        addrs: addrs(),
        role: identity::NodeRole::Voter,
        may_vote: true,
        schedule: Schedule::Open,
        is_gone: false,
        changed: LogIndex(4),
        step: identity::Step::Ready,
        root: RootId::default(),
    };
    View {
        version: LogIndex(9),
        leader: Some(NodeId(1)),
        term: Term(2),
        voters: vec![NodeId(1)],
        nodes: [(NodeId(1), record)].into(),
        ..View::default()
    }
}

fn problem() -> Problem {
    Problem::new(Code::Busy, "it is not taken", "there is too much").hint("later")
}

fn event() -> Event {
    let what = What::TasksAssigned { job: JobId(7), first: 0, count: 3, attempt: AttemptNo(1), node: NodeId(2) };
    Event { cursor: Cursor { index: LogIndex(4), sub: 1 }, at: UnixMillis(1), what }
}

fn batch() -> Batch {
    let assign = Assign { job: JobRef::InBatch(0), first: 5, count: 2, node: NodeId(1) };
    let commands = vec![
        Command::Submit(submit()),
        Command::Assign(assign),
        Command::Finish(finish()),
        Command::Lose { task: TASK, fence: FENCE, cause: Cause::NodeLost },
        Command::Admit(admit()),
    ];
    Batch { at: UnixMillis(5), commands }
}

/// With the numbers of [`crate::peer::KINDS`].
pub(super) fn peer() -> Vec<Vec<u8>> {
    let owing = Owing { digest: Digest([3; 32]), is_tree: true };
    let range = SegmentRange { first: 1, count: 3 };
    let claim = Claim::Job { job: JobId(7), root: Digest([3; 32]) };
    let request = |part| BlobRequest { digest: Digest([3; 32]), part, takes_zstd: true, claim: Claim::Offer };
    let petition = Petition {
        claim: identity::Claim::Token { id: TokenId([1; 8]), mac: vec![1; 32].into() },
        request: encoded(&admit()).into(),
        signature: vec![2; 64].into(),
    };
    let numbered = Numbered { seq: 1, submit: submit(), follow: true };
    let mut list = Vec::new();
    let mut add = |number: usize, bytes: Vec<u8>| list.push(kind(number, bytes));
    for open in [
        Open::Join(admit()),
        Open::GossipSync(vec![1, 2].into()),
        Open::View { after: LogIndex(3) },
        Open::Call { submitter: "ann".into(), call: Call::Job { job: JobId(7) } },
        Open::Events { after: Cursor::default() },
        Open::Output(OutputRequest { task: TASK, fence: FENCE, which: Which::Both, follow: true }),
        Open::Enroll { exporter: [1; 32], from: [127, 0, 0, 1].into(), petition: petition.clone() },
        Open::Doubled { at: addrs().bulk },
        Open::Claimed { by: NodeId(1), claim: claim.clone() },
    ] {
        add(0, encoded(&open));
    }
    add(1, encoded(&ours()));
    add(2, encoded(&Ok::<_, Problem>(Joined { node: NodeId(1), view: view(), now: UnixMillis(1) })));
    add(3, encoded(&meta()));
    add(6, encoded(&ToSubmitDesk::Submit(vec![numbered])));
    add(6, encoded(&ToSubmitDesk::Follow(vec![Target::Job(JobId(7)), Target::Task(TASK)])));
    let refused = Answer::Refused { seq: 2, problem: problem() };
    add(7, encoded(&FromSubmitDesk::Answers(vec![Answer::Accepted { seq: 1, job: JobId(7), is_new: true }, refused])));
    add(8, encoded(&EventPage { begins: Cursor::default(), events: vec![event()] }));
    add(9, encoded(&OutputChunk::Bytes { stream: Stream::Stderr, data: b"x".to_vec().into() }));
    add(10, encoded(&view()));
    add(11, encoded(&request(BlobPart::Segments(vec![range, range]))));
    add(11, encoded(&request(BlobPart::Outline)));
    add(11, encoded(&request(BlobPart::Doubt(3))));
    add(12, encoded(&BlobAnswer::Here { size: 5, whole: true, sealed: false }));
    add(12, encoded(&BlobAnswer::Coming));
    add(13, encoded(&BlobNews::Progress { have: 1, size: 2, sources: vec![(NodeId(1), 1, 2)] }));
    add(14, encoded(&BringRequest { digest: Digest([3; 32]), size: 5, from: vec![NodeId(1)], spares: Vec::new(), claim }));
    add(15, encoded(&vec![range, range]));
    add(16, encoded(&petition));
    add(17, encoded(&Applicant::Node { admit: admit(), labels: BTreeMap::new() }));
    add(18, encoded(&EnrollAnswer::Err(problem())));
    add(19, encoded(&Ok::<_, Problem>(Renewed { certificate: vec![1; 9].into(), roots: Roots::default(), now: UnixMillis(1) })));
    add(20, encoded(&Call::Job { job: JobId(7) }));
    add(21, encoded(&Ok::<_, Problem>(Reply::Stats(Box::default()))));
    add(22, encoded(&batch()));
    add(23, encoded(&Command::Raise { protocol: 2 }));
    add(24, encoded(&Ok::<Hello, Problem>(ours())));
    list.extend(workers(owing));
    list
}

fn workers(owing: Owing) -> Vec<Vec<u8>> {
    let report = Report {
        node: NodeId(2),
        life: 9,
        meta: Arc::new(meta()),
        window: 4,
        held: vec![(TASK, FENCE)],
        last_grant: LogIndex(3),
        view: LogIndex(4),
    };
    let grant = Grant { job: JobId(7), first: 3, count: 1, fence: FENCE, node: NodeId(2) };
    let job = GrantedJob { job: JobId(7), spec: Arc::new(spec()), is_array: true, items: [(3, "a".into())].into() };
    let holding = Holding { digest: Digest([3; 32]), size: 5, is_sealed: true };
    let mut list = Vec::new();
    for said in [
        FromWorker::Report(report),
        FromWorker::Outcomes { seq: 1, list: vec![finish()] },
        FromWorker::Started(vec![(TASK, FENCE)]),
        FromWorker::Load(Load::default()),
        FromWorker::Blobs { is_all: true, has: vec![holding], lost: vec![Digest([4; 32])] },
        FromWorker::Kept { kept: vec![owing], failed: vec![(owing, problem())] },
    ] {
        list.push(kind(4, encoded(&said)));
    }
    for said in [
        ToWorker::Welcome { term: Term(1), lease: Millis(3), view: view(), now: UnixMillis(1) },
        ToWorker::Grants { jobs: vec![job], grants: vec![grant] },
        ToWorker::Keep { keep: vec![owing], release: Vec::new() },
        ToWorker::Hint { job: JobId(7), tree: tree(), place: Some(3) },
    ] {
        list.push(kind(5, encoded(&said)));
    }
    list
}

pub(super) fn gossip() -> Vec<Vec<u8>> {
    let head = Head {
        kind: Kind::PingReq { nonce: 700, target: NodeId(3) },
        incarnation: 1,
        meta: 2,
        mood: Mood::Well,
        you: You::default(),
        digest: [9; 8],
        roster: LogIndex(300),
        term: Term(4),
        leader: NodeId(1),
    };
    let claims =
        [gossip::Claim::Alive, gossip::Claim::Suspect { by: NodeId(2) }, gossip::Claim::Down { by: NodeId(2) }, gossip::Claim::Left];
    let mut list = Vec::new();
    for (count, kind) in [(0, head.kind), (3, Kind::Gossip), (40, Kind::State), (2, Kind::Ping { nonce: 1 })] {
        let mut writer = Writer::state(&Head { kind, ..head });
        for (n, claim) in (1..=count).zip(claims.into_iter().cycle()) {
            writer.push(&Update { node: NodeId(n), incarnation: n, meta: 1, claim });
        }
        list.push(writer.finish().to_vec());
    }
    list
}

/// A record of the log, by the number of its kind; ids are a term and an index.
fn record(number: u8, content: &impl Serialize) -> Vec<u8> {
    kind(number.into(), encoded(content))
}

/// As [`crate::disk::log`] reads them.
pub(super) fn log() -> Vec<Vec<u8>> {
    let id = |index: u64| (1u64, index);
    let data = [vec![1], encoded(&batch())].concat();
    let entry = |index: u64| record(2, &(id(index), (1u8, data.clone())));
    let members = record(2, &(id(0), 2u8, vec![std::collections::BTreeSet::from([1u64])], std::collections::BTreeSet::from([1u64])));
    let vote = record(1, &(1u64, 1u64, true));
    let first = [vote, members, record(2, &(id(1), 0u8)), entry(2), entry(3)].concat();
    let second = [record(5, &id(3)), record(3, &Some(id(2))), entry(3)].concat();
    let third = [record(4, &id(2)), entry(4)].concat();
    let mut list = Vec::new();
    for (batches, end) in [(1, 0), (2, 0), (3, 4), (3, 200)] {
        let mut bytes = vec![0, batches - 1];
        for body in [&first, &second, &third].into_iter().take(batches.into()) {
            bytes.extend(piece(body));
            bytes.push(0);
        }
        bytes.extend([1, 0, 3, end]);
        list.push(bytes);
    }
    let disk = [consensus::batch(0, 0, &[consensus::beginning(), first].concat()), consensus::batch(0, 1, &second), vec![0; 1024]].concat();
    list.push([vec![1, 0], disk.clone()].concat());
    list.push([vec![1, 0], disk[..disk.len() - 1536].to_vec()].concat());
    list
}

/// As [`crate::disk::wire`] reads them.
pub(super) fn consensus() -> Vec<Vec<u8>> {
    let (vote, id, members) = ((1u64, 1u64, true), Some((1u64, 5u64)), (vec![vec![1u64]], vec![1u64]));
    let entry = ((1u64, 6u64), (1u8, vec![1u8, 2]));
    let meta = (id, id, members, 3u64, [7u8; 32]);
    let mut list = vec![
        kind(0, encoded(&(1u8, vote, id, id, vec![entry]))),
        kind(0, encoded(&(0u8, id))),
        kind(0, encoded(&(1u8, vote, &meta))),
        kind(0, encoded(&(1u8, 0u8, vote, id, false))),
        kind(0, encoded(&(1u8, 4u8, 3u64, 9u64, 77u64))),
        kind(0, encoded(&(0u8, vote, true, id))),
        kind(1, [vec![1], encoded(&batch())].concat()),
        kind(2, encoded(&(1u8, RaftDir([2; 16]), ClusterId([1; 16])))),
        kind(2, encoded(&(1u8, RaftDir([2; 16])))),
    ];
    let ledger = b"abc";
    let meta = encoded(&(id, id, (vec![vec![1u64]], vec![1u64]), 3u64, *blake3::hash(ledger).as_bytes()));
    list.push(kind(3, [piece(&meta), vec![1], ledger.to_vec()].concat()));
    list
}

/// As [`crate::keeper::messages`] reads them; keeper messages by the numbers of their kinds.
pub(super) fn keeper() -> Vec<Vec<u8>> {
    let start = [vec![1], encoded(&(spec(), true, vec![(TASK, FENCE, Some("a"), None::<u8>, None::<u8>)], None::<u8>))].concat();
    let hello = vec![0, 3];
    let kill = [vec![2], encoded(&(TASK, FENCE, End::Lost))].concat();
    let forget = [vec![5], encoded(&vec![(TASK, FENCE)])].concat();
    let framed: Vec<u8> = [&hello, &start, &kill, &forget].into_iter().flat_map(|body| piece(body)).collect();
    let written = (5u64, 1u64, 5u64);
    vec![
        [vec![1, 255], framed].concat(),
        [vec![0, 1], (hello.len() as u32).to_le_bytes().to_vec(), hello].concat(),
        kind(2, [vec![4], encoded(&(TASK, FENCE, outcome(), [written, written]))].concat()),
        kind(2, [vec![5], encoded(&(TASK, FENCE, Stream::Stdout, 1u64, 2u64, b"data".to_vec()))].concat()),
        kind(2, [vec![3], encoded(&vec![(TASK, FENCE, UnixMillis(1))])].concat()),
        kind(3, "5 1 5\n6 1 3\n"),
        kind(3, "j4.3-9.1.stderr"),
        kind(3, "1 (a (b) c) S 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 500 0 0"),
        kind(
            4,
            [piece(b"root:x:0:0::/root:/bin/sh\nswarm-task:x:998:997::/var/lib/x:/bin/sh\n"), b"wheel:x:5:swarm-task,a\n".to_vec()]
                .concat(),
        ),
        kind(5, "item, 16 letters\x01\x00{}/{{}}{x"),
        kind(5, [&b"item, 16 letters\xff\xff"[..], "{}".repeat(32).as_bytes()].concat()),
    ]
}
