//! The daemon. Everything it does is in [`hearth::daemon`].
fn main() -> std::process::ExitCode {
    hearth::daemon::main()
}
