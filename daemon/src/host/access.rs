//! The group whose members may use the local socket, by name in the config and by number in the kernel.

use swarm_api::GroupAccess;
use swarm_proto::{Code, Problem};

/// `None`: nobody but root and the daemon's own user.
pub(super) fn of(api: &mesh_config::Api) -> Result<Option<GroupAccess>, Problem> {
    let Some(name) = &api.group else { return Ok(None) };
    let missing = |why: String| {
        Problem::new(Code::NotReady, format!("api.group = \"{name}\" cannot be used"), why)
            .hint(format!("make it (groupadd --system {name}), or leave api.group out"))
    };
    let gid = number_of(name).map_err(missing)?;
    Ok(Some(GroupAccess { gid, role: api.group_role }))
}

#[cfg(unix)]
fn number_of(name: &str) -> Result<u32, String> {
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err("this host has no such group".into()),
        Err(error) => Err(format!("this host's groups cannot be read: {error}")),
    }
}

#[cfg(not(unix))]
fn number_of(_: &str) -> Result<u32, String> {
    Err("the pipe on this system is for administrators and the daemon's own user".into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name_and_a_missing_one_is_said() {
        let api = |group: &str| mesh_config::Api { group: Some(group.into()), ..mesh_config::Config::new("a").api };
        assert_eq!(of(&api("root")).expect("every host has it").map(|group| group.gid), Some(0));
        let problem = of(&api("no-such-group")).expect_err("nobody made it");
        assert!(problem.hint.contains("groupadd --system no-such-group"), "{problem}");
    }
}
