//! For `tests/fuzz`: what clients send, given as bytes.

use std::time::Duration;

use http::Uri;
use swarm_proto::{Problem, ledger::Submit};

use super::{lines::Lines, reading::Reading};
use crate::{jobs::ShowQuery, query};

/// What a line says: its id and its submission, or why there is none.
type Said = (String, Result<(Submit, bool), Problem>);

/// Reads the lines of a body that comes in pieces of that length; answers how many can be submitted.
///
/// # Panics
/// When a line means something else because of those before it.
pub fn lines(body: &[u8], piece: usize) -> usize {
    let (mut lines, mut stream, mut count) = (Lines::default(), Reading::new("ann".into(), "linux"), 0);
    let mut each = |line: &[u8]| {
        let said = read(&mut stream, line);
        assert_eq!(said, read(&mut Reading::new("ann".into(), "linux"), line), "a line that depends on those before it");
        count += usize::from(said.1.is_ok());
    };
    if body.chunks(piece.max(1)).all(|piece| lines.feed(piece, &mut each).is_ok()) {
        let _ = lines.finish(&mut each);
    }
    count
}

fn read(reading: &mut Reading, line: &[u8]) -> Said {
    match reading.read(line) {
        Ok(read) => (read.id.to_string(), Ok((read.submit, read.follow))),
        Err(bad) => (bad.id.to_string(), Err(bad.problem)),
    }
}

/// How long a request may wait, from its query.
pub fn wait(uri: &Uri) -> Option<Duration> {
    let asked: ShowQuery = query::query(uri).ok()?;
    query::wait(asked.wait).ok()?
}
