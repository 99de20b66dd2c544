//! See the library.

fn main() -> std::process::ExitCode {
    swarmctl::main()
}
