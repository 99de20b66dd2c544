//! Every key in words, and the file that a package puts down: all keys, commented out, each with what it is for.
//!
//! The words stand here once; the config file of the packages, their man page and this crate's tests are made from them, and a key
//! without words does not pass the tests.

use crate::read::{KEYS, var_name};

/// One key in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// `section.key`.
    pub key: &'static str,
    /// As it could be written.
    pub example: &'static str,
    /// What it is for, and what it is where nothing is written. Lines of at most 100 characters.
    pub about: &'static str,
}

/// Every key, in the order of the file.
///
/// # Panics
/// Never: each key is described, which a test holds.
pub fn reference() -> Vec<Described> {
    let described = |key| {
        let (example, about) = words(key).expect("every key is described");
        Described { key, example, about }
    };
    KEYS.into_iter().map(described).collect()
}

/// `swarmd.toml` with every key commented out, but for those in `chosen`, which are set to the value that is given with them.
pub fn commented(chosen: &[(&str, &str)]) -> String {
    let mut text = String::from(
        "# swarmd.toml: what this host is in its swarm. Every key there is stands here; a line without # is set.\n\
         # `swarmctl config check` finds every fault at once, `swarmctl config explain` says what holds and why.\n\
         # Each key can be set by a variable of the daemon's environment too, which wins: node.name is SWARM_NODE_NAME.\n",
    );
    let mut section = "";
    for Described { key, example, about } in reference() {
        let (its_section, name) = key.split_once('.').unwrap_or(("", key));
        if its_section != section {
            section = its_section;
            text += &format!("\n[{section}]\n");
        }
        for line in about.lines() {
            text += &format!("# {line}\n");
        }
        match chosen.iter().find(|(of, _)| *of == key) {
            Some((_, value)) => text += &format!("{name} = {value}\n"),
            None => text += &format!("#{name} = {example}\n"),
        }
    }
    text
}

/// The variable that overrides a key.
pub fn variable(key: &str) -> String {
    var_name(key)
}

/// How it could be written, and what it is for.
fn words(key: &str) -> Option<(&'static str, &'static str)> {
    node(key).or_else(|| mesh(key)).or_else(|| work(key)).or_else(|| service(key))
}

fn node(key: &str) -> Option<(&'static str, &'static str)> {
    Some(match key {
        "node.name" => ("\"pi4\"", "What people call this host: 1 to 63 letters, digits, '.', '-' or '_'. By itself the host's name."),
        "node.state_dir" => ("\"/var/lib/swarmd\"", "Identity, ledger and kept output. An absolute path."),
        "node.labels" => (
            "{ zone = \"attic\", gpu = \"3090\" }",
            "What jobs can ask for. `zone` is the failure domain over which voters are spread; os and arch are there by themselves.",
        ),
        "node.voter" => (
            "\"auto\"",
            "\"never\" keeps this host's disk out of the majority: right for laptops and SD cards. Otherwise the leader decides.",
        ),
        "blobs.scrub_every" => {
            ("\"168h\"", "How long one look at every blob here takes, for bytes that changed on the disk; without it, a week.")
        }
        _ => return None,
    })
}

fn mesh(key: &str) -> Option<(&'static str, &'static str)> {
    Some(match key {
        "mesh.kind" => (
            "\"auto\"",
            "Which mesh: \"tailscale\", \"wireguard\", \"interface\" (see below), \"address\" (see below), or \"auto\": what is found.",
        ),
        "mesh.interface" => ("\"zt0\"", "The mesh's interface, where there are several or it is neither Tailscale nor WireGuard."),
        "mesh.address" => (
            "\"100.64.0.7\"",
            "The one address that is bound, never 0.0.0.0: this host's own on the mesh. Needed only where it cannot be found.",
        ),
        "mesh.control_port" => ("4747", "UDP: membership, calls and consensus."),
        "mesh.bulk_port" => ("4748", "UDP: blobs, snapshots and live output."),
        "mesh.peers" => (
            "[\"pi4\", \"100.64.0.7:4747\"]",
            "Members to ask first, by name (the mesh's DNS) or by address. Those once met are remembered.",
        ),
        "mesh.tag" => ("\"tag:swarm\"", "On Tailscale, only hosts of this tag are taken for peers."),
        "mesh.tailscale_socket" => ("\"/var/run/tailscale/tailscaled.sock\"", "Where tailscaled answers."),
        "mesh.certificate_life" => (
            "\"24h\"",
            "How long certificates live that this node issues; renewed after two thirds. 10s to a year;\nswarmctl config set sets it for all, 90d at most.",
        ),
        "mesh.preset" => (
            "\"lan\"",
            "How patient the swarm is, the same on every node: \"lan\", or \"wan\" for paths that may go dark. By itself wan on Tailscale.",
        ),
        _ => return None,
    })
}

fn work(key: &str) -> Option<(&'static str, &'static str)> {
    Some(match key {
        "exec.enabled" => {
            ("false", "Whether this host runs processes for the swarm. true is refused unless sandbox = \"none\" stands beside it.")
        }
        "exec.require_signed" => ("false", "Whether a task runs here only if its submitter signed it (swarmctl submit --sign)."),
        "exec.sandbox" => ("\"none\"", "What stands between a task and the host. There is only \"none\": a task may do what its user may."),
        "exec.stdout_limit" => (
            "\"4GiB\"",
            "What is kept of one task's standard output, on this disk until it ends, then as a blob; without it, 1 GiB.\nThe rest is counted. At least 10 MiB.",
        ),
        "exec.user" => (
            "\"swarm-task\"",
            "As whom tasks run, never root. Without it they run as the daemon does, and can read this node's key.\nWhere swarmd-keeper.service runs them, that decides, and another name here is refused. Not on Windows.",
        ),
        "resources.cores" => ("3.5", "Cores that tasks may use together; without it, all of this host's."),
        "resources.memory" => ("\"8GiB\"", "Memory for tasks; without it, all."),
        "resources.disk" => ("\"100GiB\"", "Disk for tasks; without it, the disk that holds state_dir."),
        "resources.gpus" => ("1", "Whole GPUs; without it, those that the NVIDIA driver shows."),
        "resources.named" => ("{ license = 4 }", "Anything else that is counted, by a name of your own."),
        "blobs.quota" => {
            ("\"50GiB\"", "Disk for blobs, under state_dir; without it, a quarter of that disk. Those that nobody needs go first.")
        }
        "blobs.send_rate" => {
            ("\"10MiB\"", "Bytes a second of blobs that go to other nodes, all together, 64KiB at least; without it, as fast as it goes.")
        }
        "blobs.send_rate_per_node" => ("\"2MiB\"", "The same for each of them."),
        "blobs.key_file" => (
            "\"/media/key/blobs.key\"",
            "32 random bytes that open what is kept encrypted (blob put --encrypt); without it, a file in state_dir, made when it is needed.",
        ),
        _ => return None,
    })
}

fn service(key: &str) -> Option<(&'static str, &'static str)> {
    Some(match key {
        "api.socket" => ("\"/run/swarmd/swarmd.sock\"", "Where swarmctl finds the daemon on this host."),
        "api.group" => ("\"swarm\"", "Members of this group may use the socket too, beside root and the daemon's own user."),
        "api.group_role" => ("\"submitter\"", "What members of that group may do: \"observer\", \"submitter\", \"operator\" or \"admin\"."),
        "api.port" => ("4749", "TCP on the mesh address: joining hosts, and users from other hosts."),
        "log.level" => ("\"info,openraft=warn\"", "What is logged: a level, or a list of part=level."),
        "log.format" => ("\"text\"", "\"text\", or \"json\" for one object a line."),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Config, Env, Source};

    fn env() -> Env {
        Env { host_name: Some("pi4".into()), ..Env::default() }
    }

    #[test]
    fn every_key_is_described() {
        for key in KEYS {
            let words = words(key);
            assert!(words.is_some_and(|(_, about)| about.lines().all(|line| line.len() <= 130)), "{key} needs words in reference.rs");
        }
    }

    #[test]
    fn every_example_is_a_value_that_is_taken() {
        for Described { key, example, .. } in reference() {
            let (section, name) = key.split_once('.').unwrap();
            let text = format!("[{section}]\n{name} = {example}\n");
            let faults = Config::parse(Path::new("f"), &text, &env()).err().unwrap_or_default();
            assert!(faults.iter().all(|fault| fault.key != key), "{key}: {faults:?}");
        }
    }

    #[test]
    fn what_is_commented_is_not_set_and_what_is_chosen_is() {
        let text = commented(&[("exec.user", "\"swarm-task\""), ("mesh.address", "\"10.0.0.1\"")]);
        let config = Config::parse(Path::new("f"), &text, &env()).unwrap();
        for explained in config.explain() {
            let is_chosen = ["exec.user", "mesh.address"].contains(&explained.key);
            assert_eq!(matches!(explained.source, Source::File { .. }), is_chosen, "{}", explained.key);
        }
        assert_eq!(config.exec.user.as_deref(), Some("swarm-task"));
        assert!(text.contains("\n#name = \"pi4\"\n"), "{text}");
    }
}
