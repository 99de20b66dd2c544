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

    /// What it was granted, and of which places it was told.
    fn told(&mut self, node: NodeId) -> (Vec<(u32, u32)>, Vec<u32>) {
        let (mut granted, mut places) = (Vec::new(), Vec::new());
        for message in self.heard(node) {
            if let ToWorker::Grants { grants, .. } = &message {
                granted.extend(grants.iter().map(|grant| (grant.first, grant.count)));
            }
            if let ToWorker::Hint { place, .. } = message {
                places.extend(place);
            }
        }
        (granted, places)
    }

    fn ends(&mut self, node: NodeId, task: TaskId) {
        let end = self.ended(task, 5_000);
        self.from(node, FromWorker::Outcomes { seq: u64::from(task.index) + 1, list: vec![end] });
        self.turn();
        self.turn();
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
fn a_task_s_own_file_comes_to_whoever_runs_it_next() {
    let mut bench = Bench::new(3);
    bench.connect(ONE);
    bench.connect(TWO);
    let each = Tree { manifest: Digest([9; 32]), files: 8, bytes: 8 << 30 };
    bench.submit(JobSpec { each: Some(each), ..exec(5_000, 4_000) }, tasks(8));
    bench.turn();
    bench.turn();
    assert_eq!((bench.told(ONE), bench.told(TWO)), ((vec![(0, 1)], vec![2]), (vec![(1, 1)], vec![3])));
    let is_for = |bench: &Bench, node| bench.desk.is_for(node, JobId(1), &bench.ledger);
    assert!(!is_for(&bench, NodeId(3)));
    // whoever has room first gets what it was told of, and hears of what nobody was told of
    bench.ends(TWO, task(1, 1));
    assert_eq!((bench.told(ONE), bench.told(TWO)), ((vec![], vec![]), (vec![(3, 1)], vec![4])));
    // one that was told nothing takes what is first, and whoever was told of that is told of something else
    bench.connect(NodeId(3));
    bench.turn();
    assert_eq!(bench.told(NodeId(3)), (vec![(2, 1)], vec![6]));
    assert_eq!((bench.told(ONE), bench.told(TWO)), ((vec![], vec![5]), (vec![], vec![])));
    // what one was told of that is gone is the next one's
    bench.desk.handle_worker_gone(ONE, bench.now);
    bench.ends(TWO, task(1, 3));
    assert_eq!(bench.told(TWO), (vec![(4, 1)], vec![5]));
    bench.ends(NodeId(3), task(1, 2));
    assert_eq!(bench.told(NodeId(3)), (vec![(6, 1)], vec![7]));
    // and nothing is left behind
    bench.ends(TWO, task(1, 4));
    bench.ends(NodeId(3), task(1, 6));
    assert_eq!((bench.told(TWO), bench.told(NodeId(3))), ((vec![(5, 1)], vec![]), (vec![(7, 1)], vec![])));
}

#[test]
fn a_task_may_be_cancelled_that_somebody_was_told_of() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    let each = Tree { manifest: Digest([9; 32]), files: 4, bytes: 4 << 30 };
    bench.submit(JobSpec { each: Some(each), ..exec(5_000, 4_000) }, tasks(4));
    bench.turn();
    bench.turn();
    assert_eq!(bench.told(ONE), (vec![(0, 1)], vec![1]));
    bench.desk.handle_command(0, 2, Command::CancelTask { task: task(1, 1) }, &bench.ledger);
    bench.turn();
    bench.ends(ONE, task(1, 0));
    assert_eq!(bench.told(ONE), (vec![(2, 1)], vec![3]));
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
