//! Blobs between real daemons, some of which are killed.

use std::{
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use swarm_client::Client;
use swarm_proto::{Code, Digest, api::BlobLine};
use swarm_tests::{Hosts, Rig, ctl, eventually, program};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
};

const MIB: usize = 1 << 20;

fn bytes(len: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

/// Runs swarmctl, which must do it; what it printed.
fn run(socket: &Path, args: &[&str]) -> String {
    let done = ctl(socket, args);
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

/// Puts a file by swarmctl, and gives the name that it prints.
fn put(socket: &Path, file: &Path) -> Digest {
    name(&run(socket, &["blob", "put", &file.display().to_string()])).parse().expect("a digest")
}

/// The name that `blob put` printed.
fn name(text: &str) -> &str {
    text.split_whitespace().next().expect("a name")
}

async fn holders(client: &Client, digest: Digest) -> Vec<String> {
    match client.blob(digest).await {
        Ok(blob) => blob.holders.into_iter().map(|holder| holder.name).collect(),
        Err(problem) if matches!(problem.code, Code::NotFound | Code::NoLeader) => Vec::new(),
        Err(problem) => panic!("{problem}"),
    }
}

/// Where a node's whole blobs are.
fn stored(rig: &Rig, n: usize, digest: Digest) -> PathBuf {
    let (dir, name) = (rig.swarm.dir().join(&rig.swarm.nodes()[n].name), digest.to_string());
    dir.join("blobs/whole").join(&name[..2]).join(name)
}

#[tokio::test]
async fn a_blob_gets_everywhere_and_its_holders_are_known_to_the_next_leader_too() {
    let mut rig = Rig::start(4).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (file, data) = (dir.path().join("data"), bytes(20 * MIB + 7));
    std::fs::write(&file, &data).expect("written");
    let sockets: Vec<PathBuf> = rig.swarm.nodes().iter().map(|node| node.socket.clone()).collect();
    let digest = put(&sockets[1], &file);
    assert_eq!(digest.0, *blake3::hash(&data).as_bytes());
    let client = rig.client(3);
    eventually("the leader knows", async || (holders(&client, digest).await == ["dev2"]).then_some(())).await;

    let got = dir.path().join("got");
    let done = ctl(&sockets[2], &["blob", "get", &digest.to_string(), &got.display().to_string()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(std::fs::read(&got).expect("a file") == data);
    let done = ctl(&sockets[1], &["blob", "push", &digest.to_string(), "--to", "all,nobody", "-o", "jsonl"]);
    assert_eq!(done.status.code(), Some(1), "one of them is none");
    let lines: Vec<BlobLine> = done
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a line"))
        .collect();
    let held = lines.iter().filter(|line| matches!(line, BlobLine::Held { .. })).count();
    assert_eq!((held, lines.len()), (4, 5), "{lines:?}");
    assert_eq!(holders(&client, digest).await.len(), 4);

    let leader = rig.leader(0).await;
    rig.swarm.kill(leader).await.expect("killed");
    let asked = rig.client((leader + 1) % 4);
    eventually("the next leader hears of the three", async || (holders(&asked, digest).await.len() == 3).then_some(())).await;
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_killed_fetches_at_most_eight_segments_again() {
    let mut rig = Rig::start(3).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (file, data) = (dir.path().join("data"), bytes(256 * MIB));
    std::fs::write(&file, &data).expect("written");
    let digest = put(&rig.swarm.nodes()[0].socket.clone(), &file);
    let mut lines = rig.client(2).fetch_blob(digest).await.expect("it begins");
    let before = loop {
        match lines.next().await.expect("it goes on").expect("it is not over") {
            BlobLine::Progress { have, .. } if have >= 40 * MIB as u64 => break have,
            BlobLine::Progress { .. } => {}
            end @ (BlobLine::Held { .. } | BlobLine::Failed { .. }) => panic!("it was too fast to be killed: {end:?}"),
        }
    };
    rig.swarm.kill(2).await.expect("killed");
    rig.swarm.restart(2).expect("started");
    let client = rig.client(2);
    let mut lines = eventually("it answers", async || client.fetch_blob(digest).await.ok()).await;
    let mut first = None;
    loop {
        match lines.next().await.expect("it goes on").expect("it is not over") {
            BlobLine::Progress { have, size, .. } if size > 0 => drop(first.get_or_insert(have)),
            BlobLine::Progress { .. } => {}
            BlobLine::Held { .. } => break,
            BlobLine::Failed { problem, .. } if problem.code == Code::NoLeader || problem.code == Code::NotFound => {
                // it is not a member again yet
                lines = eventually("it answers", async || client.fetch_blob(digest).await.ok()).await;
            }
            BlobLine::Failed { problem, .. } => panic!("{problem}"),
        }
    }
    let first = first.expect("it went on");
    assert!(first + 8 * MIB as u64 >= before, "{before} bytes were there, {first} are left");
    let taken = client.status().await.expect("it answers").blobs_taken;
    assert!(taken <= (data.len() + 8 * MIB) as u64 - before, "{before} bytes were there, and {taken} came");
    let mut reader = client.read_blob(digest).await.expect("it is there");
    let mut at = 0;
    while let Some(piece) = reader.next().await.expect("it comes whole") {
        assert!(data[at..at + piece.len()] == piece[..], "at {at}");
        at += piece.len();
    }
    assert_eq!(at, data.len());
    rig.swarm.stop().await;
}

#[tokio::test]
async fn what_rots_on_a_disk_is_never_given_out_and_is_healed_from_another() {
    let rig = Rig::start(3).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (file, data) = (dir.path().join("data"), bytes(5 * MIB));
    std::fs::write(&file, &data).expect("written");
    let sockets: Vec<PathBuf> = rig.swarm.nodes().iter().map(|node| node.socket.clone()).collect();
    let digest = put(&sockets[0], &file);
    let name = digest.to_string();
    let rot = |n: usize| {
        let mut stored = std::fs::OpenOptions::new().write(true).open(stored(&rig, n, digest)).expect("it is there");
        stored.seek(SeekFrom::Start(3 * MIB as u64 + 5)).expect("it is long enough");
        stored.write_all(b"rot").expect("it can be written");
    };
    rot(0);
    // a part is given where what it is made of is sound
    let here = rig.client(0);
    let mut rest = here.read_blob_from(digest, 4 * MIB as u64 + 3).await.expect("it is there");
    let mut got = Vec::new();
    while let Some(piece) = rest.next().await.expect("it comes") {
        got.extend_from_slice(&piece);
    }
    assert!(got == data[4 * MIB + 3..]);
    assert!(here.read_blob_from(digest, 4 * MIB as u64 - 1).await.is_err(), "a part that begins where it rots");
    let to = dir.path().join("got");
    for n in [0, 1] {
        let done = ctl(&sockets[n], &["blob", "get", &name, &to.display().to_string()]);
        assert!(!done.status.success() && !to.exists(), "{n}: {}", String::from_utf8_lossy(&done.stderr));
    }
    // nobody has it sound, so what is lost is said
    let done = ctl(&sockets[0], &["blob", "verify", &name]);
    assert_eq!(done.status.code(), Some(3), "{}", String::from_utf8_lossy(&done.stderr));
    // put again somewhere else, it heals there; what was sound was kept
    assert_eq!(put(&sockets[1], &file), digest);
    let client = rig.client(0);
    eventually("the leader knows", async || (!holders(&client, digest).await.is_empty()).then_some(())).await;
    let done = ctl(&sockets[0], &["blob", "get", &name, &to.display().to_string()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(std::fs::read(&to).expect("a file") == data);
    rot(1);
    let done = ctl(&sockets[1], &["blob", "verify", &name]);
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && told.contains("in 1 segments"), "{told}{}", String::from_utf8_lossy(&done.stderr));
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_node_whose_disk_rots_hears_it_from_those_to_whom_it_gives_and_heals() {
    let rig = Rig::start(3).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (file, data) = (dir.path().join("data"), bytes(40 * MIB + 1));
    std::fs::write(&file, &data).expect("written");
    let sockets: Vec<PathBuf> = rig.swarm.nodes().iter().map(|node| node.socket.clone()).collect();
    let digest = put(&sockets[0], &file);
    assert_eq!(put(&sockets[1], &file), digest);
    let client = rig.client(2);
    eventually("the leader knows both", async || (holders(&client, digest).await.len() == 2).then_some(())).await;
    // whatever is asked of it but the end
    let path = stored(&rig, 1, digest);
    let mut disk = std::fs::OpenOptions::new().write(true).open(&path).expect("it is there");
    for segment in 0..40 {
        disk.seek(SeekFrom::Start(segment * MIB as u64 + 5)).expect("it is long enough");
        disk.write_all(b"rot").expect("it can be written");
    }
    drop(disk);
    let to = dir.path().join("got");
    run(&sockets[2], &["blob", "get", &digest.to_string(), &to.display().to_string()]);
    assert!(std::fs::read(&to).expect("a file") == data);
    // whoever got it has said who lied, and that one knows by now and has fetched it again
    let liar = rig.swarm.nodes()[1].name.clone();
    let named = async || {
        client.node_events(0).await.ok()?.iter().any(|event| event.text.contains(&format!("{liar} gave what is not blob"))).then_some(())
    };
    eventually("the liar is named", named).await;
    eventually("it is healed", async || std::fs::read(&path).is_ok_and(|stored| stored == data).then_some(())).await;
    rig.swarm.stop().await;
}

#[test]
fn the_benchmark_tells_that_nothing_passes_through_the_leader() {
    let args = ["bench", "blob", "--size", "16MiB", "--rounds", "1", "-o", "json"];
    let output = std::process::Command::new(program("swarmctl")).args(args).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["size"], 16 * MIB);
    assert_eq!(report["rounds"], 1);
    for figure in ["/gbit_s", "/raw_quic_gbit_s", "/ratio", "/control_p99_ms/idle", "/control_p99_ms/busy"] {
        let value = report.pointer(figure).and_then(serde_json::Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{figure}: {report}");
    }
    for side in ["/cpu_s_per_gib/send", "/cpu_s_per_gib/recv"] {
        assert!(report.pointer(side).is_some_and(serde_json::Value::is_f64), "{side}: {report}");
    }
    assert_eq!(report["leader_payload_bytes"], 0);
    assert!(report["datagrams_a_call"].as_u64().is_some_and(|most| most > 0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gives_no_faster_than_its_operator_wants() {
    let hosts = Hosts::start(2, |config| config.blobs.send_rate_per_node = Some(MIB as u64)).await;
    hosts.unite().await;
    let data = bytes(3 * MIB);
    let put = hosts.list[0].client().put_bytes(data.clone().into(), false).await.expect("it is put");
    let other = hosts.list[1].client();
    eventually("the leader knows", async || other.blob(put.digest).await.ok()).await;
    let began = std::time::Instant::now();
    let mut reader = other.read_blob(put.digest).await.expect("it comes");
    let mut got = Vec::new();
    while let Some(piece) = reader.next().await.expect("all of it") {
        got.extend_from_slice(&piece);
    }
    assert!(got == data);
    assert!(began.elapsed() > std::time::Duration::from_millis(2_500), "3 MiB at 1 MiB a second: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_changed_while_nobody_asked_for_them_are_found() {
    let hosts = Hosts::start(2, |config| config.blobs.scrub_every = Some(std::time::Duration::from_secs(1))).await;
    hosts.unite().await;
    let data = bytes(3 * MIB);
    let put = hosts.list[0].client().put_bytes(data.clone().into(), false).await.expect("it is put");
    let client = hosts.list[1].client();
    eventually("the leader knows", async || client.blob(put.digest).await.ok()).await;
    let mut lines = client.fetch_blob(put.digest).await.expect("it begins");
    while let Some(line) = lines.next().await.expect("it comes") {
        assert!(!matches!(line, BlobLine::Failed { .. }), "{line:?}");
    }
    let name = put.digest.to_string();
    let path = hosts.list[1].state.join("blobs/whole").join(&name[..2]).join(&name);
    let mut rotten = data.clone();
    rotten[2 * MIB] ^= 4;
    std::fs::write(&path, rotten).expect("it can be written");
    eventually("it is found and healed", async || std::fs::read(&path).is_ok_and(|stored| stored == data).then_some(())).await;
    let told = client.node_events(0).await.expect("events");
    assert!(told.iter().any(|event| event.text.contains("had changed on the disk and is fetched again")), "{told:?}");
}

/// Stands between a client and a daemon's socket, and lets each connection have so many bytes of the daemon until it may have more.
async fn narrow(at: PathBuf, daemon: PathBuf, most: watch::Receiver<usize>) {
    let listener = UnixListener::bind(at).expect("a socket");
    loop {
        let (client, _) = listener.accept().await.expect("a client");
        let (daemon, mut most) = (daemon.clone(), most.clone());
        tokio::spawn(async move {
            let Ok(daemon) = UnixStream::connect(daemon).await else { return };
            let ((mut from_client, mut to_client), (mut from_daemon, mut to_daemon)) = (client.into_split(), daemon.into_split());
            let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_daemon).await });
            let (mut passed, mut room) = (0, vec![0; 64 << 10]);
            while let Ok(count @ 1..) = from_daemon.read(&mut room).await {
                passed += count;
                if most.wait_for(|most| passed <= *most).await.is_err() || to_client.write_all(&room[..count]).await.is_err() {
                    break;
                }
            }
            asking.abort();
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_outlives_the_daemon_that_gives_it_and_the_next_one_goes_on() {
    let mut hosts = Hosts::start(2, |_| ()).await;
    hosts.unite().await;
    let data = bytes(64 * MIB);
    let put = hosts.list[0].client().put_bytes(data.clone().into(), false).await.expect("it is put");
    let other = hosts.list[1].client();
    eventually("the leader knows", async || other.blob(put.digest).await.ok()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (to, part) = (dir.path().join("got"), dir.path().join(format!(".swarmctl.{}.part", put.digest)));
    let (most, allowed) = watch::channel(16 * MIB);
    let socket = dir.path().join("narrow.sock");
    let between = tokio::spawn(narrow(socket.clone(), hosts.list[1].socket.clone(), allowed));
    let get = || {
        let mut command = std::process::Command::new(program("swarmctl"));
        command.args(["blob", "get", &put.digest.to_string()]).arg(&to).env("SWARM_SOCKET", &socket);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    };
    let here = || std::fs::metadata(&part).map_or(0, |of| of.len());
    let reaches = async |len: usize| eventually("it comes", async || (here() >= len as u64).then_some(())).await;

    let mut first = get();
    reaches(8 * MIB).await;
    first.kill().expect("killed");
    first.wait().expect("it ended");
    let left = here();
    assert!(left <= 16 * MIB as u64, "{left}");
    let second = get();
    reaches(usize::try_from(left).expect("small") + 8 * MIB).await;
    hosts.list[1].kill();
    assert!(here() <= left + 16 * MIB as u64, "{} after {left}", here());
    most.send_replace(usize::MAX);
    hosts.list[1].run();
    let done = second.wait_with_output().expect("it ended");
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && told.contains("going on from there"), "{told}");
    assert!(std::fs::read(&to).expect("a file") == data && !part.exists());
    between.abort();
}

/// Puts bytes by standard input, and gives the name that is printed.
fn put_stdin(socket: &Path, data: &[u8]) -> String {
    let mut putting = std::process::Command::new(program("swarmctl"));
    putting.args(["blob", "put", "-"]).env("SWARM_SOCKET", socket).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = putting.spawn().expect("swarmctl starts");
    child.stdin.take().expect("piped").write_all(data).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.success());
    name(&String::from_utf8(done.stdout).expect("text")).to_owned()
}

#[tokio::test]
async fn what_is_pinned_by_hand_stays_where_the_rest_is_collected() {
    let rig = Rig::start(2).await;
    let [one, two] = [0, 1].map(|n| rig.swarm.nodes()[n].socket.clone());
    let (wanted, other) = (bytes(3 * MIB), vec![7; 2 * MIB]);
    let [wanted_name, other_name] = [&wanted, &other].map(|data| put_stdin(&one, data));
    assert_eq!(wanted_name, blake3::hash(&wanted).to_string());
    eventually("the leader knows", async || {
        (holders(&rig.client(1), wanted_name.parse().expect("a digest")).await.len() == 1).then_some(())
    })
    .await;
    // it is not there yet
    run(&two, &["blob", "pin", &wanted_name]);
    run(&one, &["blob", "pin", &wanted_name]);
    let here = |socket: &Path| run(socket, &["blob", "list", "--here", "-o", "json"]);
    assert!(here(&two).contains(&wanted_name) && here(&one).contains(&other_name));
    // what is kept for it is not more than it is
    run(&one, &["blob", "gc", "--keep", "3MiB"]);
    assert!(here(&one).contains(&wanted_name) && !here(&one).contains(&other_name), "{}", here(&one));
    run(&one, &["blob", "gc"]);
    assert!(here(&one).contains(&wanted_name), "it is pinned");
    run(&one, &["blob", "unpin", &wanted_name]);
    run(&one, &["blob", "gc"]);
    assert!(!here(&one).contains(&wanted_name) && here(&two).contains(&wanted_name));
    // and comes back from there
    assert_eq!(ctl(&one, &["blob", "get", &wanted_name, "-"]).stdout, wanted);
}

/// What swarmctl shows on a terminal while it runs.
fn shown(socket: &Path, args: &[&str]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("it is ours");
    unlockpt(&terminal).expect("it opens");
    let name = ptsname(&terminal, Vec::new()).expect("its name").into_string().expect("text");
    let end = std::fs::File::options().read(true).write(true).open(&name).expect("its other end");
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).expect("a size");
    let mut child = std::process::Command::new(program("swarmctl"))
        .args(args)
        .env("SWARM_SOCKET", socket)
        .stdout(Stdio::null())
        .stderr(end)
        .spawn()
        .expect("starts");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        // the last end that is closed is an error here
        let _ = std::io::Read::read_to_end(&mut std::fs::File::from(terminal), &mut all);
        String::from_utf8(all).expect("text")
    });
    let done = child.wait().expect("it ends");
    let shown = reader.join().expect("all of it");
    assert!(done.success(), "{shown}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_how_far_a_blob_is_and_from_whom_it_comes() {
    let hosts = Hosts::start(2, |config| config.blobs.send_rate_per_node = Some(4 * MIB as u64)).await;
    hosts.unite().await;
    let put = hosts.list[0].client().put_bytes(bytes(12 * MIB).into(), false).await.expect("it is put");
    let other = hosts.list[1].client();
    eventually("the leader knows", async || other.blob(put.digest).await.ok()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let to = dir.path().join("got").display().to_string();
    let shown = tokio::task::block_in_place(|| shown(&hosts.list[1].socket, &["blob", "get", &put.digest.to_string(), &to]));
    // such as: █████░░░░░ 5.00 MiB/12.00 MiB 4.01 MiB/s 2s host1 4.0 MiB/s
    let line = shown
        .split(['\r', '\n'])
        .rfind(|line| line.contains("/12.00 MiB ") && line.contains("host1 "))
        .unwrap_or_else(|| panic!("{shown}"));
    let has_eta = |word: &str| word.strip_suffix('s').is_some_and(|span| span.parse::<u32>().is_ok());
    assert!(line.matches("iB/s").count() >= 2 && line.split(' ').any(has_eta), "{line}");
}
