//! `task result` and `job results`.

use std::{fs, path::Path};

use crate::{Swarm, with_swarm};

/// All files below a directory and what they hold, by path.
fn found(dir: &Path) -> Vec<(String, String)> {
    let (mut open, mut all) = (vec![dir.to_path_buf()], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            all.push((path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()));
        }
    }
    all.sort();
    all
}

fn is(dir: &Path, wanted: &[(&str, &str)]) {
    assert_eq!(found(dir), wanted.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect::<Vec<_>>());
}

/// An array whose task 2 fails.
async fn array(swarm: &Swarm, path: &str) {
    swarm.call(&["submit", "--array", "1-3", "--", "leave", path, "2"]).await.is(0, "j1\n");
    swarm.fake.until(|view| view.state.is_terminal()).await;
}

#[test]
fn each_task_of_an_array_gets_a_directory() {
    with_swarm(async |swarm| {
        array(&swarm, "out/{}.csv").await;
        let to = swarm.dir.path().join("to");
        let words = ["job", "results", "j1", "--to", to.to_str().unwrap()];
        let ended = swarm.call(&words).await;
        ended.is(1, "j1.1  2 files, 9 B\nj1.3  2 files, 9 B\n");
        assert_eq!(ended.stderr, "error: not every task of j1 has succeeded\n  why: 1 failed\n  try: swarmctl task list j1\n");
        let files = [("1/bin/out/1.csv", "tool"), ("1/out/1.csv", "of 1\n"), ("3/bin/out/3.csv", "tool"), ("3/out/3.csv", "of 3\n")];
        is(&to, &files);
        let ended = swarm.call(&[&words[..], &["--stdout", "-o", "jsonl"]].concat()).await;
        assert_eq!(ended.stdout.lines().next(), Some(r#"{"task":"j1.1","files":3,"bytes":14}"#), "{ended:?}");
        assert_eq!(fs::read(to.join("3/stdout")).unwrap(), b"of 3\n");
    });
}

#[test]
fn flat_results_must_not_clash() {
    with_swarm(async |swarm| {
        array(&swarm, "{}.csv").await;
        let to = swarm.dir.path().join("to");
        let words = |job| ["job", "results", job, "--flat", "--to", to.to_str().unwrap()];
        swarm.call(&words("j1")).await.is(1, "j1.1  2 files, 9 B\nj1.3  2 files, 9 B\n");
        is(&to, &[("1.csv", "of 1\n"), ("3.csv", "of 3\n"), ("bin/1.csv", "tool"), ("bin/3.csv", "tool")]);
        fs::remove_dir_all(&to).unwrap();
        swarm.call(&["submit", "--array", "0-1", "--wait", "--", "leave", "same.csv", "none"]).await.is(0, "j2\n");
        let clash = swarm.call(&words("j2")).await;
        clash.is(1, "");
        assert!(
            clash.stderr.contains("both j2.0 and j2.1 left 'bin/same.csv'") && clash.stderr.contains("try: without --flat"),
            "{clash:?}"
        );
        assert!(!to.exists());
    });
}

#[test]
fn a_single_task_leaves_its_files_in_the_directory_itself() {
    with_swarm(async |swarm| {
        let ran = swarm.call(&["run", "leave", "a.csv", "none"]).await;
        assert_eq!(ran.stderr, "swarmctl: j1.0 left 2 files, 9 B: swarmctl job results j1 --to DIR\n", "{ran:?}");
        let to = swarm.dir.path().join("to");
        let words = ["job", "results", "j1", "--stdout", "--to", to.to_str().unwrap()];
        swarm.call(&words).await.is(0, "j1.0  3 files, 14 B\n");
        let files = [("a.csv", "of 0\n"), ("bin/a.csv", "tool"), ("stdout", "of 0\n")];
        is(&to, &files);
        swarm.call(&words).await.is(0, "j1.0  3 files, 14 B\n");
        is(&to, &files);
        swarm.call(&["submit", "--wait", "--", "leave", "stdout", "none"]).await.is(0, "j2\n");
        swarm.call(&["job", "results", "j2", "--stdout", "--to", to.to_str().unwrap()]).await.is(1, "");
        swarm.call(&["job", "results", "j9", "--to", to.to_str().unwrap()]).await.is(3, "");
        swarm.call(&["submit", "--wait", "--", "print", "x"]).await.is(0, "j3\n");
        swarm.call(&["job", "results", "j3", "--to", to.to_str().unwrap()]).await.is(0, "");
    });
}

#[test]
fn a_result_comes_from_where_it_is_kept() {
    with_swarm(async |swarm| {
        let long = "long ".repeat(1_000);
        for (words, text) in [(["print", "short"], "short"), (["print", &long], &long), (["keep", &long], &long)] {
            let job = swarm.call(&[&["submit", "--wait", "--"], &words[..]].concat()).await.stdout;
            swarm.call(&["task", "result", job.trim()]).await.is(0, text);
            let to = swarm.dir.path().join("result");
            swarm.call(&["task", "result", job.trim(), "--to", to.to_str().unwrap()]).await.is(0, "");
            assert_eq!(fs::read_to_string(to).unwrap(), text);
        }
    });
}

#[test]
fn what_has_not_succeeded_has_no_result() {
    with_swarm(async |swarm| {
        swarm.call(&["submit", "--wait", "--", "exit", "3"]).await.is(1, "j1\n");
        let failed = swarm.call(&["task", "result", "j1"]).await;
        failed.is(1, "");
        let said = "error: j1.0 has no result\n  why: it has not succeeded: its state is failed (exit 3)\n  \
                    try: look at what it wrote: swarmctl task logs j1.0\n";
        assert_eq!(failed.stderr, said);
        swarm.call(&["submit", "--", "hang"]).await.is(0, "j2\n");
        let open = swarm.call(&["task", "result", "j2"]).await;
        open.is(1, "");
        assert!(open.stderr.contains("try: wait for it: swarmctl task wait j2.0"), "{open:?}");
    });
}
