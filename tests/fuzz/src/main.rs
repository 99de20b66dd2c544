//! Fuzzes, and keeps count. What it is for, and how it is used: the library's first page.

mod engine;
mod round;
mod totals;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use swarm_fuzz::{TARGETS, Target, seeds};

#[derive(Parser)]
struct Words {
    /// A target, `all` of them, or `seeds` to write the inputs that everything begins with
    what: String,
    /// How long each target is fuzzed
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// How many targets are fuzzed at once
    #[arg(long, default_value_t = 2)]
    at_once: usize,
    /// Where the inputs are that are kept
    #[arg(long, default_value = concat!(env!("SWARM_ROOT"), "/tests/fuzz/corpus"))]
    corpus: PathBuf,
    /// Where what is found goes, and the totals [default: beside the program, in `fuzz`]
    #[arg(long)]
    finds: Option<PathBuf>,
    /// Runs one input, and says what it takes
    #[arg(long, conflicts_with = "shrink")]
    replay: Option<PathBuf>,
    /// Keeps of all that was found what reaches something of its own
    #[arg(long)]
    shrink: bool,
    /// In this process, with these words for libFuzzer
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    here: Option<Vec<String>>,
}

fn main() -> anyhow::Result<()> {
    let words = Words::parse();
    if words.what == "seeds" {
        return TARGETS.iter().try_for_each(|target| write_seeds(&words.corpus.join(target.name), target));
    }
    let targets: Vec<&'static Target> = match words.what.as_str() {
        "all" => TARGETS.iter().collect(),
        name => vec![swarm_fuzz::target(name).with_context(|| format!("there is no target '{name}'; there are {}", names()))?],
    };
    if let (Some(file), [target]) = (&words.replay, targets.as_slice()) {
        let cost = target.judge(&std::fs::read(file).with_context(|| file.display().to_string())?);
        println!("{} bytes of memory, {:?}; the bound is {}", cost.memory, cost.time, target.bound(0));
        return Ok(());
    }
    if let (Some(arguments), [target]) = (words.here, targets.as_slice()) {
        // to shrink, libFuzzer gives its first word to a shell, with others behind it
        let program = format!("{} {} --here", std::env::current_exe()?.display(), target.name);
        return engine::fuzz(target, [vec![program], arguments].concat());
    }
    let finds = words.finds.map_or_else(beside, Ok)?;
    std::fs::create_dir_all(&finds)?;
    // a target's process runs elsewhere
    let places = round::Places { corpus: words.corpus.canonicalize()?, finds: finds.canonicalize()? };
    if words.shrink { places.shrink(&targets) } else { round::run(&places, &targets, words.seconds, words.at_once.max(1)) }
}

fn names() -> String {
    TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ")
}

/// A program lies in `release` of the target directory.
fn beside() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let above = program.parent().and_then(Path::parent).context("the program lies in no directory")?;
    Ok(above.join("fuzz"))
}

fn write_seeds(dir: &Path, target: &Target) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for bytes in seeds::of(target.name) {
        std::fs::write(dir.join(&blake3::hash(&bytes).to_hex()[..40]), bytes)?;
    }
    Ok(())
}
