//! The desktop's word: while power-profiles-daemon's active profile is `power-saver`, the governor means eco. It is looked for on the
//! system bus, under its new name and its old one, never started for our sake, and may come and go.

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use std::time::Duration;
use tokio::sync::watch;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, OwnedVariant, Proxy, Variant, proxy};

/// Name on the bus, which is its interface's too, and object.
const NAMES: [(&str, &str); 2] = [
    ("org.freedesktop.UPower.PowerProfiles", "/org/freedesktop/UPower/PowerProfiles"),
    ("net.hadess.PowerProfiles", "/net/hadess/PowerProfiles"),
];
const SAVING: &str = "power-saver";
/// Until a bus that is not there is looked for again.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps `saving` right until nobody looks at it any more.
pub async fn watch(saving: watch::Sender<bool>) {
    loop {
        tokio::select! {
            ended = follow(&saving) => if let Err(error) = ended {
                tracing::debug!(%error, "no power profiles");
            },
            () = saving.closed() => return,
        }
        set(&saving, false);
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the bus is gone.
async fn follow(saving: &watch::Sender<bool>) -> zbus::Result<()> {
    let connection = Connection::system().await?;
    let mut profiles = Vec::new();
    let mut changes: Vec<BoxStream<'_, ()>> = Vec::new();
    for (name, path) in NAMES {
        let builder: proxy::Builder<'_, Proxy<'_>> = proxy::Builder::new(&connection);
        let properties = builder.destination(name).path(path).interface("org.freedesktop.DBus.Properties");
        let properties = properties.cache_properties(CacheProperties::No).build().await?;
        changes.push(properties.receive_signal("PropertiesChanged").await?.map(|_| ()).boxed());
        changes.push(properties.receive_owner_changed().await?.map(|_| ()).boxed());
        profiles.push((name, properties));
    }
    let mut changes = select_all(changes);
    loop {
        let mut now = false;
        for (name, properties) in &profiles {
            now |= active(properties, name).await.is_some_and(|profile| profile == SAVING);
        }
        set(saving, now);
        tokio::select! {
            change = changes.next() => if change.is_none() { return Ok(()) },
            () = connection.closed() => return Ok(()),
        }
    }
}

/// The active profile; `None` where there is no such daemon.
async fn active(properties: &Proxy<'_>, interface: &str) -> Option<String> {
    let asked = properties.call_with_flags("Get", MethodFlags::NO_AUTO_START, &(interface, "ActiveProfile")).await;
    let value: OwnedVariant = asked.ok().flatten()?;
    match &*value {
        Variant::Str(profile) => Some(profile.as_str().to_owned()),
        _ => None,
    }
}

fn set(saving: &watch::Sender<bool>, now: bool) {
    let changed = saving.send_if_modified(|before| std::mem::replace(before, now) != now);
    if changed {
        tracing::info!("power profile: {}", if now { "power-saver, so the governor means eco" } else { "not power-saver any more" });
    }
}
