//! Where the daemon is that is spoken to: at this host's socket, or at an address on the mesh.

use std::path::{Path, PathBuf};

use http::HeaderValue;
use swarm_proto::{Code, Problem, token::Token};

use crate::{Credentials, OwnCertificate, Trust};

/// The API's port on the mesh.
const PORT: u16 = 4749;

/// Where, and as whom.
#[derive(Clone, Debug)]
pub enum Place {
    /// The local socket or pipe.
    Socket(PathBuf),
    /// A node's address on the mesh.
    Mesh(Box<Remote>),
}

/// A daemon elsewhere.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `host:port`
    address: String,
    /// Tried one after the other: this machine may be logged in to several swarms.
    papers: Vec<Papers>,
}

/// What is shown, and what must be shown to us.
#[derive(Clone, Debug)]
pub(crate) struct Papers {
    pub(crate) trust: Trust,
    pub(crate) own: Option<OwnCertificate>,
    pub(crate) bearer: Option<HeaderValue>,
}

impl Place {
    /// For people.
    pub fn name(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Mesh(remote) => remote.address.clone(),
        }
    }

    pub(crate) fn bearer(&self) -> Option<&HeaderValue> {
        match self {
            Self::Socket(_) => None,
            Self::Mesh(remote) => remote.papers.first().and_then(|papers| papers.bearer.as_ref()),
        }
    }
}

impl Remote {
    /// The daemon at `node` (`HOST` or `HOST:PORT`), spoken to with a token, or with the logins in `dir`.
    ///
    /// # Errors
    /// [`Code::Denied`] when there is neither; [`Code::BadRequest`] when one cannot be read.
    pub fn find(node: &str, token: Option<&str>, dir: Option<&Path>) -> Result<Self, Problem> {
        let address = with_port(node);
        if let Some(line) = token {
            return Ok(Self { address, papers: vec![of_token(line)?] });
        }
        let mut logins = dir.map(Credentials::all).transpose()?.unwrap_or_default();
        if logins.is_empty() {
            return Err(Problem::new(Code::Denied, format!("nobody is logged in to speak to {address}"), "this machine has no login")
                .hint("swarmctl login LINE; an admin gets the line from: swarmctl user create NAME --role ROLE"));
        }
        // the swarm that was logged in to at this very address comes first; the sort keeps the latest login first otherwise
        logins.sort_by_key(|login| !login.addresses.contains(&address));
        let papers = logins.iter().map(|login| Ok(Papers { trust: login.trust()?, own: Some(login.own()?), bearer: None }));
        Ok(Self { address, papers: papers.collect::<Result<_, Problem>>()? })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn papers(&self) -> &[Papers] {
        &self.papers
    }
}

fn of_token(line: &str) -> Result<Papers, Problem> {
    let bad = |why: String| Problem::new(Code::BadRequest, "the token cannot be used", why).hint("is SWARM_TOKEN the whole line?");
    let token: Token = line.parse().map_err(|e: swarm_proto::token::BadToken| bad(e.to_string()))?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| bad(e.to_string()))?;
    bearer.set_sensitive(true);
    Ok(Papers { trust: Trust::Pin(token.pin), own: None, bearer: Some(bearer) })
}

/// `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`.
fn with_port(node: &str) -> String {
    if let Ok(ip) = node.parse::<std::net::IpAddr>() {
        return std::net::SocketAddr::new(ip, PORT).to_string();
    }
    let has_port = node.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { node.to_owned() } else { format!("{node}:{PORT}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_usual_port_unless_it_names_one() {
        for (given, meant) in [
            ("pi4", "pi4:4749"),
            ("pi4:5000", "pi4:5000"),
            ("100.64.0.1", "100.64.0.1:4749"),
            ("100.64.0.1:1", "100.64.0.1:1"),
            ("fd7a::1", "[fd7a::1]:4749"),
            ("[fd7a::1]:5000", "[fd7a::1]:5000"),
        ] {
            assert_eq!(with_port(given), meant);
        }
    }

    #[test]
    fn without_a_login_it_says_how_to_get_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let problem = Remote::find("pi4", None, Some(dir.path())).expect_err("nobody logged in");
        assert_eq!((problem.code, problem.hint.contains("swarmctl login LINE")), (Code::Denied, true), "{problem}");
        assert_eq!(Remote::find("pi4", Some("swarm1-rubbish"), None).expect_err("rubbish").code, Code::BadRequest);
    }
}
