//! `hearth status` (being written).

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> anyhow::Result<()> {
    anyhow::bail!("`hearth status` is not there yet")
}
