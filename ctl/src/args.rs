//! What can be typed. Each verb's own words stand with the verb; what they mean is said there too.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{output::Format, verb};

/// The whole command line.
#[derive(Parser, Debug)]
#[command(
    name = "swarmctl",
    version,
    about = "Run work on a swarm of your own machines, and see how it goes",
    after_help = "Exit codes: 0 came true, 1 failed, refused or busy, 2 usage, 3 not found, 4 denied, 5 no daemon, 6 no leader now,\n\
                  7 nothing can ever run it, 124 timeout, 130 interrupted. `run` gives the task's own code, 128+N after signal N;\n\
                  2, 124 and 130 as above, and 125 for every other failure of its own.",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every verb takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The daemon's socket [env: SWARM_SOCKET]
    // The variable itself is read by the client, which knows that an empty one says nothing.
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// A daemon elsewhere: its name or address on the mesh, with the login of this machine or SWARM_TOKEN [env: SWARM_NODE]
    #[arg(long = "node", id = "daemon", global = true, value_name = "HOST[:PORT]", conflicts_with = "socket")]
    pub node: Option<String>,
    /// How data is shown
    #[arg(short, long = "format", global = true, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(help = "How data is shown: table, wide, json, jsonl")]
    pub output: Format,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run one command somewhere on the swarm; its output and its exit code come here
    ///
    /// It starts in an empty directory, with its node's environment and without your files: --input, --env and --cwd give it what it needs.
    /// What stands on standard input, unless that is a terminal, is read to its end first (64 KiB at most); --stdin /dev/null leaves it alone.
    Run(verb::run::Args),
    /// Submit jobs: a command, an array of them, or a job file
    Submit(verb::submit::Args),
    /// The swarm and this node's peers at a glance
    Status,
    /// Look at tasks, one by one
    #[command(subcommand)]
    Task(verb::task::Verb),
    /// Look at jobs as a whole
    #[command(subcommand)]
    Job(verb::job::Verb),
    /// Bytes by name: put, get, list, and bring them to nodes
    #[command(subcommand)]
    Blob(verb::blob::Verb),
    /// Look at nodes, and decide which get work
    #[command(subcommand)]
    Node(verb::node::Verb),
    /// This host's place in a swarm: found one, join one, leave it
    #[command(subcommand)]
    Mesh(verb::mesh::Verb),
    /// Lines with which hosts join
    #[command(subcommand)]
    Token(verb::access::TokenVerb),
    /// People, and what they may do
    #[command(subcommand)]
    User(verb::access::UserVerb),
    /// Log in to a swarm from this machine, with the line that `user create` printed
    Login(verb::access::Login),
    /// The authorities that certificates come from
    #[command(subcommand)]
    Ca(verb::access::CaVerb),
    /// Let one stopped voter go on alone, after the majority is lost for ever
    Recover(verb::recover::Args),
    /// Who decides
    #[command(subcommand)]
    Leader(verb::leader::Verb),
    /// What happened
    #[command(subcommand)]
    Event(verb::event::Verb),
    /// Check everything that a node needs, and say what to mend
    Doctor(verb::doctor::Args),
    /// Look at a host's configuration, and set what counts for the whole swarm
    #[command(subcommand)]
    Config(verb::config::Verb),
    /// Measure the swarm
    #[command(subcommand)]
    Bench(verb::bench::Verb),
    /// Print completions for a shell
    Completion(verb::completion::Args),
    /// Versions of swarmctl and of the daemon
    Version,
}

/// Flags of waiting.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct WaitArgs {
    /// Give up after this time, such as 30s, with exit code 124
    #[arg(long, value_name = "TIME", value_parser = crate::words::span::parse)]
    pub timeout: Option<std::time::Duration>,
}

/// Flags of lists.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// `--watch`.
#[derive(Args, Clone, Copy, Debug)]
pub struct WatchArgs {
    /// Stay, and print each one again when it changes; always as JSON lines
    #[arg(long)]
    pub watch: bool,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// What clap itself looks for in builds for debugging alone.
    #[test]
    fn no_verb_has_a_flag_of_a_global_ones_name() {
        fn flags(command: &clap::Command) -> Vec<String> {
            command.get_arguments().filter_map(|flag| flag.get_long().map(str::to_owned)).collect()
        }
        fn walk(command: &clap::Command, globals: &[String]) {
            let clash = flags(command).into_iter().find(|flag| globals.contains(flag));
            assert_eq!(clash, None, "of {}", command.get_name());
            command.get_subcommands().for_each(|verb| walk(verb, globals));
        }
        let cli = Cli::command();
        let globals = flags(&cli);
        assert!(globals.contains(&"node".to_owned()), "{globals:?}");
        cli.get_subcommands().for_each(|verb| walk(verb, &globals));
    }

    #[test]
    fn help_shows_every_verb() {
        insta::assert_snapshot!(Cli::command().term_width(120).render_help().to_string(), @"
Run work on a swarm of your own machines, and see how it goes

Usage: swarmctl [OPTIONS] <COMMAND>

Commands:
  run         Run one command somewhere on the swarm; its output and its exit code come here
  submit      Submit jobs: a command, an array of them, or a job file
  status      The swarm and this node's peers at a glance
  task        Look at tasks, one by one
  job         Look at jobs as a whole
  blob        Bytes by name: put, get, list, and bring them to nodes
  node        Look at nodes, and decide which get work
  mesh        This host's place in a swarm: found one, join one, leave it
  token       Lines with which hosts join
  user        People, and what they may do
  login       Log in to a swarm from this machine, with the line that `user create` printed
  ca          The authorities that certificates come from
  recover     Let one stopped voter go on alone, after the majority is lost for ever
  leader      Who decides
  event       What happened
  doctor      Check everything that a node needs, and say what to mend
  config      Look at a host's configuration, and set what counts for the whole swarm
  bench       Measure the swarm
  completion  Print completions for a shell
  version     Versions of swarmctl and of the daemon

Options:
  -h, --help     Print help
  -V, --version  Print version

Global options:
      --socket <PATH>       The daemon's socket [env: SWARM_SOCKET]
      --node <HOST[:PORT]>  A daemon elsewhere: its name or address on the mesh, with the login of this machine or
                            SWARM_TOKEN [env: SWARM_NODE]
  -o, --format <FORMAT>     How data is shown: table, wide, json, jsonl [default: table]

Exit codes: 0 came true, 1 failed, refused or busy, 2 usage, 3 not found, 4 denied, 5 no daemon, 6 no leader now,
7 nothing can ever run it, 124 timeout, 130 interrupted. `run` gives the task's own code, 128+N after signal N;
2, 124 and 130 as above, and 125 for every other failure of its own.
");
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "it is the whole help")]
    fn help_of_submit_describes_the_job_file() {
        let mut cli = Cli::command().term_width(120);
        let help = cli.find_subcommand_mut("submit").unwrap().clone().term_width(120).render_long_help().to_string();
        let (flags, file) = help.split_once("JOB FILE").unwrap();
        assert_eq!(format!("JOB FILE{file}").trim_end(), crate::job_file::HELP);
        insta::assert_snapshot!(flags, @"
Submit jobs: a command, an array of them, or a job file

Usage: swarmctl submit [OPTIONS] FILE
       swarmctl submit [OPTIONS] -- COMMAND..

Arguments:
  [FILE]
          A job file in TOML, JSON or JSON lines; - reads standard input

  [COMMAND]...
          Program and arguments; {} stands for the item

Options:
      --array <RANGE|@FILE>
          Many tasks: 0-999, or @FILE with one item a line

      --each <PATH[=NAME]>
          One task for each file, which finds it in its own directory; {} is the file's path there (repeatable)
          
          A directory stands for all files in it. Names are made as those of --input.

      --wait
          Wait for the end; exit code 1 unless all tasks succeeded

      --progress
          Wait, and show how far it is on a terminal

      --key <KEY>
          Idempotency key: the same key is the same job for 24 h

      --sign
          Sign it with this machine's login, for nodes that demand that

  -h, --help
          Print help (see a summary with '-h')

What each task is:
      --name <NAME>
          What people call the job

      --timeout <TIME>
          Longest time one attempt may run, such as 30s; it is killed then [default: no limit]

      --retries <N[:CAUSES]>
          Further attempts, for every cause or those named: 3, or 3:exit,timeout (repeatable)
          
          Causes: exit, signal, timeout, spawn, node_lost, attempt_lost, refused, input, output. Without this flag: 5
          for node_lost, attempt_lost and input, 0 for the others.

      --on-partition <WHAT>
          What happens while the node of a task cannot be reached [default: replace]

          Possible values:
          - replace: A new attempt once the node is down; two may overlap, one result counts
          - stop:    The old attempt dies before a new one is granted
          - wait:    Wait for the node

      --patience <TIME>
          How long a node may be down before its tasks are replaced [default: 0s with preset lan, 30s with wan, which is
          Tailscale's]

      --at-most-once
          End as lost rather than run twice

      --durability <WHAT>
          What it means that the job was accepted [default: majority]
          
          async is for short jobs that you would submit again: it is refused with --at-most-once, --on-partition stop,
          --sign, --input, --each and arrays of more than 64 tasks. What was lost is reported as not found.

          Possible values:
          - majority: A majority of voters has it on disk
          - async:    It is in the leader's memory, runs at once, and is lost with the leader

  -e, --env <NAME=VALUE>
          A variable of its environment (repeatable)

      --stdin <FILE>
          What it reads from standard input, at most 64 KiB; - is our own

      --cwd <DIR>
          Where it runs, on the node [default: an empty directory, removed afterwards]

      --input <PATH[=NAME]>
          A file or directory that each task finds in its own directory (repeatable)
          
          It is called what PATH is called, or NAME: the last = divides. PATH/ and PATH=. bring what is in a directory
          without the directory's own name. Links are refused.

      --encrypt
          Keep the files that are put for it encrypted on the disk of each node that has them
          
          Of its arguments, environment and standard input none is a file; nor is what it leaves encrypted.

      --output <PATH>
          A file or directory below the task's own directory, kept when it has ended (repeatable)
          
          {} stands for the item. They are had with: swarmctl job results

What each task needs:
      --cores <N>
          Cores, such as 0.5 [default: 1]

      --memory <SIZE>
          Memory, such as 512MiB

      --disk <SIZE>
          Disk, such as 8GiB

      --gpus <N>
          Whole GPUs

      --resource <NAME=N>
          Anything else that nodes count (repeatable)

      --label <NAME=VALUE>
          A label that the node must carry (repeatable)
          
          os is this host's unless it is given.
");
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn all_that_is_promised_can_be_typed() {
        for line in [
            "swarmctl run true",
            "swarmctl run -- ls -l",
            "swarmctl run --cores 2 ls -l --cores",
            "swarmctl submit job.toml",
            "swarmctl submit -",
            "swarmctl submit -- echo {}",
            "swarmctl submit --array 0-999 --wait --progress --key k --name n --timeout 30s --retries 3:exit --on-partition stop -- echo {}",
            "swarmctl submit --array @items --at-most-once --cores 0.5 --memory 512MiB --disk 1GiB --gpus 1 --resource l=1 -- cat {}",
            "swarmctl submit --label k=v --env K=V --stdin - --cwd /tmp job.json -o json",
            "swarmctl submit --input data/ --input tool=bin/tool --output out.csv --each images=in -o json -- bin/tool {}",
            "swarmctl run --input a --output b c",
            "swarmctl status",
            "swarmctl task list j17 --state failed --limit 5 --after j17.3 --watch",
            "swarmctl task show j17.3 -o wide",
            "swarmctl task explain j17",
            "swarmctl task logs j17.3 -f --stderr",
            "swarmctl task result j17.3",
            "swarmctl task result j17.3 --to file",
            "swarmctl job results j17 --to dir --stdout",
            "swarmctl job results j17 --to dir --flat",
            "swarmctl task wait j17.3 --timeout 5s",
            "swarmctl task cancel j17.3 j17.4",
            "swarmctl task retry j17.3",
            "swarmctl job list --open --before j9",
            "swarmctl job show j17",
            "swarmctl job wait j17 --timeout 5s --progress",
            "swarmctl job cancel j17",
            "swarmctl job retry j17",
            "swarmctl blob put a b -",
            "swarmctl blob list --after 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff --limit 5",
            "swarmctl blob list --here -o json",
            "swarmctl blob get 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff file",
            "swarmctl blob get 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff dir --tree",
            "swarmctl blob verify 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            "swarmctl blob gc --keep 1GiB",
            "swarmctl blob push 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff --to pi4,n3",
            "swarmctl node list --watch",
            "swarmctl node show pi4",
            "swarmctl node cordon n3",
            "swarmctl node uncordon n3",
            "swarmctl node drain n3 --no-wait",
            "swarmctl node drain n3 --timeout 5m",
            "swarmctl mesh init --allow exec --voter never --label zone=attic",
            "swarmctl mesh join swarm1-abc --allow exec --label a=b --label c=d",
            "swarmctl mesh leave",
            "swarmctl token create --uses 3 --ttl 1h --name pi4 --label zone=attic --address pi4:4749",
            "swarmctl token list",
            "swarmctl token revoke 0011223344556677",
            "swarmctl user create ann --role operator --ttl 1h",
            "swarmctl user list",
            "swarmctl user revoke ann",
            "swarmctl login swarm1-abc",
            "swarmctl ca show",
            "swarmctl recover --state-dir /var/lib/swarmd --yes",
            "swarmctl ca rotate --users --force",
            "swarmctl node revoke n3",
            "swarmctl leader show",
            "swarmctl leader resign",
            "swarmctl event list --from 120",
            "swarmctl event follow --from 120.3 -o jsonl",
            "swarmctl --node pi4 status",
            "swarmctl job list --node 100.64.0.1:4749",
            "swarmctl user token ann --role observer --ttl 8h",
            "swarmctl config show",
            "swarmctl config set log.level debug",
            "swarmctl config set mesh.preset --default",
            "swarmctl mesh show -o wide",
            "swarmctl mesh whois 100.64.0.2",
            "swarmctl doctor --config swarmd.toml -o json",
            "swarmctl config check",
            "swarmctl config explain swarmd.toml -o json",
            "swarmctl completion bash",
            "swarmctl version --socket /tmp/s",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "swarmctl",
            "swarmctl run",
            "swarmctl submit",
            "swarmctl submit job.toml -- echo",
            "swarmctl submit --array 9-5 -- echo",
            "swarmctl submit --each a --array 0-1 -- echo",
            "swarmctl submit --input a= -- echo",
            "swarmctl task show 17",
            "swarmctl job results j17",
            "swarmctl job results j17 --to dir --flat --stdout",
            "swarmctl blob put",
            "swarmctl blob get 0011",
            "swarmctl blob push 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            "swarmctl blob gc --keep much",
            "swarmctl task logs j1 --stdout --stderr",
            "swarmctl task list --limit 0",
            "swarmctl task list --state odd",
            "swarmctl job show j17.3",
            "swarmctl node drain n3 --no-wait --timeout 5s",
            "swarmctl event list --from x",
            "swarmctl mesh join",
            "swarmctl token create --uses 0",
            "swarmctl token revoke 17",
            "swarmctl user create ann --role root",
            "swarmctl status -o yaml",
            "swarmctl status --node pi4 --socket /tmp/s",
            "swarmctl config set log.level",
            "swarmctl config set log.level info --default",
            "swarmctl completion cobol",
        ] {
            assert_eq!(parse(line).err().map(|e| e.exit_code()), Some(2), "{line}");
        }
    }
}
