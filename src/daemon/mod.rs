//! (being written)

pub mod config;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
