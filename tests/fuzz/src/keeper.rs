//! What daemon and keeper say to each other, and what they read on their host.

use swarm_executors::fuzzing;
use swarm_proto::{frame, limits};

use crate::input::Input;

pub(crate) fn messages(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.below(6) {
        0 => {
            let piece = usize::from(input.byte()) * 16;
            fuzzing::keeper_hears(input.rest(), piece);
        }
        1 => framed(&mut input),
        2 => drop(fuzzing::daemon_hears(input.rest())),
        3 => {
            let text = String::from_utf8_lossy(input.rest());
            let _ = (fuzzing::written_in(&text), fuzzing::key_of(&text), fuzzing::process_in(&text));
        }
        4 => {
            let (passwd, group) = (String::from_utf8_lossy(input.piece()), String::from_utf8_lossy(input.rest()));
            fuzzing::user_in("swarm-task", &passwd, &group);
        }
        _ => arguments(&mut input),
    }
}

/// Both as long as a spec may have them.
fn arguments(input: &mut Input<'_>) {
    let item = String::from_utf8_lossy(input.take(16)).repeat(1 + usize::from(input.byte()) * 16);
    let times = 1 + usize::from(input.byte()) * 8;
    let arg = String::from_utf8_lossy(input.take(64)).repeat(times);
    match fuzzing::with_item(&[arg.clone(), arg.clone()], &item) {
        Ok(given) => assert!(arg.contains('{') || given == [arg.clone(), arg], "an argument without a place for an item changes"),
        Err(_) => assert!(arg.contains("{}") && 2 * arg.len() * item.len() > limits::ARGV, "a short one is refused"),
    }
}

/// Bodies that get the header that they need, so that more than the first is reached; they come in pieces.
fn framed(input: &mut Input<'_>) {
    let piece = usize::from(input.byte()) + 1;
    let (mut sent, mut whole) = (Vec::new(), 0);
    while !input.is_empty() {
        let body = input.piece();
        if let Some(frame) = fuzzing::to_keeper(body) {
            sent.extend(frame);
            whole += 1;
        } else {
            sent.extend((body.len() as u32).to_le_bytes());
            sent.extend_from_slice(body);
            break;
        }
    }
    // a piece that ends a read before its end ends the connection, too
    let heard = fuzzing::keeper_hears(&sent, piece);
    assert!(heard <= whole, "{heard} messages are heard of {whole}");
    assert_eq!(frame::HEADER, 4);
}
