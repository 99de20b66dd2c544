//! Files that are put for jobs, and trees that are put and got by themselves.

use std::{fs, os::unix::fs::PermissionsExt as _};

use swarm_proto::{Digest, JobId, spec::ItemList};

use crate::{Swarm, with_swarm};

/// `data/a`, `data/sub/b`, and a program `tool`.
fn lay_out(swarm: &Swarm) {
    let dir = swarm.dir.path();
    fs::create_dir_all(dir.join("data/sub")).unwrap();
    for (path, text) in [("data/a", "one"), ("data/sub/b", "two"), ("tool", "#!/bin/sh\n")] {
        fs::write(dir.join(path), text).unwrap();
    }
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn file(path: &str, text: &str, is_program: bool) -> (String, String, bool) {
    (path.into(), text.into(), is_program)
}

#[test]
fn inputs_are_put_before_the_job_that_names_them() {
    with_swarm(async |swarm| {
        lay_out(&swarm);
        for verb in [&["submit"][..], &["run"]] {
            let words = [verb, &["--input", "data", "--input", "tool=bin/t", "--output", "out/{}", "--", "print", "x"]].concat();
            let ended = swarm.command(&words).current_dir(swarm.dir.path()).output().await.unwrap();
            assert!(ended.status.success(), "{ended:?}");
        }
        for job in [JobId(1), JobId(2)] {
            let spec = swarm.fake.submitted(job).spec;
            let wanted = [file("bin/t", "#!/bin/sh\n", true), file("data/a", "one", false), file("data/sub/b", "two", false)];
            assert_eq!(swarm.fake.blobs.files(spec.inputs.unwrap()), wanted);
            assert_eq!(spec.outputs, ["out/{}"]);
        }
        assert_eq!(swarm.fake.blobs.puts(), 8, "three files and what names them, twice");
    });
}

#[test]
fn all_that_is_put_for_a_job_is_encrypted_where_that_is_asked() {
    with_swarm(async |swarm| {
        lay_out(&swarm);
        fs::write(swarm.dir.path().join("items"), "x\n".repeat(40_000)).unwrap();
        fs::write(swarm.dir.path().join("job.toml"), "argv = ['print', 'x']\ninputs = ['tool']").unwrap();
        for (words, puts) in [
            (&["submit", "--encrypt", "--input", "data", "--array", "@items", "--", "print", "x"][..], 4),
            (&["submit", "--encrypt", "--each", "data", "--", "print", "x"], 3),
            (&["submit", "--encrypt", "job.toml"], 2),
            (&["run", "--encrypt", "--input", "tool", "--", "print", "x"], 2),
        ] {
            let (before, encrypted) = (swarm.fake.blobs.puts(), swarm.fake.blobs.encrypted());
            let ended = swarm.command(words).current_dir(swarm.dir.path()).output().await.unwrap();
            assert!(ended.status.success(), "{ended:?}");
            assert_eq!((swarm.fake.blobs.puts() - before, swarm.fake.blobs.encrypted() - encrypted), (puts, puts), "{words:?}");
        }
        let encrypted = swarm.fake.blobs.encrypted();
        swarm.command(&["submit", "job.toml"]).current_dir(swarm.dir.path()).output().await.unwrap();
        assert_eq!(swarm.fake.blobs.encrypted(), encrypted, "only where that is asked");
    });
}

#[test]
fn each_file_is_a_task() {
    with_swarm(async |swarm| {
        lay_out(&swarm);
        let data = format!("{}/", swarm.dir.path().join("data").display());
        swarm.call(&["submit", "--each", &data, "--", "leave", "{}", "none"]).await.is(0, "j1\n");
        let submit = swarm.fake.submitted(JobId(1));
        let wanted = [file("a", "one", false), file("sub/b", "two", false)];
        assert_eq!(swarm.fake.blobs.files(submit.spec.each.unwrap()), wanted);
        assert_eq!((submit.array.count, submit.array.is_array), (2, true));
        swarm.call(&["submit", "--each", &data, "--array", "0-1", "--", "a"]).await.is(2, "");
    });
}

#[test]
fn a_job_file_brings_its_files_too() {
    with_swarm(async |swarm| {
        lay_out(&swarm);
        fs::write(swarm.dir.path().join("items"), "x\n".repeat(40_000)).unwrap();
        let text = "[[job]]\nargv = ['print', 'x']\ninputs = ['tool']\narray = '@items'\n\
                    [[job]]\nargv = ['print', 'x']\neach = ['data/=in']\noutputs = ['out']";
        fs::write(swarm.dir.path().join("jobs.toml"), text).unwrap();
        let ended = swarm.command(&["submit", "jobs.toml"]).current_dir(swarm.dir.path()).output().await.unwrap();
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), "j1\nj2\n");
        let first = swarm.fake.submitted(JobId(1));
        assert_eq!(swarm.fake.blobs.files(first.spec.inputs.unwrap()), [file("tool", "#!/bin/sh\n", true)]);
        assert_eq!((first.array.count, first.array.items.len()), (40_000, 0));
        let ItemList { digest, size } = first.spec.items.unwrap();
        assert_eq!(swarm.fake.blobs.get(digest).map(|list| list.len() as u64), Some(size));
        let second = swarm.fake.submitted(JobId(2)).spec;
        let wanted = [file("in/a", "one", false), file("in/sub/b", "two", false)];
        assert_eq!((swarm.fake.blobs.files(second.each.unwrap()), second.outputs.as_slice()), (wanted.to_vec(), &["out".to_owned()][..]));
    });
}

#[test]
fn jobs_of_a_file_share_what_was_put() {
    with_swarm(async |swarm| {
        lay_out(&swarm);
        let job = "[[job]]\nargv = ['print', 'x']\ninputs = ['data']\n";
        fs::write(swarm.dir.path().join("jobs.toml"), job.repeat(3)).unwrap();
        swarm.command(&["submit", "jobs.toml"]).current_dir(swarm.dir.path()).output().await.unwrap();
        let inputs = [1, 2, 3].map(|job| swarm.fake.submitted(JobId(job)).spec.inputs);
        assert!(inputs[0].is_some() && inputs.iter().all(|tree| *tree == inputs[0]));
        assert_eq!(swarm.fake.blobs.puts(), 3, "two files and what names them, once");
    });
}

#[test]
fn only_few_items_come_from_standard_input() {
    with_swarm(async |swarm| {
        let words = ["submit", "--array", "@-", "--", "print", "{}"];
        swarm.call_with(&words, b"a\nb\n").await.is(0, "j1\n");
        assert_eq!(swarm.fake.submitted(JobId(1)).array.items, ["a", "b"]);
        let many = swarm.call_with(&words, &b"x\n".repeat(40_000)).await;
        many.is(2, "");
        assert!(many.stderr.contains("-: more than 65536 bytes of items"), "{many:?}");
    });
}

#[test]
fn a_job_that_would_be_refused_moves_no_bytes() {
    with_swarm(async |swarm| {
        lay_out(&swarm);
        let tool = swarm.dir.path().join("tool").display().to_string();
        swarm.call(&["submit", "--input", &tool, "--cwd", "/tmp", "--", "a"]).await.is(2, "");
        swarm.call(&["submit", "--input", &tool, "--input", "/nowhere/x", "--", "a"]).await.is(2, "");
        swarm.call(&["run", "--input", &tool, "--output", "../x", "a"]).await.is(2, "");
        let twice = swarm.call(&["submit", "--input", &tool, "--input", &tool, "--", "a"]).await;
        twice.is(2, "");
        assert!(twice.stderr.contains("'tool' and 'tool'"), "{twice:?}");
        assert_eq!(swarm.fake.blobs.puts(), 0);
    });
}

#[test]
fn a_directory_goes_in_and_comes_out() {
    with_swarm(async |swarm| {
        lay_out(&swarm);
        let (from, to) = (swarm.dir.path().join("data"), swarm.dir.path().join("new/copy"));
        fs::rename(swarm.dir.path().join("tool"), from.join("tool")).unwrap();
        // more than is sent whole
        fs::write(from.join("large"), vec![7; 3 << 20]).unwrap();
        let put = swarm.call(&["blob", "put", from.to_str().unwrap()]).await;
        let (digest, name) = put.stdout.trim().split_once("  ").unwrap();
        assert_eq!((put.code, name), (Some(0), from.to_str().unwrap()), "{put:?}");
        let get = ["blob", "get", digest, to.to_str().unwrap(), "--tree"];
        swarm.call(&get).await.is(0, "");
        assert_eq!(fs::read(to.join("sub/b")).unwrap(), b"two");
        assert_eq!(fs::read(to.join("large")).unwrap(), vec![7; 3 << 20]);
        let is_program = |name| fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o111 != 0;
        assert!(is_program("tool") && !is_program("a"));

        // what is right stays as it is, what is not is written again, and nothing else is left behind
        let large = || fs::metadata(to.join("large")).unwrap().modified().unwrap();
        let before = large();
        fs::write(to.join("a"), "ONE").unwrap();
        fs::remove_file(to.join("sub/b")).unwrap();
        swarm.call(&get).await.is(0, "");
        assert_eq!((large(), fs::read(to.join("a")).unwrap(), fs::read(to.join("sub/b")).unwrap()), (before, b"one".into(), b"two".into()));
        assert_eq!(fs::read_dir(&to).unwrap().count(), 4);

        // a link leads nowhere
        let elsewhere = swarm.dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::remove_dir_all(to.join("sub")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, to.join("sub")).unwrap();
        let refused = swarm.call(&get).await;
        refused.is(2, "");
        assert!(refused.stderr.contains("it is a link"), "{refused:?}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

        swarm.call(&["blob", "get", digest, "--tree"]).await.is(2, "");
        let json = swarm.call(&["blob", "put", from.to_str().unwrap(), "-o", "json"]).await;
        let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!((&json["digest"], &json["files"]), (&digest.into(), &4.into()));
    });
}

#[test]
fn what_is_no_tree_is_told_apart() {
    with_swarm(async |swarm| {
        let to = swarm.dir.path().join("to").display().to_string();
        let digest = swarm.fake.blobs.put("no list of files").to_string();
        let ended = swarm.call(&["blob", "get", &digest, &to, "--tree"]).await;
        ended.is(2, "");
        assert!(ended.stderr.starts_with(&format!("error: {digest} is no manifest\n")), "{ended:?}");
        swarm.call(&["blob", "get", &digest]).await.is(0, "no list of files");
        swarm.call(&["blob", "get", &Digest([1; 32]).to_string(), &to, "--tree"]).await.is(3, "");
    });
}
