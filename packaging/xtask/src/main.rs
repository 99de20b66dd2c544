//! What the packages hold beside the programs, made from the programs' own words, so that it cannot drift from them.
//!
//! ```text
//!   swarmd's and swarmctl's command lines --> man pages, completions
//!   mesh-config's keys                    --> swarmd.toml, all commented; its man page
//!   Cargo's resolved dependencies         --> SBOM (CycloneDX)
//! ```
//! `packaging/build` calls it; nothing here builds, downloads or asks for the time.

mod config;
mod pages;
mod sbom;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Makes what packages hold beside the programs.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Man pages, into DIR.
    Man { dir: PathBuf },
    /// Completions for bash, zsh and fish, into DIR.
    Completions { dir: PathBuf },
    /// The config file of a package, with KEY=VALUE set (the value as TOML) if there is such a key, and all else commented out.
    Config {
        file: PathBuf,
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// A list of all that is in the programs built for TARGET.
    Sbom {
        #[arg(long)]
        target: String,
        file: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().verb {
        Verb::Man { dir } => pages::man(&dir),
        Verb::Completions { dir } => pages::completions(&dir),
        Verb::Config { file, set } => config::write(&file, &set),
        Verb::Sbom { target, file } => sbom::write(&target, &file),
    }
}
