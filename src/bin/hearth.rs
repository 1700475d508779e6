//! The command. Everything it does is in [`hearth::cli`].
fn main() -> std::process::ExitCode {
    hearth::cli::main()
}
