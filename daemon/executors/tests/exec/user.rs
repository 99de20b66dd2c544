//! Tasks that run as another user than their keeper. Only root can show it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use swarm_executors::Executor;
use swarm_proto::ledger::End;

use crate::rig::{Rig, keeper_pid, said, signal, until};

const USER: &str = "nobody";

#[expect(clippy::print_stderr, reason = "a test speaks to whoever runs it")]
fn skip(why: &str) {
    assert!(std::env::var_os("SWARM_NOTHING_SKIPPED").is_none(), "nothing may be skipped here: {why}");
    eprintln!("skipped: {why}");
}

/// A home for the tasks, and a keeper that gives it to them. `None` where this test may not change users.
pub(crate) async fn rig() -> Option<(Rig, tempfile::TempDir)> {
    if !rustix::process::geteuid().is_root() {
        skip("tasks as another user than the keeper: only root can change users");
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    let nobody = swarm_executors::TaskUser::find(USER).unwrap();
    std::os::unix::fs::chown(home.path(), Some(nobody.uid), Some(nobody.gid)).unwrap();
    Some((Rig::new_as(USER, home.path()).await, home))
}

fn uid_of(pid: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned()
}

#[tokio::test]
async fn a_task_is_its_user_and_nothing_more() {
    let Some((mut rig, home)) = rig().await else { return };
    let key = rig.sh("id -un; id -gn; grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2 | sort -u; echo $HOME $USER $LOGNAME; \
                      stat -c %U:%a .; pwd; echo by name >/dev/stderr; cat /dev/stdin </dev/null; ls / >/dev/null");
    let outcome = rig.ended(key).await;
    let lines: Vec<&str> = said(&outcome).lines().collect();
    let home = home.path().display().to_string();
    assert_eq!(lines[..3], [USER, "nogroup", "0000000000000000"], "{lines:?}");
    assert_eq!(lines[3], format!("{home} {USER} {USER}"));
    assert_eq!(lines[4], format!("{USER}:700"));
    // one of its keeper's, in the directory of them all
    assert_eq!(Path::new(lines[5]).ancestors().nth(2), Some(Path::new(&home).join("work").as_path()), "{lines:?}");
    assert_eq!(&outcome.output.unwrap().stderr[..], b"by name\n");
}

#[tokio::test]
async fn files_come_and_go_as_the_user() {
    let Some((rig, _home)) = rig().await else { return };
    crate::files::there_and_back(rig).await;
}

#[tokio::test]
async fn no_task_reads_what_is_the_daemon_s() {
    let Some((mut rig, _home)) = rig().await else { return };
    // as a state directory is: private, with a private key
    let state = rig.dir.parent().unwrap().to_owned();
    fs::write(state.join("node.key"), "secret").unwrap();
    for (path, mode) in [(state.clone(), 0o700), (state.join("node.key"), 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let keeper_of = |dir: &Path| keeper_pid(dir).to_string();
    let first = rig.sh("true");
    rig.ended(first).await;
    let (state, keeper) = (state.display().to_string(), keeper_of(&rig.dir));
    for (what, script) in [
        ("the key", format!("cat {state}/node.key")),
        ("the directory", format!("ls {state}")),
        ("the keeper's memory", format!("head -c1 /proc/{keeper}/mem")),
        ("its environment", format!("cat /proc/{keeper}/environ")),
        ("its files", format!("ls /proc/{keeper}/fd/")),
        ("a way to its socket", format!("cat < {}/keeper.sock", rig.dir.display())),
        ("a file beside the key", format!("touch {state}/x")),
    ] {
        let key = rig.sh(&format!("exec 2>&1; {script}"));
        let outcome = rig.ended(key).await;
        assert!(matches!(outcome.end, End::Exit(_)), "{what}: {outcome:?}");
        let output = String::from_utf8_lossy(&outcome.output.unwrap().stdout).into_owned();
        assert!(output.contains("ermission denied"), "{what}: {output}");
    }
}

#[tokio::test]
async fn a_task_cannot_end_its_keeper() {
    let Some((mut rig, _home)) = rig().await else { return };
    let first = rig.sh("true");
    rig.ended(first).await;
    let keeper = keeper_pid(&rig.dir);
    // each thread by its own id too, again and again, while the keeper acts in the tasks' name
    let attack = format!(
        "i=0; while [ $i -lt 300 ]; do i=$((i+1)); for t in /proc/{keeper}/task/*; do \
         if kill -9 ${{t##*/}} 2>/dev/null; then echo killed; fi; done; done; echo tried"
    );
    let attacker = rig.sh(&attack);
    for _ in 0..200 {
        let busy = rig.sh("(setsid sleep 0.01 &); touch left");
        rig.ended(busy).await;
    }
    assert_eq!(said(&rig.ended(attacker).await), "tried\n");
    assert_eq!(keeper_pid(&rig.dir), keeper);
}

#[tokio::test]
async fn a_tree_of_another_user_ends_whole() {
    let Some((mut rig, _home)) = rig().await else { return };
    let forest = "trap '' TERM; sleep 1000 & (setsid sh -c 'trap \"\" TERM; sleep 1001 & sleep 1002' &); \
                  sh -c '(sleep 1003 &); exec sleep 1004' & echo planted; sleep 1005";
    for end in [End::Cancelled, End::Lost] {
        let key = rig.sh(forest);
        rig.wait_for_line(key, "planted").await;
        until("the forest stands", || rig.left().len() >= 7).await;
        let one = rig.left()[0].to_string();
        assert!(uid_of(&one).contains("65534\t65534\t65534\t65534"), "{}", uid_of(&one));
        rig.exec.kill(key.0, key.1, end.clone());
        assert_eq!(rig.ended(key).await.end, end);
        assert!(rig.left().is_empty());
    }
    let key = rig.sh("(setsid sleep 1006 &); sleep 0.1; exit 5");
    assert_eq!(rig.ended(key).await.end, End::Exit(5));
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn a_killed_keeper_s_tasks_of_another_user_are_gone() {
    let Some((mut rig, home)) = rig().await else { return };
    let key = rig.sh("(setsid sleep 1000 &); sleep 1001 & mkdir -p a/b; echo up; sleep 1002");
    rig.wait_for_line(key, "up").await;
    signal(keeper_pid(&rig.dir), Signal::KILL);
    assert_eq!(rig.ended(key).await.end, End::Lost);
    assert!(rig.left().is_empty());
    let key = rig.sh("id -un");
    assert_eq!(said(&rig.ended(key).await), format!("{USER}\n"));
    let is_one = || fs::read_dir(home.path().join("work")).unwrap().count() == 1;
    until("the directories of the first keeper are removed", is_one).await;
}

#[tokio::test]
async fn what_a_task_of_another_user_leaves_goes_and_its_links_lead_nowhere() {
    let Some((mut rig, home)) = rig().await else { return };
    let outside = tempfile::tempdir().unwrap();
    let kept = outside.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    for script in ["mkdir -p a/b && echo x >a/b/c", &format!("ln -s {} out", outside.path().display()), "rmdir $PWD", "chmod 500 ."] {
        let key = rig.sh(&format!("ls -A; {script}"));
        assert_eq!(said(&rig.ended(key).await), "", "{script}");
    }
    let work = home.path().join("work");
    let left = || {
        let keepers = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().path());
        let dirs = keepers.flat_map(|keeper| fs::read_dir(keeper).unwrap()).map(|entry| entry.unwrap().path());
        // one that goes while it is looked at is gone
        let is_used = |dir: &PathBuf| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        dirs.filter(|dir| is_used(dir) || dir.metadata().is_ok_and(|metadata| metadata.uid() != 65534)).count()
    };
    until("only empty directories are left", || left() == 0).await;
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
}
