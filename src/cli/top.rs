//! `hearth top` (being written).

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> anyhow::Result<()> {
    anyhow::bail!("`hearth top` is not there yet")
}
