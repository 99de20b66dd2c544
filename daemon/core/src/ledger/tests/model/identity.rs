//! The model's authorities, tokens and users: lists, walked each time.

use swarm_proto::{
    ClusterId, Code, LogIndex, NodeId, PeerKey, RootId, TokenId, UnixMillis,
    identity::{Applicant, Authority, Change, Enroll, Invite, Kind, NewToken, NodeRole, Roots, Step, TokenRecord, UserRecord, Warrant},
    ledger::{Applied, What},
    limits,
    token::root_id,
};

use super::{Answer, Model};

#[derive(Default)]
pub(in super::super) struct ModelIdentity {
    pub(in super::super) cluster: Option<ClusterId>,
    pub(in super::super) nodes: Vec<Authority>,
    pub(in super::super) users: Vec<Authority>,
    pub(in super::super) tokens: Vec<TokenRecord>,
    pub(in super::super) people: Vec<UserRecord>,
    pub(in super::super) awaited: Vec<PeerKey>,
    pub(in super::super) closed: Vec<PeerKey>,
    pub(in super::super) changed: u64,
}

const DONE: Answer = Answer::Is(Applied::Done);

fn refused(code: Code) -> Answer {
    Answer::Refused(code)
}

impl Model {
    pub(in super::super) fn root(&self) -> RootId {
        self.identity.nodes.first().map_or(RootId::default(), |authority| root_id(&authority.certificate))
    }

    pub(in super::super) fn roots(&self) -> Roots {
        let of = |list: &[Authority]| list.iter().map(|authority| authority.certificate.clone()).collect();
        Roots { nodes: of(&self.identity.nodes), users: of(&self.identity.users) }
    }

    /// Tokens that have ended by now are no more.
    pub(super) fn end_tokens(&mut self) {
        let now = self.now;
        self.identity.tokens.retain(|token| token.ends.0 > now);
    }

    pub(super) fn close(&mut self, key: PeerKey) {
        if !self.identity.closed.contains(&key) {
            self.identity.closed.push(key);
        }
        let surplus = self.identity.closed.len().saturating_sub(self.bounds.members * 10);
        self.identity.closed.drain(..surplus);
    }

    fn told(&mut self, what: What) -> Answer {
        self.identity.changed = self.index;
        self.emit(what);
        DONE
    }

    fn list(&mut self, kind: Kind) -> &mut Vec<Authority> {
        match kind {
            Kind::Node => &mut self.identity.nodes,
            Kind::User => &mut self.identity.users,
        }
    }

    pub(super) fn change(&mut self, change: &Change) -> Answer {
        match change {
            Change::Found(found) => {
                if self.identity.cluster.is_some() {
                    return refused(Code::Conflict);
                }
                self.identity.cluster = Some(found.cluster);
                self.identity.awaited.clone_from(&found.first);
                (self.identity.nodes, self.identity.users) = (vec![found.nodes.clone()], vec![found.users.clone()]);
                self.told(What::SwarmFounded { cluster: found.cluster })
            }
            Change::CreateToken(new) => self.create_token(new),
            Change::RevokeToken { token } => {
                let before = self.identity.tokens.len();
                self.identity.tokens.retain(|known| known.id != *token);
                if self.identity.tokens.len() == before {
                    return refused(Code::NotFound);
                }
                self.told(What::TokenRevoked { token: *token })
            }
            Change::Enroll(enroll) => self.enroll(enroll),
            Change::Step { node, step } => self.step(*node, *step),
            Change::Revoke { node } => self.revoke(*node),
            Change::SetUser { name, role } => {
                let live = self.identity.people.iter().filter(|user| !user.is_gone).count();
                let index = LogIndex(self.index);
                match self.identity.people.iter_mut().find(|user| user.name == *name && !user.is_gone) {
                    Some(user) if user.role == *role => return DONE,
                    Some(user) => (user.role, user.changed) = (*role, index),
                    None if live >= self.bounds.users => return refused(Code::Busy),
                    None => {
                        self.identity.people.retain(|user| user.name != *name);
                        let user = UserRecord { name: name.clone(), role: *role, keys: vec![], is_gone: false, changed: index };
                        self.identity.people.push(user);
                    }
                }
                self.told(What::UserSet { name: name.clone(), role: *role })
            }
            Change::RevokeUser { name } => self.revoke_user(name),
            Change::AddRoot { kind, authority } => {
                let list = self.list(*kind);
                if list.len() != 1 || list[0] == *authority {
                    return refused(Code::Conflict);
                }
                list.insert(0, authority.clone());
                if *kind == Kind::Node {
                    let mut tokens: Vec<TokenId> = self.identity.tokens.drain(..).map(|token| token.id).collect();
                    tokens.sort();
                    tokens.into_iter().for_each(|token| self.emit(What::TokenRevoked { token }));
                }
                self.told(What::RootAdded { kind: *kind, root: root_id(&authority.certificate) })
            }
            Change::DropRoot { kind, root } => {
                let list = self.list(*kind);
                let is_known = list.iter().any(|authority| root_id(&authority.certificate) == *root);
                match (is_known, list.len()) {
                    (false, _) => DONE,
                    (true, 1) => refused(Code::Conflict),
                    (true, _) => {
                        list.retain(|authority| root_id(&authority.certificate) != *root);
                        self.told(What::RootDropped { kind: *kind, root: *root })
                    }
                }
            }
            Change::Issued { node, root } => {
                if !self.identity.nodes.iter().any(|authority| root_id(&authority.certificate) == *root) {
                    return refused(Code::NotFound);
                }
                let index = LogIndex(self.index);
                match self.nodes.iter_mut().find(|record| record.id == *node && !record.is_gone) {
                    None => refused(Code::NotFound),
                    Some(record) => {
                        if record.root != *root {
                            (record.root, record.changed) = (*root, index);
                        }
                        DONE
                    }
                }
            }
        }
    }

    fn create_token(&mut self, new: &NewToken) -> Answer {
        let longest = limits::TOKEN_LIFE.as_millis() as u64;
        if self.identity.cluster.is_none() {
            return refused(Code::Conflict);
        }
        let is_known = self.identity.tokens.iter().any(|token| token.id == new.id);
        if new.uses == 0 || new.life.0 == 0 || new.life.0 > longest || is_known {
            return refused(Code::BadRequest);
        }
        if let Invite::User { name } = &new.invite
            && !self.identity.people.iter().any(|user| user.name == *name && !user.is_gone)
        {
            return refused(Code::NotFound);
        }
        if self.identity.tokens.len() >= self.bounds.tokens {
            return refused(Code::Busy);
        }
        let NewToken { id, key, invite, uses, life, by } = new.clone();
        let ends = UnixMillis(self.now + life.0);
        let record = TokenRecord {
            id,
            key,
            invite,
            uses,
            used_by: vec![],
            last_used: UnixMillis(0),
            created: UnixMillis(self.now),
            ends,
            by: by.clone(),
        };
        self.identity.tokens.push(record);
        self.told(What::TokenCreated { token: id, by })
    }

    fn enroll(&mut self, enroll: &Enroll) -> Answer {
        let key = enroll.who.key();
        let id = match (&enroll.by, &enroll.who) {
            (Warrant::Token(id), _) => *id,
            (Warrant::Tailnet(rule), Applicant::Node { admit, .. })
                if self.settings.iter().any(|(key, set)| key == "mesh.admit" && set.value == rule.to_string()) =>
            {
                return self.admit_node(admit, Some(NodeRole::Voter));
            }
            (Warrant::Tailnet(_), _) => return refused(Code::Denied),
        };
        let Some(at) = self.identity.tokens.iter().position(|token| token.id == id) else { return refused(Code::Denied) };
        let token = self.identity.tokens[at].clone();
        let is_again = token.used_by.contains(&key);
        if !is_again && token.used_by.len() as u32 >= token.uses {
            return refused(Code::Denied);
        }
        let answer = match (&token.invite, &enroll.who) {
            (Invite::Node { role, name, labels }, Applicant::Node { admit, labels: has }) => {
                if name.as_ref().is_some_and(|name| *name != admit.name) || labels.iter().any(|(k, v)| has.get(k) != Some(v)) {
                    return refused(Code::Denied);
                }
                self.admit_node(admit, Some(*role))
            }
            (Invite::User { name }, Applicant::User { key }) => self.add_key(name, *key),
            _ => return refused(Code::Denied),
        };
        if matches!(answer, Answer::Is(_)) && !is_again {
            self.identity.tokens[at].used_by.push(key);
            self.identity.tokens[at].last_used = UnixMillis(self.now);
            let uses_left = token.uses - token.used_by.len() as u32 - 1;
            self.told(What::TokenUsed { token: id, uses_left });
        }
        answer
    }

    fn add_key(&mut self, name: &str, key: PeerKey) -> Answer {
        let index = LogIndex(self.index);
        if let Some(owner) = self.identity.people.iter().find(|user| user.keys.contains(&key)) {
            return if owner.name == name { DONE } else { refused(Code::Conflict) };
        }
        if self.nodes.iter().any(|node| node.key == key && !node.is_gone) {
            return refused(Code::Conflict);
        }
        let user = self.identity.people.iter_mut().find(|user| user.name == name && !user.is_gone).expect("its tokens go with a user");
        user.keys.push(key);
        user.changed = index;
        self.told(What::UserEnrolled { name: name.to_owned(), key })
    }

    fn step(&mut self, node: NodeId, step: Step) -> Answer {
        let index = LogIndex(self.index);
        let Some(record) = self.nodes.iter_mut().find(|record| record.id == node && !record.is_gone) else {
            return refused(Code::NotFound);
        };
        if step as u8 > record.step as u8 + 1 {
            return refused(Code::Conflict);
        }
        if step as u8 == record.step as u8 + 1 {
            (record.step, record.changed) = (step, index);
            self.emit(match step {
                Step::Registered => unreachable!("nothing comes before it"),
                Step::Welcomed => What::NodeWelcomed { node },
                Step::Synced => What::NodeSynced { node },
                Step::Ready => What::NodeReady { node },
            });
        }
        DONE
    }

    fn revoke(&mut self, node: NodeId) -> Answer {
        let Some(at) = self.nodes.iter().position(|record| record.id == node) else { return refused(Code::NotFound) };
        let (key, is_gone) = (self.nodes[at].key, self.nodes[at].is_gone);
        if self.nodes.iter().any(|record| record.key == key && !record.is_gone && record.id != node) {
            return refused(Code::Conflict);
        }
        if is_gone && self.identity.closed.contains(&key) {
            return DONE;
        }
        self.close(key);
        self.set_gone(at);
        self.told(What::NodeRevoked { node })
    }

    fn revoke_user(&mut self, name: &str) -> Answer {
        let index = LogIndex(self.index);
        let Some(user) = self.identity.people.iter_mut().find(|user| user.name == name && !user.is_gone) else {
            return refused(Code::NotFound);
        };
        (user.is_gone, user.changed) = (true, index);
        user.keys.clear();
        self.identity.tokens.retain(|token| token.invite != Invite::User { name: name.to_owned() });
        let mut gone: Vec<_> =
            self.identity.people.iter().filter(|user| user.is_gone).map(|user| (user.changed, user.name.clone())).collect();
        gone.sort();
        if gone.len() > self.bounds.users {
            self.identity.people.retain(|user| user.name != gone[0].1);
        }
        self.told(What::UserRevoked { name: name.to_owned() })
    }
}
