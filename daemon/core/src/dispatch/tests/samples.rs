//! Nodes and jobs to try things with.

use std::collections::BTreeMap;

use swarm_proto::{
    NodeId, PeerKey, RaftDir,
    ledger::{Addrs, Admit},
    peer::NodeMeta,
    spec::{Exec, JobSpec, Resources, Work},
};

pub(super) fn admit(n: u64) -> Admit {
    let [.., high, low] = n.to_be_bytes();
    let addr = std::net::SocketAddr::from(([10, 0, high, low], 4747));
    let mut key = [high; 32];
    key[0] = low;
    Admit {
        key: PeerKey(key),
        raft: RaftDir(key[..16].try_into().expect("half of it")),
        name: format!("node-{n}"),
        addrs: Addrs { control: addr, bulk: addr },
        may_vote: true,
    }
}

pub(super) fn meta(node: NodeId, cores: u64) -> NodeMeta {
    NodeMeta {
        memory: 1 << 40,
        version: 1,
        name: node.to_string(),
        software: "test".into(),
        protocol: 1,
        addrs: admit(node.0).addrs,
        os: "linux".into(),
        arch: "x86_64".into(),
        capacity: Resources { milli_cores: cores * 1000, ..Resources::default() },
        labels: [("os".to_owned(), "linux".to_owned()), ("name".to_owned(), node.to_string())].into(),
        executors: vec!["noop".into(), "exec".into()],
    }
}

pub(super) fn noop() -> JobSpec {
    JobSpec::new(Work::Noop)
}

/// A program that runs so many milliseconds.
pub(super) fn exec(millis: u64, milli_cores: u64) -> JobSpec {
    let program = if millis > 1000 { "long" } else { "short" };
    let argv = vec![program.to_owned(), millis.to_string()];
    let work = Work::Exec(Exec { argv, env: BTreeMap::new(), stdin: bytes::Bytes::new(), cwd: None });
    JobSpec { work, needs: Resources { milli_cores, ..Resources::default() }, ..noop() }
}
