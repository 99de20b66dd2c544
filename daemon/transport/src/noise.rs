//! Strangers must not fill the log: one line a second of a kind, with the number of those that were not written.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

const BETWEEN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Noise(Mutex<(Option<Instant>, u64)>);

impl Noise {
    /// Whether a line may be written now; answers how many were left out before it.
    pub(crate) fn may_speak(&self) -> Option<u64> {
        let mut state = self.0.lock().expect("nothing panics with this lock held");
        let now = Instant::now();
        if state.0.is_some_and(|last| now < last + BETWEEN) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second() {
        let noise = Noise::default();
        assert_eq!(noise.may_speak(), Some(0));
        assert_eq!(noise.may_speak(), None);
        assert_eq!(noise.may_speak(), None);
        tokio::time::advance(BETWEEN).await;
        assert_eq!(noise.may_speak(), Some(2));
    }
}
