//! `--watch`: a list that goes on, as JSON lines. Each item is printed when it is first seen and again when it has changed.

use std::{collections::HashMap, time::Duration};

use swarm_proto::Problem;
use tokio::time::sleep;

use crate::{
    failure::Outcome,
    output::{self, Out, View},
    session::patiently,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Shows the list once, or for ever.
pub(super) async fn list<V: View>(
    out: &Out,
    is_watch: bool,
    name: impl Fn(&V) -> String,
    fetch: impl AsyncFn() -> Result<Vec<V>, Problem>,
) -> Outcome {
    if !is_watch {
        return Ok(out.list(&fetch().await?)?);
    }
    let mut seen = Seen::default();
    loop {
        for item in patiently(&fetch).await? {
            if let Some(line) = seen.news(name(&item), &item) {
                output::write(&format!("{line}\n"))?;
            }
        }
        sleep(LOOK).await;
    }
}

#[derive(Default)]
struct Seen(HashMap<String, String>);

impl Seen {
    /// The item's line if it is not the one printed last.
    fn news<V: View>(&mut self, name: String, item: &V) -> Option<String> {
        let line = output::compact(item);
        let is_news = self.0.get(&name) != Some(&line);
        is_news.then(|| {
            self.0.insert(name, line.clone());
            line
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn only_what_changed_is_told_again() {
        let mut seen = Seen::default();
        let mut node = samples::nodes().remove(0);
        assert!(seen.news("n1".into(), &node).is_some_and(|line| !line.contains('\n')));
        assert_eq!(seen.news("n1".into(), &node), None);
        node.running += 1;
        assert!(seen.news("n1".into(), &node).is_some());
        assert!(seen.news("n2".into(), &node).is_some());
    }
}
