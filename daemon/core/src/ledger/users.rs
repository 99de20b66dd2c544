//! People: a name, a role, and the keys with which they logged in.

use swarm_proto::{
    Code, PeerKey, Problem,
    access::Role,
    identity::{Invite, UserRecord},
    ledger::{Applied, What},
    limits,
};

use super::Ledger;

impl Ledger {
    pub(super) fn set_user(&mut self, name: &str, role: Role) -> Result<Applied, Problem> {
        check_name(name)?;
        let index = self.journal.index;
        let live = self.identity.people.values().filter(|user| !user.is_gone).count();
        match self.identity.people.get_mut(name) {
            Some(user) if !user.is_gone && user.role == role => return Ok(Applied::Done),
            Some(user) if !user.is_gone => (user.role, user.changed) = (role, index),
            Some(_) | None => {
                if live >= self.bounds.users {
                    return Err(Problem::new(Code::Busy, "the user was not made", format!("there are {live} already")));
                }
                let user = UserRecord { name: name.to_owned(), role, keys: Vec::new(), is_gone: false, changed: index };
                self.identity.people.insert(name.to_owned(), user);
            }
        }
        self.touch_identity();
        self.journal.emit(What::UserSet { name: name.to_owned(), role });
        Ok(Applied::Done)
    }

    /// Closes out the user, every key, and every login line that was not used yet.
    pub(super) fn revoke_user(&mut self, name: &str) -> Result<Applied, Problem> {
        let index = self.journal.index;
        self.live_user(name)?;
        if let Some(user) = self.identity.people.get_mut(name) {
            user.keys.clear();
            (user.is_gone, user.changed) = (true, index);
        }
        self.identity
            .tokens
            .retain(|_, token| !matches!(&token.invite, Invite::User { name: of } | Invite::Pass { user: of, .. } if of == name));
        self.forget_users();
        self.touch_identity();
        self.journal.emit(What::UserRevoked { name: name.to_owned() });
        Ok(Applied::Done)
    }

    fn forget_users(&mut self) {
        let gone = || self.identity.people.values().filter(|user| user.is_gone);
        if gone().count() > self.bounds.users
            && let Some(oldest) = gone().min_by_key(|user| (user.changed, &user.name)).map(|user| user.name.clone())
        {
            self.identity.people.remove(&oldest);
        }
    }

    pub(super) fn add_user_key(&mut self, name: &str, key: PeerKey) -> Result<Applied, Problem> {
        let index = self.journal.index;
        let refused = |code, why: String| Err(Problem::new(code, "the login was refused", why));
        let keys = self.live_user(name)?.keys.len();
        match self.user_of_key(&key).map(|user| user.name == name) {
            Some(true) => return Ok(Applied::Done),
            Some(false) => return refused(Code::Conflict, "the key is another user's".into()),
            None if self.nodes.by_key(&key).is_some() => return refused(Code::Conflict, "the key is a node's".into()),
            None if keys >= limits::USER_KEYS => {
                return refused(Code::Busy, format!("'{name}' is logged in on {keys} machines, as many as are taken"));
            }
            None => {}
        }
        if let Some(user) = self.identity.people.get_mut(name) {
            user.keys.push(key);
            user.changed = index;
        }
        self.touch_identity();
        self.journal.emit(What::UserEnrolled { name: name.to_owned(), key });
        Ok(Applied::Done)
    }

    pub(super) fn live_user(&self, name: &str) -> Result<&UserRecord, Problem> {
        self.identity.people.get(name).filter(|user| !user.is_gone).ok_or_else(|| {
            Problem::new(Code::NotFound, format!("there is no user '{name}'"), "nobody of this name was made, or was revoked")
                .hint("`swarmctl user list` shows them")
        })
    }

    /// Everybody by name, those who were closed out included.
    pub fn users(&self) -> impl Iterator<Item = &UserRecord> {
        self.identity.people.values()
    }

    /// Whose key this is.
    pub fn user_of_key(&self, key: &PeerKey) -> Option<&UserRecord> {
        self.identity.people.values().find(|user| user.keys.contains(key))
    }
}

/// `local` is whom the local socket knows.
fn check_name(name: &str) -> Result<(), Problem> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    if name.is_empty() || name.len() > limits::NAME || !name.bytes().all(is_word) {
        let why = format!("a name has 1 to {} letters, digits, '.', '-', '_' or '@'", limits::NAME);
        return Err(Problem::new(Code::BadRequest, "the user was not made", why));
    }
    if name == "local" {
        return Err(Problem::new(Code::BadRequest, "the user was not made", "'local' is whoever uses the daemon's own socket"));
    }
    Ok(())
}
