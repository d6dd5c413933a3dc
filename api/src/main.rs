//! `cc-executor-api`: see the library.

fn main() -> std::process::ExitCode {
    api::main()
}
