//! Blobs that are got over several connections, or by several calls.

use std::fs;

use swarm_proto::Digest;

use crate::{Swarm, fake::blobs::LetDown, with_swarm};

const MIB: usize = 1 << 20;
const END: u64 = u64::MAX;

/// A blob of five MiB and a bit, where it goes to, and where it stands before it is whole.
struct Scene {
    data: Vec<u8>,
    digest: Digest,
    to: std::path::PathBuf,
    part: std::path::PathBuf,
}

impl Scene {
    fn new(swarm: &Swarm) -> Self {
        let data: Vec<u8> = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(5 * MIB + 7).collect();
        let digest = swarm.fake.blobs.put(data.clone());
        let dir = swarm.dir.path();
        Self { data, digest, to: dir.join("to"), part: dir.join(format!(".swarmctl.{digest}.part")) }
    }

    fn get(&self) -> [String; 4] {
        ["blob".into(), "get".into(), self.digest.to_string(), self.to.display().to_string()]
    }

    fn is_whole(&self) -> bool {
        !self.part.exists() && fs::read(&self.to).unwrap() == self.data
    }
}

fn let_down(swarm: &Swarm, how: LetDown) {
    swarm.fake.blobs.lets_down.lock().unwrap().push_back(how);
}

/// All of it was asked for, then each time what was not sent before. A break takes with it what is on its way.
fn goes_on(swarm: &Swarm, sent: &[usize]) {
    let reads = swarm.fake.blobs.reads();
    assert_eq!((reads.len(), &reads[0]), (sent.len() + 1, &(0..END)));
    for (read, sent) in reads[1..].iter().zip(sent) {
        assert!((sent - MIB / 2..=*sent).contains(&usize::try_from(read.start).unwrap()), "{reads:?}");
    }
}

#[test]
fn a_daemon_that_goes_away_half_way_is_asked_for_the_rest() {
    with_swarm(async |swarm| {
        let scene = Scene::new(&swarm);
        let get = scene.get();
        let words: Vec<&str> = get.iter().map(String::as_str).collect();
        let_down(&swarm, LetDown::Broken(2 * MIB));
        let_down(&swarm, LetDown::Broken(MIB));
        let got = swarm.call(&words).await;
        got.is(0, "");
        assert_eq!(got.stderr.matches(" MiB of 5.0 MiB (").count(), 2, "{got:?}");
        goes_on(&swarm, &[2 * MIB, 3 * MIB]);
        assert!(scene.is_whole());
        // to standard output too
        let_down(&swarm, LetDown::Broken(2 * MIB));
        let printed = swarm.command(&words[..3]).output().await.unwrap();
        assert!(printed.status.success() && printed.stdout == scene.data, "{}", String::from_utf8_lossy(&printed.stderr));
        goes_on(&swarm, &[2 * MIB]);
    });
}

#[test]
fn what_a_killed_call_got_is_not_asked_for_again() {
    with_swarm(async |swarm| {
        let scene = Scene::new(&swarm);
        let get = scene.get();
        let words: Vec<&str> = get.iter().map(String::as_str).collect();
        let_down(&swarm, LetDown::Stalled(3 * MIB));
        let mut child = swarm.command(&words).spawn().unwrap();
        while fs::metadata(&scene.part).map_or(0, |metadata| metadata.len()) < 3 * MIB as u64 {
            tokio::task::yield_now().await;
        }
        child.kill().await.unwrap();
        assert!(!scene.to.exists());
        swarm.call(&words).await.is(0, "");
        assert_eq!(swarm.fake.blobs.reads(), [0..END, 3 * MIB as u64..END]);
        assert!(scene.is_whole());
        // all of it is there, but for its name
        fs::rename(&scene.to, &scene.part).unwrap();
        swarm.call(&words).await.is(0, "");
        assert!(scene.is_whole());
    });
}

#[test]
fn what_was_interrupted_is_kept_where_it_is_much() {
    with_swarm(async |swarm| {
        let scene = Scene::new(&swarm);
        let get = scene.get();
        let words: Vec<&str> = get.iter().map(String::as_str).collect();
        for (sent, is_kept) in [(MIB / 2, false), (2 * MIB, true)] {
            let_down(&swarm, LetDown::Stalled(sent));
            let has_come = async || {
                while fs::metadata(&scene.part).map_or(0, |metadata| metadata.len()) < sent as u64 {
                    tokio::task::yield_now().await;
                }
            };
            swarm.interrupt(&words, has_come()).await.is(130, "");
            assert_eq!((scene.part.exists(), scene.to.exists()), (is_kept, false));
        }
        swarm.call(&words).await.is(0, "");
        assert_eq!(swarm.fake.blobs.reads().last(), Some(&(2 * MIB as u64..END)));
        assert!(scene.is_whole());
    });
}

#[test]
fn what_is_wrong_in_what_was_left_never_gets_its_name() {
    with_swarm(async |swarm| {
        let scene = Scene::new(&swarm);
        let get = scene.get();
        let words: Vec<&str> = get.iter().map(String::as_str).collect();
        let mut wrong = scene.data[..2 * MIB].to_vec();
        wrong[MIB] ^= 1;
        // a wrong byte in it; as long as all of it; longer
        for (left, reads) in [
            (wrong, vec![2 * MIB as u64..END, 0..END]),
            (vec![7; scene.data.len()], vec![scene.data.len() as u64..END, 0..END]),
            (vec![7; 9 * MIB], vec![9 * MIB as u64..END, 0..END]),
        ] {
            let _ = fs::remove_file(&scene.to);
            fs::write(&scene.part, left).unwrap();
            let got = swarm.call(&words).await;
            got.is(0, "");
            assert!(got.stderr.contains("is wrong; all of it is got again"), "{got:?}");
            let asked = swarm.fake.blobs.reads();
            assert!(asked.ends_with(&reads), "{asked:?}");
            assert!(scene.is_whole());
        }
    });
}

#[test]
fn files_of_a_tree_go_on_too() {
    with_swarm(async |swarm| {
        let scene = Scene::new(&swarm);
        let from = swarm.dir.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::write(from.join("large"), &scene.data).unwrap();
        fs::write(from.join("small"), "x").unwrap();
        let put = swarm.call(&["blob", "put", from.to_str().unwrap()]).await;
        fs::create_dir(&scene.to).unwrap();
        fs::write(scene.to.join(format!(".swarmctl.{}.part", scene.digest)), &scene.data[..4 * MIB]).unwrap();
        let get = ["blob", "get", &put.stdout[..64], scene.to.to_str().unwrap(), "--tree"];
        swarm.call(&get).await.is(0, "");
        assert!(swarm.fake.blobs.reads().contains(&(4 * MIB as u64..END)));
        assert!(fs::read(scene.to.join("large")).unwrap() == scene.data);
        assert_eq!(fs::read_dir(&scene.to).unwrap().count(), 2);
        // what is there and right is not asked for
        swarm.call(&get).await.is(0, "");
        assert_eq!(swarm.fake.blobs.reads().len(), 1, "only what names them");
    });
}
