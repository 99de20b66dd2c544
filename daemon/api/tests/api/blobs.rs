//! Bytes of blobs, and parts of them.

use swarm_proto::{Code, Digest};

use crate::{Raw, World, soon};

fn path() -> String {
    format!("/v1/blobs/{}/bytes", Digest([7; 32]))
}

async fn read(world: &World, method: &str, lines: &str) -> Raw {
    world.raw(format!("{method} {} HTTP/1.1\r\nhost: x\r\n{lines}connection: close\r\n\r\n", path()).as_bytes()).await
}

fn tag() -> String {
    format!("etag: \"{}\"\r\n", Digest([7; 32]))
}

#[tokio::test]
async fn a_part_is_given_as_a_part() {
    let world = World::new();
    for (lines, range, bytes) in [
        ("range: bytes=0-\r\n", "0-9/10", "0123456789"),
        ("range: bytes=4-\r\n", "4-9/10", "456789"),
        ("range: bytes=4-6\r\n", "4-6/10", "456"),
        ("range: bytes=9-100\r\n", "9-9/10", "9"),
        (&format!("range: bytes=4-\r\nif-range: \"{}\"\r\n", Digest([7; 32])), "4-9/10", "456789"),
    ] {
        let answer = read(&world, "GET", lines).await;
        assert_eq!((answer.status, String::from_utf8(answer.body).unwrap().as_str()), (206, bytes), "{lines}");
        for line in [format!("content-range: bytes {range}\r\n"), format!("content-length: {}\r\n", bytes.len()), tag()] {
            assert!(answer.head.contains(&line), "{lines}{line}{}", answer.head);
        }
    }
}

#[tokio::test]
async fn all_of_it_is_given_where_no_part_can_be() {
    let world = World::new();
    for lines in ["", "range: bytes=-4\r\n", "range: bytes=1-2,4-5\r\n", "range: bytes=4-\r\nif-range: \"other\"\r\n"] {
        let answer = read(&world, "GET", lines).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"0123456789"[..]), "{lines}");
        for line in ["accept-ranges: bytes\r\n", "content-length: 10\r\n", &tag()] {
            assert!(answer.head.contains(line), "{lines}{line}{}", answer.head);
        }
        assert!(!answer.head.contains("content-range"), "{}", answer.head);
    }
    // only GET has parts
    let answer = read(&world, "HEAD", "range: bytes=4-\r\n").await;
    assert!(answer.status == 200 && answer.head.contains("content-length: 10\r\n"), "{}", answer.head);
}

#[tokio::test]
async fn beyond_its_end_there_is_no_part() {
    let world = World::new();
    for lines in ["range: bytes=10-\r\n", "range: bytes=11-12\r\n"] {
        let answer = read(&world, "GET", lines).await;
        assert!(answer.status == 416 && answer.head.contains("content-range: bytes */10\r\n"), "{}", answer.head);
        assert_eq!(answer.problem().code, Code::BadRequest);
    }
    let refused = world.client.read_blob_from(Digest([7; 32]), 10).await.err().expect("nothing is there");
    assert_eq!((refused.code, refused.why.as_str()), (Code::BadRequest, "it has 10 bytes, and none at 10"));
}

#[tokio::test]
async fn the_client_reads_the_rest() {
    let world = World::new();
    for from in [0, 1, 9] {
        let mut reader = soon(world.client.read_blob_from(Digest([7; 32]), from)).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = soon(reader.next()).await.unwrap() {
            bytes.extend_from_slice(&piece);
        }
        assert_eq!((reader.size, bytes.as_slice()), (10, &b"0123456789"[usize::try_from(from).unwrap()..]));
    }
}
