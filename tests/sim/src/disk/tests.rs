//! The simulated disk does what it says.

use super::*;

fn written(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let mut file = disk.mount().open("a").unwrap();
    file.write_at(0, &[0; 8 * SECTOR]).unwrap();
    file.sync().unwrap();
    disk.mount().sync_names().unwrap();
    file.write_at(100, &[7; 4 * SECTOR]).unwrap();
    disk
}

#[test]
fn a_power_cut_tears_what_was_not_synced() {
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = written(seed);
        disk.cut_power();
        let bytes = disk.read("a").unwrap();
        assert_eq!(bytes.len(), 8 * SECTOR);
        found.insert(bytes);
    }
    assert!(found.contains(&vec![0; 8 * SECTOR]), "all of it lost at times");
    assert!(found.len() > 10, "and torn in many ways");
}

#[test]
fn a_sync_keeps_and_a_kill_loses_nothing() {
    let disk = written(1);
    let mut file = disk.mount().open("a").unwrap();
    disk.kill();
    assert!(file.sync().is_err(), "of the process that is gone");
    assert_eq!(disk.read("a").unwrap()[100], 7);
    disk.mount().open("a").unwrap().sync().unwrap();
    disk.cut_power();
    assert_eq!(disk.read("a").unwrap()[100], 7);
}

#[test]
fn names_need_a_sync_of_their_own() {
    let mut kept = 0;
    for seed in 0..32 {
        let disk = SimDisk::new(seed);
        let mut file = disk.mount().open("a").unwrap();
        file.write_at(0, b"x").unwrap();
        file.sync().unwrap();
        disk.mount().rename("a", "b").unwrap();
        disk.cut_power();
        kept += usize::from(disk.names() == ["b"]);
        assert!(disk.names().len() <= 1, "a rename happens or does not");
    }
    assert!(kept > 0 && kept < 32);
}

#[test]
fn what_a_failed_sync_left_is_read_and_gone_with_the_power() {
    let mut kept = 0;
    let failed = |seed| {
        let disk = written(seed);
        let mut file = disk.mount().open("a").unwrap();
        disk.set_faults(|f| f.sync_fails = true);
        file.sync().unwrap_err();
        disk.set_faults(|f| f.sync_fails = false);
        assert_eq!(disk.read("a").unwrap()[100], 7, "it is read as if it were there");
        (disk, file)
    };
    for seed in 0..32 {
        let (disk, mut file) = failed(seed);
        file.sync().unwrap();
        disk.cut_power();
        kept += usize::from(disk.read("a").unwrap()[100] == 7);
        let (disk, mut file) = failed(seed);
        file.write_at(100, &[7; 4 * SECTOR]).unwrap();
        file.sync().unwrap();
        disk.cut_power();
        assert_eq!(disk.read("a").unwrap()[100], 7, "what is written again is durable");
    }
    assert!(kept > 0 && kept < 32, "{kept}");
}

#[test]
fn a_fuse_ends_the_process_before_within_or_after_an_operation() {
    for (blow, expected) in [(Blow::Before, [0, 0]), (Blow::Half, [7, 0]), (Blow::After, [7, 7])] {
        let (disk, fuse) = (SimDisk::new(1), Fuse::default());
        disk.set_fuse(&fuse);
        let mut file = disk.mount().open("a").unwrap();
        file.write_at(0, &[0; 4 * SECTOR]).unwrap();
        fuse.set(1, blow);
        file.sync().unwrap();
        assert!(!fuse.is_blown());
        assert!(file.write_at(0, &[7; 4 * SECTOR]).is_err() && fuse.is_blown());
        assert!(file.sync().is_err() && disk.mount().list().is_err(), "nothing is done by the dead");
        let bytes = disk.read("a").unwrap();
        assert_eq!([bytes[0], bytes[3 * SECTOR]], expected, "{blow:?}");
        fuse.renew();
        assert!(disk.mount().list().is_ok());
        assert_eq!(fuse.operations(), 4);
    }
}

#[test]
fn a_disk_takes_another_ones_place() {
    let (disk, old) = (written(1), SimDisk::new(2));
    let mut file = disk.mount().open("a").unwrap();
    disk.replace_with(&old);
    assert!(file.sync().is_err() && disk.names().is_empty());
    disk.replace_with(&written(1));
    assert_eq!(disk.read("a").unwrap()[100], 7);
}

#[test]
fn faults_do_what_they_say() {
    let disk = written(3);
    disk.set_faults(|f| f.is_full = true);
    let mut file = disk.mount().open("a").unwrap();
    assert!(file.write_at(0, &[1; SECTOR]).is_ok(), "no room is needed");
    assert_eq!(file.write_at(8 * SECTOR as u64, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.mount().open("b").err().map(|e| e.kind()), Some(io::ErrorKind::StorageFull));
    disk.set_faults(|f| (f.is_full, f.write_fails) = (false, true));
    assert!(file.write_at(0, b"x").is_err());
    disk.set_faults(|f| (f.write_fails, f.sync_fails, f.lies) = (false, true, true));
    assert!(file.sync().is_err());
    disk.set_faults(|f| f.sync_fails = false);
    file.sync().unwrap();
    let survivors = (0..64).filter(|seed| {
        let copy = written(*seed);
        copy.set_faults(|f| f.lies = true);
        copy.mount().open("a").unwrap().sync().unwrap();
        copy.cut_power();
        copy.read("a").unwrap()[100] == 7
    });
    assert!(survivors.count() < 64, "a lie shows after a power cut");
}
