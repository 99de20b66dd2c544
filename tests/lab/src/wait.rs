//! Waiting for a condition.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` sees what it looks for.
///
/// # Errors
/// It did not within `bound`; the last thing that `look` missed is named.
pub async fn until<T>(what: &str, bound: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> anyhow::Result<T> {
    let give_up = Instant::now() + bound;
    loop {
        match look().await {
            Ok(seen) => return Ok(seen),
            Err(missing) if Instant::now() > give_up => bail!("{what}: not within {} s: {missing}", bound.as_secs()),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
