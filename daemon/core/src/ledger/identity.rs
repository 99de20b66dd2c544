//! The swarm's authorities, the steps of nodes on their way in, and who was closed out.
//!
//! The ledger holds the authorities with their private keys: whoever holds the ledger can issue, so a swarm that lost any
//! minority of its voters still lets people in. Views carry only the certificates. A closed key is remembered by itself, since
//! the record of a node that is gone is forgotten one day and its certificate may outlive it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarm_proto::{
    ClusterId, Code, LogIndex, NodeId, PeerKey, Problem, RootId, TokenId, UnixMillis,
    identity::{Authority, Change, Found, Invite, Kind, Pass, Roots, Step, TokenRecord, UserRecord},
    ledger::{Applied, What},
    limits,
    token::root_id,
};

use super::Ledger;

/// Longest private key of an authority, encoded.
const LONGEST_KEY: usize = 256;
/// Closed keys that are remembered for each node that may be a member.
const CLOSED: usize = 10;

/// Who may come in, beside the nodes that are in.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) cluster: Option<ClusterId>,
    /// The one that issues first.
    pub(super) nodes: Vec<Authority>,
    pub(super) users: Vec<Authority>,
    pub(super) tokens: BTreeMap<TokenId, TokenRecord>,
    pub(super) people: BTreeMap<String, UserRecord>,
    /// Keys of the first nodes that did not come yet.
    pub(super) awaited: BTreeSet<PeerKey>,
    /// Keys of nodes that left or were revoked, the oldest first.
    pub(super) closed: VecDeque<PeerKey>,
    /// The entry that last changed anything of this that a view shows.
    pub(super) changed: LogIndex,
}

impl Identity {
    pub(super) const fn authorities(&self, kind: Kind) -> &Vec<Authority> {
        match kind {
            Kind::Node => &self.nodes,
            Kind::User => &self.users,
        }
    }

    const fn authorities_mut(&mut self, kind: Kind) -> &mut Vec<Authority> {
        match kind {
            Kind::Node => &mut self.nodes,
            Kind::User => &mut self.users,
        }
    }

    /// The authority that issues to nodes now; zero before there is one.
    pub(super) fn node_root(&self) -> RootId {
        self.nodes.first().map_or(RootId::default(), |authority| root_id(&authority.certificate))
    }

    pub(super) fn roots(&self) -> Roots {
        let certificates = |list: &[Authority]| list.iter().map(|authority| authority.certificate.clone()).collect();
        Roots { nodes: certificates(&self.nodes), users: certificates(&self.users) }
    }

    /// Until when somebody may enrol.
    pub(super) fn enrol_until(&self) -> UnixMillis {
        let enrols = |token: &&TokenRecord| !matches!(token.invite, Invite::Pass { .. });
        self.tokens.values().filter(enrols).map(TokenRecord::open_until).max().unwrap_or_default()
    }

    /// Tokens that are shown with requests.
    pub(super) fn passes(&self) -> Vec<Pass> {
        let pass = |token: &TokenRecord| match &token.invite {
            Invite::Pass { user, role } => {
                Some(Pass { id: token.id, key: token.key.clone(), user: user.clone(), role: *role, ends: token.ends })
            }
            Invite::Node { .. } | Invite::User { .. } => None,
        };
        self.tokens.values().filter_map(pass).collect()
    }

    /// Forgets tokens that have ended.
    pub(super) fn expire(&mut self, now: UnixMillis) {
        self.tokens.retain(|_, token| now < token.ends);
    }

    pub(super) fn close(&mut self, key: PeerKey, members: usize) {
        if !self.closed.contains(&key) {
            self.closed.push_back(key);
        }
        while self.closed.len() > members.saturating_mul(CLOSED) {
            self.closed.pop_front();
        }
    }

    pub(super) fn sanity_check(&self) -> Result<(), String> {
        let mut keys = BTreeSet::new();
        for (name, user) in &self.people {
            if *name != user.name || (user.is_gone && !user.keys.is_empty()) || !user.keys.iter().all(|key| keys.insert(*key)) {
                return Err(format!("the user '{name}' is not as it should be"));
            }
        }
        for (id, token) in &self.tokens {
            if *id != token.id || token.used_by.len() > token.uses as usize {
                return Err(format!("the token {id} is not as it should be"));
            }
        }
        if self.cluster.is_some() == (self.nodes.is_empty() || self.users.is_empty()) {
            return Err("a founded swarm has authorities, and no other has".into());
        }
        Ok(())
    }
}

impl Ledger {
    pub(super) fn change_identity(&mut self, change: &Change) -> Result<Applied, Problem> {
        let encoded = postcard::to_stdvec(change).expect("a change is plain data");
        self.journal.hash.add_bytes(&encoded);
        match change {
            Change::Found(found) => self.found(found),
            Change::CreateToken(token) => self.create_token(token),
            Change::RevokeToken { token } => self.revoke_token(*token),
            Change::Enroll(enroll) => self.enroll(enroll),
            Change::Step { node, step } => self.step(*node, *step),
            Change::Revoke { node } => self.revoke(*node),
            Change::SetUser { name, role } => self.set_user(name, *role),
            Change::RevokeUser { name } => self.revoke_user(name),
            Change::AddRoot { kind, authority } => self.add_root(*kind, authority),
            Change::DropRoot { kind, root } => self.drop_root(*kind, *root),
            Change::Issued { node, root } => self.issued(*node, *root),
        }
    }

    pub(super) fn touch_identity(&mut self) {
        self.identity.changed = self.journal.index;
    }

    fn found(&mut self, found: &Found) -> Result<Applied, Problem> {
        let what = "the swarm was not founded";
        if self.identity.cluster.is_some() {
            return Err(Problem::new(Code::Conflict, what, "it has authorities already"));
        }
        check_authority(&found.nodes, what)?;
        check_authority(&found.users, what)?;
        if found.first.len() > self.bounds.members {
            return Err(Problem::new(Code::Busy, what, format!("a swarm has at most {} nodes", self.bounds.members)));
        }
        self.identity.cluster = Some(found.cluster);
        self.identity.awaited = found.first.iter().copied().collect();
        self.identity.nodes = vec![found.nodes.clone()];
        self.identity.users = vec![found.users.clone()];
        self.touch_identity();
        self.journal.emit(What::SwarmFounded { cluster: found.cluster });
        Ok(Applied::Done)
    }

    /// One step at a time, and each once.
    fn step(&mut self, node: NodeId, step: Step) -> Result<Applied, Problem> {
        let index = self.journal.index;
        let record = self.nodes.live_mut(node)?;
        if step <= record.step {
            return Ok(Applied::Done);
        }
        let (next, what) = match record.step {
            Step::Registered => (Step::Welcomed, What::NodeWelcomed { node }),
            Step::Welcomed => (Step::Synced, What::NodeSynced { node }),
            Step::Synced | Step::Ready => (Step::Ready, What::NodeReady { node }),
        };
        if step != next {
            let why = format!("it is {:?}, and {next:?} comes first", record.step);
            return Err(Problem::new(Code::Conflict, format!("{node} is not {step:?}"), why));
        }
        record.step = step;
        record.changed = index;
        self.journal.emit(what);
        Ok(Applied::Done)
    }

    /// Its tasks stay assigned until the leader judges them lost.
    fn revoke(&mut self, id: NodeId) -> Result<Applied, Problem> {
        let record = &self.nodes.get(id).ok_or_else(|| super::nodes::no_node(id))?.record;
        let (key, is_gone) = (record.key, record.is_gone);
        if self.nodes.by_key(&key).is_some_and(|other| other.id != id) {
            return Err(Problem::new(Code::Conflict, format!("{id} is not revoked"), "its host is a member under a newer id")
                .hint("revoke that id"));
        }
        if is_gone && self.identity.closed.contains(&key) {
            return Ok(Applied::Done);
        }
        self.identity.close(key, self.bounds.members);
        self.nodes.set_gone(id, self.journal.index, self.bounds.members);
        self.touch_identity();
        self.journal.emit(What::NodeRevoked { node: id });
        Ok(Applied::Done)
    }

    fn add_root(&mut self, kind: Kind, authority: &Authority) -> Result<Applied, Problem> {
        let what = "the authority is not replaced";
        check_authority(authority, what)?;
        let index = self.journal.index;
        let list = self.identity.authorities_mut(kind);
        match list.len() {
            0 => return Err(Problem::new(Code::Conflict, what, "this swarm has none yet")),
            1 if list[0].certificate != authority.certificate => {}
            _ => {
                return Err(
                    Problem::new(Code::Conflict, what, "it is being replaced already").hint("`swarmctl ca show` says by whom it is held")
                );
            }
        }
        list.insert(0, authority.clone());
        self.identity.changed = index;
        if kind == Kind::Node {
            // they pin the one that shows itself no more
            for token in std::mem::take(&mut self.identity.tokens).into_keys() {
                self.journal.emit(What::TokenRevoked { token });
            }
        }
        self.journal.emit(What::RootAdded { kind, root: root_id(&authority.certificate) });
        Ok(Applied::Done)
    }

    fn drop_root(&mut self, kind: Kind, root: RootId) -> Result<Applied, Problem> {
        let index = self.journal.index;
        let list = self.identity.authorities_mut(kind);
        let Some(at) = list.iter().position(|authority| root_id(&authority.certificate) == root) else { return Ok(Applied::Done) };
        if list.len() == 1 {
            return Err(Problem::new(Code::Conflict, "the authority is not dropped", "it is the only one")
                .hint("`swarmctl ca rotate` makes another"));
        }
        list.remove(at);
        self.identity.changed = index;
        self.journal.emit(What::RootDropped { kind, root });
        Ok(Applied::Done)
    }

    fn issued(&mut self, node: NodeId, root: RootId) -> Result<Applied, Problem> {
        if !self.identity.nodes.iter().any(|authority| root_id(&authority.certificate) == root) {
            return Err(Problem::new(Code::NotFound, "the certificate is not noted", "its authority is not believed"));
        }
        let index = self.journal.index;
        let record = self.nodes.live_mut(node)?;
        if record.root != root {
            record.root = root;
            record.changed = index;
        }
        Ok(Applied::Done)
    }

    /// Which swarm this is, once it is founded.
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.identity.cluster
    }

    /// The authorities of a kind with their keys, the one that issues first.
    pub fn authorities(&self, kind: Kind) -> &[Authority] {
        self.identity.authorities(kind)
    }

    /// Whether a node's key was closed out for good.
    pub fn is_closed(&self, key: &PeerKey) -> bool {
        self.identity.closed.contains(key)
    }

    /// The entry that last changed authorities, users or tokens.
    pub const fn identity_changed(&self) -> LogIndex {
        self.identity.changed
    }
}

fn check_authority(authority: &Authority, what: &str) -> Result<(), Problem> {
    let fits = |bytes: &[u8], most: usize| !bytes.is_empty() && bytes.len() <= most;
    if fits(&authority.certificate, limits::CERTIFICATE) && fits(&authority.key.0, LONGEST_KEY) {
        return Ok(());
    }
    Err(Problem::new(Code::BadRequest, what, "a certificate or a key is empty or too long"))
}
