//! `--sign`: the submitter's own word for what is submitted, made with the key of this machine's login.

use std::time::Duration;

use swarm_client::Credentials;
use swarm_proto::{
    Code, Problem, UnixMillis,
    api::{SignedRequest, SubmitRequest, Text},
    signed::message,
};

use crate::{failure::Outcome, session::Session};

/// How long what is signed may still begin: as long as the swarm remembers its key.
const LIFE: Duration = Duration::from_secs(24 * 3600 - 60);

/// Signs each of them for the swarm that is spoken to.
pub(super) async fn sign(session: &Session, requests: &mut [SubmitRequest]) -> Outcome {
    let cluster = session.client.status().await?.cluster;
    let dir = swarm_client::credentials_dir();
    let logins = dir.as_deref().map(Credentials::all).transpose()?.unwrap_or_default();
    let login = logins.into_iter().find(|login| login.cluster == cluster).ok_or_else(|| {
        Problem::new(Code::Denied, "nothing was signed", format!("this machine is not logged in to swarm {cluster}"))
            .hint("swarmctl login LINE; an admin gets the line from: swarmctl user create NAME --role submitter")
    })?;
    let not_after = UnixMillis(session.out.now.0 + u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX));
    for request in requests {
        if !request.noop {
            // what is left to the daemon cannot be signed
            request.labels.entry("os".into()).or_insert_with(|| std::env::consts::OS.into());
        }
        let (spec, array) = request.clone().into_job(std::env::consts::OS)?;
        let key = request.key.clone().unwrap_or_default();
        let (by, signature) = login.sign(&message(&cluster, &spec, &key, &array, not_after))?;
        let signature = base64(signature);
        request.signed = Some(SignedRequest { by, not_after, signature });
    }
    Ok(())
}

fn base64(bytes: Vec<u8>) -> String {
    match Text::base64(&bytes) {
        Text::Base64(text) | Text::Utf8(text) => text,
    }
}
