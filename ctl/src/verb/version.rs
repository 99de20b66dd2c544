//! `version`: ours, and the daemon's if there is one to ask.

use serde::Serialize;

use crate::{failure::Outcome, output::Out, session::Session};

#[derive(Serialize)]
struct Versions {
    swarmctl: &'static str,
    protocol: u16,
    /// `null` where no daemon answers.
    swarmd: Option<String>,
}

pub(super) async fn call(out: &Out, session: Option<Session>) -> Outcome {
    let swarmd = match &session {
        Some(session) => session.client.status().await.ok().map(|status| status.software),
        None => None,
    };
    let versions = Versions { swarmctl: env!("CARGO_PKG_VERSION"), protocol: swarm_proto::PROTOCOL, swarmd };
    Ok(out.either(&versions, |_| text(&versions))?)
}

fn text(versions: &Versions) -> String {
    let swarmd = versions.swarmd.as_deref().unwrap_or("- (no daemon answers)");
    format!("swarmctl  {}\nswarmd    {swarmd}\nprotocol  {}\n", versions.swarmctl, versions.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_told() {
        let versions = |swarmd: Option<&str>| Versions { swarmctl: "0.1.0", protocol: 1, swarmd: swarmd.map(String::from) };
        insta::assert_snapshot!(text(&versions(Some("0.2.0"))), @"
swarmctl  0.1.0
swarmd    0.2.0
protocol  1
");
        insta::assert_snapshot!(text(&versions(None)), @"
swarmctl  0.1.0
swarmd    - (no daemon answers)
protocol  1
");
    }
}
