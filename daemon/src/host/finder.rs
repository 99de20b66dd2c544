//! Finds this host's mesh, and on it other hosts where members may be.
//!
//! ```text
//! see -> choose --late--> say what is waited for, pause, again          for ever: a mesh that is late ends no daemon
//!           |-refused--> (at start) say why, end
//!         found ----> publish the address ----> every few seconds: is it still ours?  no: again from the start
//!                                         \---> while somebody looks: names, tailnet, WireGuard, written addresses
//! ```
//! It has a thread of its own, because what it asks (tailscaled, `wg`, the system) answers when it likes. While nobody looks for
//! members it asks no one but the kernel, once in a while, for the host's own addresses.

mod gather;
mod names;

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use mesh_config::Mesh;
use mesh_detect::{Look, NoMesh};
use swarm_proto::{
    Code, Problem,
    api::{Candidate, MeshStatus},
};
use tokio::{sync::oneshot, time::Instant};

use self::names::Names;
use crate::node::{Domains, Journal, Whereabouts};

/// Between two looks for the mesh, doubled up to the second figure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Between two looks for members, doubled up to the second figure.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Between two looks at whether the address is still this host's.
const GLANCE: Duration = Duration::from_secs(3);

/// Starts looking, and waits until the mesh is there, however long that takes. It goes on looking after that, and publishes in
/// `whereabouts` what it sees.
///
/// # Errors
/// What the operator wrote and what is there contradict each other.
pub(crate) async fn start(mesh: Mesh, whereabouts: Whereabouts, journal: Journal) -> Result<mesh_detect::Mesh, Problem> {
    let (tx, found) = oneshot::channel();
    let finder = Finder { look: mesh.look(), mesh, whereabouts, journal, names: Names::of_system(), seen: MeshStatus::default() };
    Domains::Threads.spawn("finder", move || finder.run(tx));
    found.await.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the mesh is not found", "the search for it ended")))
}

/// This host's address on its mesh at this moment.
///
/// # Errors
/// There is none, or not yet; why.
pub(crate) async fn here(mesh: &Mesh) -> Result<IpAddr, Problem> {
    let mesh = mesh.clone();
    let found = tokio::task::spawn_blocking(move || try_locate(&mesh, &mesh.look())).await;
    match found.unwrap_or_else(|_| Err(NoMesh::Late("the search for it ended".into()))) {
        Ok(found) => Ok(found.address()),
        Err(NoMesh::Late(why)) => {
            Err(Problem::new(Code::NotReady, "this host's mesh is not there yet", why).hint("bring it up, and try again"))
        }
        Err(NoMesh::Refused { what, hint }) => Err(refused(&what, hint)),
    }
}

fn try_locate(mesh: &Mesh, look: &Look) -> Result<mesh_detect::Mesh, NoMesh> {
    let sighting = look.see().map_err(|e| NoMesh::Late(format!("the system does not tell its interfaces: {e}")))?;
    let found = mesh.wish().choose(&sighting)?;
    // tailscaled may name an address, and IPv6 may hold one back, before it can be used
    match UdpSocket::bind((found.address(), 0)) {
        Ok(_) => Ok(found),
        Err(e) => Err(NoMesh::Late(format!("{} cannot be bound yet: {e}", found.address()))),
    }
}

struct Finder {
    mesh: Mesh,
    look: Look,
    whereabouts: Whereabouts,
    journal: Journal,
    names: Names,
    /// As published.
    seen: MeshStatus,
}

impl Finder {
    async fn run(mut self, tell: oneshot::Sender<Result<mesh_detect::Mesh, Problem>>) {
        let mut mesh = match self.locate(true).await {
            Ok(mesh) => mesh,
            Err(problem) => return drop(tell.send(Err(problem))),
        };
        self.warn_of(&mesh);
        if tell.send(Ok(mesh.clone())).is_err() {
            // whoever wanted to know has been told to stop
            return;
        }
        let mut lookers = self.whereabouts.lookers();
        let (mut pause, mut next_look, mut next_glance) = (LOOK.0, Instant::now(), Instant::now() + GLANCE);
        loop {
            let is_looking = *lookers.borrow_and_update() > 0;
            if is_looking && Instant::now() >= next_look {
                self.gather(&mesh).await;
                next_look = Instant::now() + pause;
                pause = (2 * pause).min(LOOK.1);
            } else if !is_looking {
                // the next to look begins at once and in a hurry; what was missed matters to nobody now
                (pause, next_look) = (LOOK.0, Instant::now());
                self.publish(|seen| seen.missed.clear());
            }
            if Instant::now() >= next_glance {
                next_glance = Instant::now() + GLANCE;
                if let Some(found) = self.relocate(&mesh).await {
                    mesh = found;
                }
            }
            let next = if is_looking { next_look.min(next_glance) } else { next_glance };
            tokio::select! {
                biased;
                changed = lookers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Looks until the mesh is there and its address can be bound. Only at start is a contradiction final: later on it may be
    /// a moment of somebody's change.
    async fn locate(&mut self, is_start: bool) -> Result<mesh_detect::Mesh, Problem> {
        let mut pause = AGAIN.0;
        loop {
            let why = match try_locate(&self.mesh, &self.look) {
                Ok(mesh) => {
                    self.publish_mesh(&mesh);
                    return Ok(mesh);
                }
                Err(NoMesh::Refused { what, hint }) if is_start => return Err(refused(&what, hint)),
                Err(NoMesh::Refused { what, hint }) => format!("{what} ({hint})"),
                Err(NoMesh::Late(what)) => what,
            };
            if self.seen.waits != why {
                self.journal.warn(format!("waits for its mesh: {why}"));
                self.publish(|seen| seen.waits = why);
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(AGAIN.1);
        }
    }

    /// The mesh anew, if the host has lost its address there.
    async fn relocate(&mut self, mesh: &mesh_detect::Mesh) -> Option<mesh_detect::Mesh> {
        // a system that does not tell is no reason to move
        if mesh_detect::is_own(mesh.address()).unwrap_or(true) {
            return None;
        }
        self.journal.warn(format!("{} is no longer this host's address", mesh.address()));
        self.publish(|seen| seen.waits = format!("{} is no longer this host's address", mesh.address()));
        let found = self.locate(false).await.ok()?;
        self.journal.info(format!("the mesh is there again: {} at {}", found.kind.word(), found.address()));
        Some(found)
    }

    async fn gather(&mut self, mesh: &mesh_detect::Mesh) {
        let mut gathered = gather::at_once(&self.mesh, &self.look, mesh);
        // DNS may be silent for seconds: nobody waits for it who is known already
        self.publish(|seen| {
            let news = gathered.candidates.iter().filter(|found| !seen.candidates.iter().any(|known| known.addr == found.addr));
            let news: Vec<Candidate> = news.cloned().collect();
            seen.candidates.extend(news);
        });
        gathered.ask_names(&self.mesh, &self.names, mesh).await;
        for missed in gathered.missed.iter().filter(|missed| !self.seen.missed.contains(missed)) {
            self.journal.warn(format!("looking for members by {}: {}: {}", missed.origin.word(), missed.what, missed.why));
        }
        self.publish(|seen| (seen.candidates, seen.missed) = (gathered.candidates, gathered.missed));
    }

    fn publish_mesh(&mut self, mesh: &mesh_detect::Mesh) {
        self.publish(|seen| {
            seen.kind = mesh.kind.word().into();
            seen.interface.clone_from(&mesh.interface);
            seen.address = Some(mesh.address());
            seen.waits.clear();
        });
    }

    fn publish(&mut self, change: impl FnOnce(&mut MeshStatus)) {
        change(&mut self.seen);
        self.whereabouts.publish(self.seen.clone());
    }

    /// What the operator may do and should know the price of.
    fn warn_of(&self, mesh: &mesh_detect::Mesh) {
        let address = mesh.address();
        if address.is_loopback() {
            self.journal.warn(format!("{address} is the loopback: this swarm is for this machine alone"));
        } else if mesh.kind == mesh_detect::Kind::Explicit && is_public(address) {
            self.journal.warn(format!("{address} is a public address: anybody may knock there"));
        }
    }
}

fn refused(what: &str, hint: String) -> Problem {
    Problem::new(Code::BadRequest, "this host's mesh is not what the configuration says", what).hint(hint)
}

/// Neither private, nor of the range that carriers and tailnets share, nor of this host alone.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
