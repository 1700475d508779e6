//! `hearth synth` (being written).

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> anyhow::Result<()> {
    anyhow::bail!("`hearth synth` is not there yet")
}
