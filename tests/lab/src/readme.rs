//! Types what a README shows, and fails where it does not work.
//!
//! ```text
//! <!-- lab: tailscale first other other (ann) -->    hosts of the section that begins here, by role; in brackets one without a daemon
//! ```toml                                            what is in the config file of each before anything is typed
//! ```sh
//! # on the first host                                who types what follows: whose role is among the words; "any" is the last host
//! swarmctl mesh init                                 must end with 0
//! swarmctl mesh join swarm1-...                      the last line that was printed and begins so
//! ```
//! A section ends at the next mark or heading. On Tailscale the roles are names in DNS too.

use anyhow::{Context as _, bail, ensure};

use crate::{
    finding::Finding,
    lab::{Lab, Spec},
};

/// What a mark begins with, and ends with.
const MARK: (&str, &str) = ("<!-- lab: ", " -->");
/// What a token or a login line begins with.
const LINE: &str = "swarm1-";

/// What is shown for one set of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    mesh: Finding,
    roles: Vec<Role>,
    config: String,
    lines: Vec<Line>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Role {
    word: String,
    has_daemon: bool,
}

/// A command, and the hosts on which it is typed, by their place among the roles.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    hosts: Vec<usize>,
    command: String,
}

/// Types every section of a text; what was typed and what came of it.
///
/// # Errors
/// A text that shows nothing, a mark that cannot be understood, or the first command that fails.
pub async fn readme(spec: &Spec, text: &str) -> anyhow::Result<Vec<String>> {
    let sections = parse(text)?;
    ensure!(!sections.is_empty(), "there is no {} in it", MARK.0);
    let mut told = Vec::new();
    for section in &sections {
        let words: Vec<&str> = section.roles.iter().map(|role| role.word.as_str()).collect();
        let done = typed(spec, section).await;
        told.push(done.with_context(|| format!("for {:?}, {}", section.mesh, words.join(" ")))?);
    }
    Ok(told)
}

async fn typed(spec: &Spec, section: &Section) -> anyhow::Result<String> {
    let spec = Spec { hosts: section.roles.len(), finding: section.mesh, preset: section.mesh.preset(), ..spec.clone() };
    let mut lab = Lab::apart(&spec, &section.config).await?;
    let name = |n: usize| format!("h{}", n + 1);
    let addresses = lab.mesh.addresses().await?;
    for (n, role) in section.roles.iter().enumerate() {
        let address = addresses.get(&name(n)).context("every host has an address")?;
        lab.mesh.run(&["record", &role.word, &address.to_string()]).await?;
        if !role.has_daemon {
            lab.stop(&name(n)).await?;
        }
    }
    let mut transcript = format!("{:?}, {} hosts", section.mesh, section.roles.len());
    let mut printed = None;
    for line in &section.lines {
        let command = with_line(&line.command, printed.as_deref())?;
        for host in line.hosts.iter().copied().map(name) {
            let output = lab.shell(&host, &command).await?;
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "{host}$ {command}\n{out}{err}\n{transcript}");
            transcript += &format!("\n{host}$ {}\n{}", line.command, out.trim_end());
            printed = out.lines().find(|line| line.starts_with(LINE)).map(str::to_owned).or(printed);
        }
    }
    lab.quiet()?;
    Ok(transcript)
}

/// The command with the line that was printed in place of the one that is shown in short.
fn with_line(command: &str, printed: Option<&str>) -> anyhow::Result<String> {
    let short = format!("{LINE}...");
    if !command.contains(&short) {
        return Ok(command.to_owned());
    }
    Ok(command.replace(&short, printed.with_context(|| format!("'{command}': nothing has printed such a line"))?))
}

fn parse(text: &str) -> anyhow::Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut is_open, mut fence, mut hosts) = (false, None, Vec::new());
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.trim().to_owned()) };
        } else if fence.is_none() {
            if let Some(mark) = line.strip_prefix(MARK.0) {
                let words = mark.strip_suffix(MARK.1).with_context(|| format!("the mark is not closed: {line}"))?;
                sections.push(section(words)?);
                (is_open, hosts) = (true, Vec::new());
            } else if line.starts_with('#') {
                is_open = false;
            }
        } else if let (Some(section), true) = (sections.last_mut(), is_open) {
            match fence.as_deref() {
                Some("toml") => section.config += &format!("{line}\n"),
                Some("sh") if line.starts_with('#') => hosts = who(section, line)?,
                Some("sh") if !line.trim().is_empty() => {
                    ensure!(!hosts.is_empty(), "nobody types '{line}'");
                    let command = line.split("  #").next().unwrap_or(line).trim().to_owned();
                    section.lines.push(Line { hosts: hosts.clone(), command });
                }
                Some(_) | None => {}
            }
        }
    }
    Ok(sections)
}

fn section(words: &str) -> anyhow::Result<Section> {
    let mut words = words.split_whitespace();
    let mesh = match words.next() {
        Some("tailscale") => Finding::Tailnet,
        Some("wireguard") => Finding::Peers,
        Some("interface") => Finding::Interface,
        other => bail!("no such mesh: {other:?}"),
    };
    let role = |word: &str| match word.strip_prefix('(').and_then(|word| word.strip_suffix(')')) {
        Some(word) => Role { word: word.to_owned(), has_daemon: false },
        None => Role { word: word.to_owned(), has_daemon: true },
    };
    Ok(Section { mesh, roles: words.map(role).collect(), config: String::new(), lines: Vec::new() })
}

/// Whom a comment names.
fn who(section: &Section, comment: &str) -> anyhow::Result<Vec<usize>> {
    let comment = comment.to_lowercase();
    let words: Vec<&str> = comment.split(|c: char| !c.is_alphanumeric()).collect();
    if words.contains(&"any") {
        return Ok(section.roles.iter().rposition(|role| role.has_daemon).into_iter().collect());
    }
    let hosts: Vec<usize> = (0..section.roles.len()).filter(|n| words.contains(&section.roles[*n].word.as_str())).collect();
    ensure!(!hosts.is_empty(), "'{comment}' names none of the hosts");
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title
```sh
swarmctl not-this-one
```
<!-- lab: tailscale first other other (ann) -->
```sh
# on the first host
swarmctl token create --uses 2       # prints one line
# on each other host
swarmctl mesh join swarm1-... --allow exec
```
and then
```sh
# on Ann's machine
swarmctl login swarm1-...
# on any of them
swarmctl status
```
## Another heading
```sh
swarmctl nor-this
```
<!-- lab: interface one -->
```toml
[mesh]
interface = \"zt0\"
```
";

    #[test]
    fn what_is_marked_is_typed_where_it_says() {
        let sections = parse(TEXT).expect("it can be understood");
        let [first, second] = &sections[..] else { panic!("{sections:?}") };
        let lines: Vec<(&[usize], &str)> = first.lines.iter().map(|line| (&line.hosts[..], line.command.as_str())).collect();
        assert_eq!(
            lines,
            [
                (&[0][..], "swarmctl token create --uses 2"),
                (&[1, 2], "swarmctl mesh join swarm1-... --allow exec"),
                (&[3], "swarmctl login swarm1-..."),
                (&[2], "swarmctl status"),
            ]
        );
        assert_eq!((second.mesh, second.config.as_str()), (Finding::Interface, "[mesh]\ninterface = \"zt0\"\n"));
    }

    #[test]
    fn what_cannot_be_understood_is_no_silence() {
        for bad in [
            "<!-- lab: carrier-pigeon a -->",
            "<!-- lab: tailscale a",
            "<!-- lab: tailscale a -->\n```sh\nswarmctl status\n```",
            "<!-- lab: tailscale a -->\n```sh\n# on the moon\nswarmctl status\n```",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_that_is_shown_in_short_is_the_one_that_was_printed() {
        assert_eq!(with_line("swarmctl status", None).ok().as_deref(), Some("swarmctl status"));
        assert_eq!(with_line("join swarm1-... -v", Some("swarm1-abc")).ok().as_deref(), Some("join swarm1-abc -v"));
        assert!(with_line("join swarm1-...", None).is_err());
    }
}
