//! Tokio's runtime, for the command as for the daemon.

use std::fs::File;
use std::io;
use tokio::runtime::{Builder, Runtime};

/// Most file descriptors that a runtime takes as it begins.
const DESCRIPTORS: usize = 8;

/// Builds it, or says why not. Where it gets too few file descriptors it would panic.
pub fn build(builder: &mut Builder) -> io::Result<Runtime> {
    // They are closed again at once.
    (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<File>>>()?;
    builder.build()
}
