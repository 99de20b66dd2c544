//! Tokens and login lines: made, used up, ended.
//!
//! A token is used up by the entry that enrols, so of fifty that race for one use the log lets one through. Whoever enrolled may ask
//! again with the same key until the token ends: an answer that was lost on the way is not a use that is lost.

use swarm_proto::{
    Code, Problem, TokenId, UnixMillis,
    admission::Rule,
    identity::{Applicant, Enroll, Invite, NewToken, NodeRole, TokenRecord, Warrant},
    ledger::{Applied, What},
    limits, settings,
};

use super::Ledger;

impl Ledger {
    pub(super) fn create_token(&mut self, new: &NewToken) -> Result<Applied, Problem> {
        let refused = |code, why: String| Err(Problem::new(code, "the token was not made", why));
        let now = self.journal.now;
        if self.identity.cluster.is_none() {
            return refused(Code::Conflict, "this swarm has no authorities yet".into());
        }
        if !(1..=limits::TOKEN_USES).contains(&new.uses) {
            return refused(Code::BadRequest, format!("it can be used 1 to {} times", limits::TOKEN_USES));
        }
        if new.life.0 == 0 || new.life.duration() > limits::TOKEN_LIFE {
            let days = limits::TOKEN_LIFE.as_secs() / 86_400;
            return refused(Code::BadRequest, format!("it lives longer than nothing, and at most {days} days"));
        }
        if new.key.0.len() != 32 || new.by.len() > limits::NAME || self.identity.tokens.contains_key(&new.id) {
            return refused(Code::BadRequest, "its parts do not fit".into());
        }
        match &new.invite {
            Invite::Node { name, labels, .. } => {
                let is_bad = |text: &str| text.is_empty() || text.len() > limits::NAME || text.chars().any(char::is_control);
                if name.as_deref().is_some_and(is_bad)
                    || labels.len() > limits::LABELS
                    || labels.iter().any(|(k, v)| is_bad(k) || is_bad(v))
                {
                    return refused(Code::BadRequest, format!("names and labels have 1 to {} printable bytes", limits::NAME));
                }
            }
            Invite::User { name } => drop(self.live_user(name)?),
            Invite::Pass { user, role } => {
                let own = self.live_user(user)?.role;
                if *role > own {
                    return refused(Code::Denied, format!("'{user}' is {own}, and a token of theirs cannot be {role}"));
                }
                if self.identity.passes().len() >= limits::PASSES {
                    return refused(Code::Busy, format!("there are {} that are shown with requests already", limits::PASSES));
                }
            }
        }
        if self.identity.tokens.len() >= self.bounds.tokens {
            return refused(Code::Busy, format!("there are {} already", self.identity.tokens.len()));
        }
        let NewToken { id, key, invite, uses, life, by } = new.clone();
        let ends = UnixMillis(now.0.saturating_add(life.0));
        self.identity.tokens.insert(
            id,
            TokenRecord { id, key, invite, uses, used_by: Vec::new(), last_used: UnixMillis(0), created: now, ends, by: by.clone() },
        );
        self.touch_identity();
        self.journal.emit(What::TokenCreated { token: id, by });
        Ok(Applied::Done)
    }

    pub(super) fn revoke_token(&mut self, id: TokenId) -> Result<Applied, Problem> {
        if self.identity.tokens.remove(&id).is_none() {
            return Err(Problem::new(Code::NotFound, format!("there is no token {id}"), "it never was, or it has ended")
                .hint("`swarmctl token list` shows those that live"));
        }
        self.touch_identity();
        self.journal.emit(What::TokenRevoked { token: id });
        Ok(Applied::Done)
    }

    pub(super) fn enroll(&mut self, enroll: &Enroll) -> Result<Applied, Problem> {
        match &enroll.by {
            Warrant::Token(id) => self.enroll_by_token(*id, &enroll.who),
            Warrant::Tailnet(rule) => self.enroll_by_tailnet(rule, &enroll.who),
        }
    }

    fn enroll_by_tailnet(&mut self, rule: &Rule, who: &Applicant) -> Result<Applied, Problem> {
        if self.setting(settings::Key::Admit).is_none_or(|value| value != rule.to_string()) {
            return Err(not_enrolled(&format!("this swarm does not let in whoever is {rule}")));
        }
        match who {
            Applicant::Node { admit, .. } => self.admit_node(admit, Some(NodeRole::Voter)),
            Applicant::User { .. } => Err(not_enrolled("a person needs a login line")),
        }
    }

    fn enroll_by_token(&mut self, id: TokenId, who: &Applicant) -> Result<Applied, Problem> {
        let key = who.key();
        let token = self.identity.tokens.get(&id).ok_or_else(|| not_enrolled("the token has ended, was revoked, or never was"))?;
        let is_again = token.used_by.contains(&key);
        if !is_again && token.uses_left() == 0 {
            return Err(not_enrolled("the token is used up"));
        }
        let applied = match (&token.invite, who) {
            (Invite::Node { role, name, labels }, Applicant::Node { admit, labels: has }) => {
                if name.as_ref().is_some_and(|name| *name != admit.name) {
                    return Err(not_enrolled(&format!("the token is for a node named '{}'", name.as_deref().unwrap_or_default())));
                }
                if let Some((label, value)) = labels.iter().find(|(label, value)| has.get(*label) != Some(value)) {
                    return Err(not_enrolled(&format!("the token is for a node with the label {label}={value}")));
                }
                let role = *role;
                self.admit_node(admit, Some(role))?
            }
            (Invite::User { name }, Applicant::User { key }) => {
                let name = name.clone();
                self.add_user_key(&name, *key)?
            }
            (
                invite @ (Invite::Node { .. } | Invite::User { .. } | Invite::Pass { .. }),
                Applicant::Node { .. } | Applicant::User { .. },
            ) => {
                let how = match invite {
                    Invite::Node { .. } => "swarmctl mesh join TOKEN",
                    Invite::User { .. } => "swarmctl login LINE",
                    Invite::Pass { .. } => "SWARM_TOKEN=LINE swarmctl --node HOST status",
                };
                let what = match invite {
                    Invite::Node { .. } | Invite::User { .. } => invite.kind().word(),
                    Invite::Pass { .. } => "request",
                };
                return Err(not_enrolled(&format!("the token is for a {what}")).hint(how));
            }
        };
        let now = self.journal.now;
        if !is_again && let Some(token) = self.identity.tokens.get_mut(&id) {
            token.used_by.push(key);
            token.last_used = now;
            let uses_left = token.uses_left();
            self.touch_identity();
            self.journal.emit(What::TokenUsed { token: id, uses_left });
        }
        Ok(applied)
    }

    /// Tokens that have not ended.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenRecord> {
        self.identity.tokens.values()
    }

    /// One of them.
    pub fn token(&self, id: TokenId) -> Option<&TokenRecord> {
        self.identity.tokens.get(&id)
    }
}

fn not_enrolled(why: &str) -> Problem {
    Problem::new(Code::Denied, "enrolment was refused", why).hint("ask an admin of the swarm for a new token")
}
