//! `cc-executor` for the tests, which cannot reach the binaries of other packages.

fn main() -> std::process::ExitCode {
    cli::main()
}
