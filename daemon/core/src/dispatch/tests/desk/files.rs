//! Tasks go where their files are, and files where tasks will go.

use swarm_proto::{
    Digest,
    api::{Explain, InputKind, InputReason},
    manifest::Tree,
    peer::Holding,
    spec::ItemList,
};

use super::*;

fn tree(n: u8, bytes: u64) -> Tree {
    Tree { manifest: Digest([n; 32]), files: 1, bytes }
}

fn long(inputs: Tree) -> JobSpec {
    JobSpec { inputs: Some(inputs), ..exec(5_000, 1_000) }
}

fn tasks(count: u32) -> Array {
    Array { first: 0, count, is_array: true, items: Vec::new() }
}

impl Bench {
    fn holds(&mut self, node: NodeId, n: u8) {
        self.from(
            node,
            FromWorker::Blobs {
                is_all: false,
                has: vec![Holding { digest: Digest([n; 32]), size: 100, is_sealed: false }],
                lost: Vec::new(),
            },
        );
    }

    fn count(&mut self, node: NodeId) -> u32 {
        self.granted(node).iter().map(|(_, count)| count).sum()
    }

    fn hints(&mut self, node: NodeId) -> Vec<Tree> {
        let hint = |message| if let ToWorker::Hint { tree, .. } = message { Some(tree) } else { None };
        self.heard(node).into_iter().filter_map(hint).collect()
    }
}

#[test]
fn what_is_heavy_is_run_where_it_is() {
    let mut bench = Bench::new(2);
    bench.connect(ONE);
    bench.connect(TWO);
    bench.holds(TWO, 7);
    bench.submit(long(tree(7, 1 << 30)), tasks(3));
    bench.turn();
    bench.turn();
    assert_eq!((bench.count(ONE), bench.count(TWO)), (0, 3));
    // better elsewhere than not at all
    bench.submit(long(tree(7, 1 << 30)), tasks(3));
    bench.turn();
    bench.turn();
    assert_eq!((bench.count(ONE), bench.count(TWO)), (2, 1));
    // what is light spreads
    let mut bench = Bench::new(2);
    bench.connect(ONE);
    bench.connect(TWO);
    bench.holds(TWO, 7);
    bench.submit(long(tree(7, 1 << 10)), tasks(4));
    bench.turn();
    bench.turn();
    assert_eq!((bench.count(ONE), bench.count(TWO)), (2, 2));
}

#[test]
fn what_waits_has_its_files_brought_meanwhile() {
    let mut bench = Bench::new(2);
    bench.connect(ONE);
    bench.connect(TWO);
    bench.holds(TWO, 8);
    bench.submit(exec(5_000, 1_000), tasks(8));
    bench.turn();
    bench.turn();
    let (light, heavy) = (tree(7, 1 << 10), tree(8, 1 << 30));
    for inputs in [light, heavy, heavy] {
        bench.submit(long(inputs), Array::single());
        bench.turn();
        bench.turn();
    }
    assert_eq!((bench.hints(ONE), bench.hints(TWO)), (vec![heavy], vec![]), "once, and only to those who lack it");
    let heavies = |node| [JobId(3), JobId(4)].map(|job| bench.desk.is_for(node, job, &bench.ledger));
    assert_eq!((heavies(ONE), heavies(TWO)), ([true, true], [false, false]), "who was told may fetch them");
}

#[test]
fn a_job_is_for_those_who_have_an_attempt_of_it() {
    let mut bench = Bench::new(2);
    bench.connect(ONE);
    bench.connect(TWO);
    bench.holds(TWO, 7);
    bench.submit(long(tree(7, 1 << 30)), tasks(1));
    let is_for = |bench: &Bench| [ONE, TWO].map(|node| bench.desk.is_for(node, JobId(1), &bench.ledger));
    assert_eq!(is_for(&bench), [false, false]);
    bench.turn();
    bench.turn();
    assert_eq!(is_for(&bench), [false, true]);
    assert!(!bench.desk.is_for(TWO, JobId(2), &bench.ledger), "of another job it has none");
}

#[test]
fn where_a_task_s_files_are_is_explained() {
    let mut bench = Bench::new(2);
    bench.connect(ONE);
    bench.connect(TWO);
    bench.holds(TWO, 7);
    bench.holds(TWO, 8);
    let spec = JobSpec { inputs: Some(tree(7, 1 << 30)), items: Some(ItemList { digest: Digest([8; 32]), size: 9 }), ..exec(5_000, 1_000) };
    bench.submit(spec, tasks(1));
    bench.turn();
    let Explain { inputs, files, .. } = bench.desk.explain(task(1, 0), &bench.ledger, bench.now).expect("it is known");
    let of = |kind, n: u8, bytes, holders: &[NodeId], is_preferred| InputReason {
        kind,
        digest: Digest([n; 32]),
        files: 1,
        bytes,
        holders: holders.to_vec(),
        held_by: u32::try_from(holders.len()).expect("few"),
        is_preferred,
        coming: Vec::new(),
        failed: Vec::new(),
    };
    assert_eq!(inputs, [of(InputKind::Inputs, 7, 1 << 30, &[TWO], true), of(InputKind::Items, 8, 9, &[TWO], false)]);
    assert_eq!(files, None);
}

#[test]
fn an_end_for_want_of_files_is_explained() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.submit(JobSpec { retries: Default::default(), ..long(tree(7, 1)) }, tasks(1));
    bench.turn();
    bench.turn();
    let why = End::Input("'a' did not come: nobody gave it".into());
    let ended = bench.ended(task(1, 0), 5);
    let ended = Finish { outcome: Outcome { end: why.clone(), ..ended.outcome }, ..ended };
    bench.from(ONE, FromWorker::Outcomes { seq: 5, list: vec![ended] });
    bench.turn();
    let explain = bench.desk.explain(task(1, 0), &bench.ledger, bench.now).expect("it is known");
    assert_eq!(explain.files, Some(why));
}
