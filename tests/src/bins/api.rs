//! `cc-executor-api` for the tests, which cannot reach the binaries of other packages.

fn main() -> std::process::ExitCode {
    api::main()
}
