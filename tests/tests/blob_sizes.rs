//! Blobs as large, and trees of as many files, as anybody may bring. Minutes each, so only `tests/run --long` does it.
#![expect(clippy::print_stderr, reason = "a run says what it took")]

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    time::Instant,
};

use swarm_tests::{Hosts, Rack};

const FILES: usize = 100_000;
const GIB: u64 = 1 << 30;

/// What a directory takes on its disk, in bytes.
fn taken(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| if path.is_dir() { taken(&path) } else { fs::metadata(&path).map_or(0, |metadata| metadata.blocks() * 512) }).sum()
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    eprintln!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    done
}

#[ignore = "minutes; tests/run --long"]
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_small_files_go_in_and_come_back() {
    let hosts = Hosts::start(2, |_| {}).await;
    hosts.unite().await;
    let [from, to] = ["from", "to"].map(|name| hosts.dir().join(name).display().to_string());
    for n in 0..FILES {
        let dir = Path::new(&from).join((n / 1_000).to_string());
        if n % 1_000 == 0 {
            fs::create_dir_all(&dir).expect("made");
        }
        fs::write(dir.join(n.to_string()), format!("file {n}\n").repeat(1 + n % 40)).expect("written");
    }
    let told = timed("put", || hosts.list[0].ok(&["blob", "put", &from]));
    let name = told.split_whitespace().next().expect("a name");
    // from the node that has them, and from one that gets each from there
    timed("get where they are", || hosts.list[0].ok(&["blob", "get", name, &to, "--tree"]));
    let elsewhere = format!("{to}-elsewhere");
    timed("get elsewhere", || hosts.list[1].ok(&["blob", "get", name, &elsewhere, "--tree"]));
    for got in [&to, &elsewhere] {
        for n in 0..FILES {
            let text = fs::read_to_string(Path::new(got).join(format!("{}/{n}", n / 1_000))).expect("it is there");
            assert!(text == format!("file {n}\n").repeat(1 + n % 40), "{got}: {n}");
        }
    }
}

#[ignore = "minutes; tests/run --long"]
#[tokio::test]
async fn the_largest_blob_there_may_be_takes_no_room_where_it_is_zeros_and_moves() {
    let mut hosts = Hosts::prepare(2, |config| config.blobs.quota = Some(65 * GIB));
    let at: Vec<_> = hosts.list.iter().map(|host| host.state.as_path()).collect();
    // both have room for it, as far as their disk can tell
    let Some(_rack) = Rack::vast(hosts.dir(), &at, 300 * GIB) else { return };
    hosts.list.iter_mut().for_each(|host| host.run());
    for host in &hosts.list {
        host.answers().await;
    }
    hosts.unite().await;
    let file = hosts.dir().join("sparse");
    let marks = [0, 31 * GIB + 5, 64 * GIB - 1];
    fs::File::create_new(&file)
        .and_then(|file| {
            file.set_len(64 * GIB)?;
            marks.iter().try_for_each(|at| file.write_all_at(b"!", *at))
        })
        .expect("a file");
    let told = timed("put", || hosts.list[0].ok(&["blob", "put", &file.display().to_string()]));
    let name = told.split_whitespace().next().expect("a name");
    timed("push", || hosts.list[0].ok(&["blob", "push", name, "--to", "all"]));
    for host in &hosts.list {
        let disk = taken(&host.state.join("blobs"));
        assert!(disk < 64 << 20, "{disk} bytes of the disk");
        // what counts for the quota is the size that it has
        assert_eq!(host.client().store().await.expect("it answers").used, 64 * GIB);
    }
    let told = timed("verify", || hosts.list[1].ok(&["blob", "verify", name]));
    assert!(told.contains("is sound"), "{told}");
    let stored = fs::File::open(hosts.list[1].state.join("blobs/whole").join(&name[..2]).join(name)).expect("it is there");
    for at in marks {
        let mut byte = [0];
        stored.read_exact_at(&mut byte, at).expect("it is as long");
        assert_eq!(&byte, b"!", "{at}");
    }
    fs::File::options().append(true).open(&file).and_then(|file| file.set_len(64 * GIB + 1)).expect("a file");
    let (code, why) = hosts.list[0].refused(&["blob", "put", &file.display().to_string()]);
    assert!(why.contains("a blob has at most"), "{code} {why}");
}
