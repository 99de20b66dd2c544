//! Man pages and completions.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{Man, roff};

fn daemon() -> Command {
    swarmd::args::Args::command()
}

fn ctl() -> Command {
    swarmctl::args::Cli::command()
}

/// One page a program and a verb, and one of the config file.
pub(crate) fn man(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    page(dir, daemon(), "8", "System Administration")?;
    page(dir, ctl(), "1", "User Commands")?;
    config_page(dir)
}

/// The command's page, and those of what is below it: `swarmctl task show` is swarmctl-task-show.1.
fn page(dir: &Path, mut command: Command, section: &str, manual: &str) -> anyhow::Result<()> {
    command.build();
    let below: Vec<Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help").cloned().collect();
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command).section(section).manual(manual);
    let mut text = Vec::new();
    man.render(&mut text)?;
    let path = dir.join(format!("{name}.{section}"));
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    below.into_iter().try_for_each(|sub| page(dir, sub, section, manual))
}

/// swarmd.toml(5), from the same words as the file itself.
fn config_page(dir: &Path) -> anyhow::Result<()> {
    let mut page = roff::Roff::default();
    page.control("TH", ["swarmd.toml", "5", "", concat!("swarmd ", env!("CARGO_PKG_VERSION")), "File Formats"]);
    page.control("SH", ["NAME"]);
    page.text([roff::roman("swarmd.toml - what a host is in its swarm")]);
    page.control("SH", ["DESCRIPTION"]);
    let intro = "The daemon reads /etc/swarmd/swarmd.toml, a file in TOML. Every key has a default unless its text says otherwise, and can \
                 be set by a variable of the daemon's environment too, which wins. Check a file with ";
    page.text([roff::roman(intro), roff::bold("swarmctl config check"), roff::roman("; see what holds with ")]);
    page.text([roff::bold("swarmctl config explain"), roff::roman(".")]);
    page.control("SH", ["KEYS"]);
    for described in mesh_config::reference() {
        page.control("TP", []);
        page.text([roff::bold(described.key), roff::roman(" = "), roff::roman(described.example)]);
        page.text([roff::roman(described.about)]);
        page.control("br", []);
        page.text([roff::roman("Variable: "), roff::roman(mesh_config::variable(described.key))]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roff::bold("swarmd"), roff::roman("(8), "), roff::bold("swarmctl"), roff::roman("(1)")]);
    fs::write(dir.join("swarmd.toml.5"), page.to_roff())?;
    Ok(())
}

/// One file a shell and a program, by the names under which the shells look for them.
pub(crate) fn completions(dir: &Path) -> anyhow::Result<()> {
    for (mut command, name) in [(daemon(), "swarmd"), (ctl(), "swarmctl")] {
        for (shell, path) in
            [(Shell::Bash, format!("bash/{name}")), (Shell::Zsh, format!("zsh/_{name}")), (Shell::Fish, format!("fish/{name}.fish"))]
        {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap_or(dir))?;
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, name, &mut text);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
