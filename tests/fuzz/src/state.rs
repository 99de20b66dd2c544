//! What a daemon keeps of itself in its state directory, whatever happened to that: its records, which swarm it belongs to, its
//! key and certificates, the key of its blobs, the id of its keeper.

use swarm_proto::{ClusterId, NodeId, PeerKey, RaftDir, ledger::View};
use swarm_transport::{Identity, SecretKey, Validity, with_check};
use swarmd::{fuzzing, host::ClusterFile};

use crate::{certificate, input::Input};

/// The first byte's lowest bit: a checksum that is right is put to what follows, else what follows has one or none. The rest of it
/// says which of these it is. The order is part of the corpus: append.
const KINDS: &[fn(&mut Input<'_>, bool)] = &[
    |input, is_right| record("member", input, is_right),
    |input, is_right| record("view", input, is_right),
    |input, is_right| record("signed", input, is_right),
    |input, is_right| rewritten(swarm_consensus::fuzzing::owner, &crc_before(input.rest(), is_right)),
    cluster,
    founding,
    identity,
    blob_key,
    keeper,
];

pub(crate) fn files(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = input.byte();
    KINDS[usize::from(kind >> 1) % KINDS.len()](&mut input, kind & 1 == 1);
}

fn crc_before(body: &[u8], is_right: bool) -> Vec<u8> {
    if is_right { [&crc32fast::hash(body).to_le_bytes()[..], body].concat() } else { body.to_vec() }
}

/// What is read is written in no more bytes, and read the same.
fn rewritten(read: impl Fn(&[u8]) -> Option<Vec<u8>>, file: &[u8]) {
    if let Some(written) = read(file) {
        assert!(written.len() <= file.len(), "{} bytes become {}", file.len(), written.len());
        assert_eq!(read(&written).as_ref(), Some(&written), "a file that changes");
    }
}

fn record(name: &str, input: &mut Input<'_>, is_right: bool) {
    let (_, read) = fuzzing::RECORDS.iter().find(|(known, _)| *known == name).expect("a record");
    rewritten(read, &crc_before(input.rest(), is_right));
}

fn text_of(bytes: &[u8], is_right: bool) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(if is_right { with_check(text) } else { text.to_owned() })
}

fn cluster(input: &mut Input<'_>, is_right: bool) {
    let Some(text) = text_of(input.rest(), is_right) else { return };
    if let Some(file) = fuzzing::cluster(&text) {
        assert_eq!(fuzzing::cluster(&fuzzing::cluster_file(&file)), Some(file), "a file that changes");
    }
}

fn founding(input: &mut Input<'_>, is_right: bool) {
    let mut file = input.rest().to_vec();
    if is_right {
        file.extend_from_slice(blake3::hash(&file).as_bytes());
    }
    rewritten(fuzzing::founding, &file);
}

/// Of the three files those that are empty are the ones of a node that there is.
fn identity(input: &mut Input<'_>, is_right: bool) {
    let good = swarm_transport::fuzzing::files_of(node());
    let given = [input.piece(), input.piece(), input.rest()];
    let mut files = good.clone();
    for (file, given) in files.iter_mut().zip(given).filter(|(_, given)| !given.is_empty()) {
        let Some(text) = text_of(given, is_right) else { return };
        *file = text;
    }
    let is_good = given.iter().all(|given| given.is_empty());
    let read = swarm_transport::fuzzing::identity(files.each_ref().map(String::as_str));
    assert!(!is_good || read == Some(good), "what was written is read");
    if let Some(written) = read {
        assert_eq!(swarm_transport::fuzzing::identity(written.each_ref().map(String::as_str)), Some(written), "files that change");
    }
}

fn node() -> &'static Identity {
    static NODE: std::sync::OnceLock<Identity> = std::sync::OnceLock::new();
    NODE.get_or_init(|| {
        let ca = certificate::authority();
        let key = SecretKey::from_seed(&[2; 32]).expect("a seed");
        ca.identity(key, Validity::CENTURY).expect("an identity")
    })
}

fn blob_key(input: &mut Input<'_>, is_right: bool) {
    let file = match input.0.split_first_chunk() {
        Some((key, _)) if is_right => swarm_blobstore::fuzzing::key_file(key),
        Some(_) | None => input.0.to_vec(),
    };
    let key = swarm_blobstore::fuzzing::key_in(&file);
    assert!(!is_right || file.len() < 32 || key.is_some(), "a key that was written is read");
    if let Some(key) = key {
        assert!(file.starts_with(&key) && swarm_blobstore::fuzzing::key_in(&swarm_blobstore::fuzzing::key_file(&key)) == Some(key));
    }
}

fn keeper(input: &mut Input<'_>, _: bool) {
    if let Some((id, line)) = swarm_executors::fuzzing::id_in(input.rest()) {
        let again = swarm_executors::fuzzing::id_in(line.as_bytes());
        assert_eq!(again.map(|(again, _)| again), Some(id), "an id that changes");
    }
}

/// Each file as it is written; and what lies behind its checksum, for those that are given a right one.
pub(crate) fn seeds(view: &View) -> Vec<Vec<u8>> {
    let of = |kind: u8, is_right: bool, bytes: &[u8]| [&[kind << 1 | u8::from(is_right)], bytes].concat();
    let view = swarm_consensus::fuzzing::written(view).unwrap_or_default();
    let member = fuzzing::member(NodeId(3), RaftDir([2; 16])).unwrap_or_default();
    let rows = vec![(PeerKey([7; 32]), "k", swarm_proto::JobId(7), swarm_proto::UnixMillis(5_000))];
    let signed = swarm_consensus::fuzzing::written(&(swarm_proto::UnixMillis(9), rows)).unwrap_or_default();
    let owner = swarm_consensus::fuzzing::written(&(NodeId(3), ClusterId([1; 16]), RaftDir([2; 16]))).unwrap_or_default();
    let mut list = Vec::new();
    for (kind, file) in [member, view, signed, owner].into_iter().enumerate() {
        list.extend([of(kind as u8, false, &file), of(kind as u8, true, &file[4..])]);
    }
    let cluster = ClusterFile { cluster: ClusterId([7; 16]), founder: true, epoch: 2, recover: false };
    let cluster = fuzzing::cluster_file(&cluster);
    let bare = &cluster[cluster.find('\n').map_or(0, |end| end + 1)..];
    list.extend([of(4, false, cluster.as_bytes()), of(4, true, bare.as_bytes()), of(4, false, bare.as_bytes())]);
    let authority = certificate::authority().authority();
    let found = swarm_proto::identity::Found {
        cluster: ClusterId([1; 16]),
        nodes: authority.clone(),
        users: authority,
        first: vec![PeerKey([7; 32])],
    };
    list.push(of(5, true, &super::seeds::encoded(&found)));
    let [key, certificates, roots] = swarm_transport::fuzzing::files_of(node());
    let files = |parts: [&str; 3]| {
        [super::seeds::piece(parts[0].as_bytes()), super::seeds::piece(parts[1].as_bytes()), parts[2].as_bytes().to_vec()].concat()
    };
    list.push(of(6, false, &files([&key, &certificates, &roots])));
    list.push(of(6, false, &files([&key, "", ""])));
    let after_check = |text: &str| text.split_once('\n').map_or_else(String::new, |(_, text)| text.to_owned());
    list.push(of(6, true, &files(["", &after_check(&certificates), &after_check(&roots)])));
    list.extend([of(7, true, &[5; 32]), of(7, false, &swarm_blobstore::fuzzing::key_file(&[6; 32]))]);
    let id = "0123456789abcdef".repeat(2);
    let line = swarm_executors::fuzzing::id_in(id.as_bytes()).map(|(_, line)| line).unwrap_or_default();
    list.extend([of(8, false, id.as_bytes()), of(8, false, line.as_bytes())]);
    list
}
