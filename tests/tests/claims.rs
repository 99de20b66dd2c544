//! Who gets a blob of another node: not whoever knows its name.

use swarm_proto::{
    Code, Digest, JobId, Problem,
    api::Health,
    blob::{BlobAnswer, BlobPart, BlobRequest, Claim},
    peer::{Open, Owing},
};
use swarm_tests::{
    Hosts, eventually,
    intruder::{Intruder, hello},
};
use swarm_transport::{Connection, Plane};

/// Asks with the papers of a member.
async fn ask(connection: &Connection, digest: Digest, part: BlobPart, claim: Claim) -> Result<u64, Problem> {
    let request = BlobRequest { digest, part, takes_zstd: false, claim };
    let (mut tx, mut rx) = connection.open(&Open::Blob(request)).await.expect("a stream");
    let _ = tx.finish();
    match rx.recv::<BlobAnswer>().await.expect("the stream lives").expect("an answer") {
        BlobAnswer::Here { size, .. } => Ok(size),
        BlobAnswer::Refused(problem) => Err(problem),
        BlobAnswer::Coming => panic!("it is here, or nowhere"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_knows_a_name_gets_nothing_for_it() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    // the papers of one of them are in other hands now
    let status = hosts.list[2].answers().await;
    let (thief, cluster) = (status.node.expect("an id"), status.cluster);
    hosts.list[2].kill();
    let (rest, ip, state) = (&hosts.list[..2], hosts.list[2].ip, hosts.list[2].state.clone());
    let dir = tempfile::tempdir().expect("a directory");
    let (file, tree) = (dir.path().join("secret"), dir.path().join("tree"));
    std::fs::write(&file, vec![7; 3 << 20]).expect("written");
    std::fs::create_dir(&tree).expect("made");
    std::fs::write(tree.join("part"), vec![8; 2 << 20]).expect("written");
    let client = rest[0].client();
    eventually("it is known to be gone", async || {
        let nodes = client.nodes().await.ok()?;
        nodes.iter().any(|node| node.node == thief && node.health == Health::Down).then_some(())
    })
    .await;
    let said = rest[0].ok(&["blob", "put", &file.display().to_string()]);
    let secret: Digest = said.split_whitespace().next().expect("a name").parse().expect("a digest");
    // a job that nobody runs, and that the thief has nothing to do with; it was accepted, so both others have its files
    let input = format!("{}=in", tree.display());
    let said = rest[0].ok(&["submit", "--label", "place=nowhere", "--input", &input, "--", "true"]);
    let job: JobId = said.split_whitespace().last().expect("a job").parse().expect("an id");
    let manifest = client.job(job).await.expect("a job").spec.inputs.expect("its files").manifest;
    let part = Digest(*blake3::hash(&vec![8; 2 << 20]).as_bytes());

    let intruder = Intruder::with_papers_of(&state, hello(cluster, Some(thief), ip));
    let bulk = intruder.dial(&rest[0], Plane::Bulk).await.expect("a member gets in");
    let owing = |digest, is_tree| Claim::Keep(Owing { digest, is_tree });
    let lies = [
        (secret, Claim::Offer),
        (secret, Claim::Caller("nobody".into())),
        (secret, Claim::Job { job, root: secret }),
        (secret, Claim::Job { job: JobId(99), root: secret }),
        (secret, owing(secret, false)),
        // another thing's reason is none for this
        (secret, owing(manifest, true)),
        (secret, Claim::Job { job, root: manifest }),
        (part, Claim::Job { job, root: manifest }),
        (part, owing(manifest, true)),
        (manifest, owing(manifest, true)),
        // not even whether it is there
        (Digest([9; 32]), Claim::Offer),
    ];
    for (digest, claim) in lies {
        for part in [BlobPart::Outline, BlobPart::Follow, BlobPart::Segments(Vec::new())] {
            let said = ask(&bulk, digest, part, claim.clone()).await;
            let refused = said.expect_err(&format!("{digest} for {claim:?}"));
            assert_eq!(refused.code, Code::Denied, "{claim:?}: {refused}");
        }
    }
    // people, as far as their roles reach
    let outline = async |name: &str| ask(&bulk, secret, BlobPart::Outline, Claim::Caller(name.into())).await;
    assert_eq!(outline("local").await.expect("its own operator"), 3 << 20);
    rest[0].ok(&["user", "create", "ann", "--role", "submitter"]);
    rest[0].ok(&["user", "create", "bob", "--role", "observer"]);
    eventually("ann is known", async || outline("ann").await.ok()).await;
    assert_eq!(outline("bob").await.expect_err("an observer reads no blobs").code, Code::Denied);
    rest[0].ok(&["user", "revoke", "ann"]);
    eventually("ann is gone", async || outline("ann").await.err().filter(|said| said.code == Code::Denied)).await;
}
