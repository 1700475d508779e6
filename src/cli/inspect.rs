//! `hearth inspect` (being written).

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> anyhow::Result<()> {
    anyhow::bail!("`hearth inspect` is not there yet")
}
