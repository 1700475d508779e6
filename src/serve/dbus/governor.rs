//! `org.hearth.Governor1`: heat, pace, and the modes that clients hold.

use super::Desk;
use super::refusal::Refusal;
use crate::serve::thermal::{Hold, Mode, Thermal};
use std::collections::HashMap;
use std::sync::Arc;
use zbus::message::Header;
use zbus::{Connection, Variant, interface};

/// Modes one caller may hold at once, and the longest reason.
const HOLDS_MAX: usize = 16;
const REASON_BYTES_MAX: usize = 256;

pub struct Governor {
    desk: Arc<Desk>,
}

impl Governor {
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    fn thermal(&self) -> Arc<Thermal> {
        self.desk.shared.thermal.borrow().clone()
    }
}

/// Heat and pace. Figures that this board can't measure are NaN, or 0 for whole numbers. Properties without change signals move all
/// the time: read them when you need them, or follow the socket's /v1/thermal.
#[interface(name = "org.hearth.Governor1")]
impl Governor {
    /// How near throttling will be so many seconds ahead if the load stays: 1 where it begins, 0 at 30 K below, above 1 beyond; NaN
    /// if unknown. Now, 10 s and 60 s ahead are computed; what lies between is on the line between, and what lies beyond is as at 60 s.
    #[zbus(out_args("headroom"))]
    fn headroom(&self, seconds: u32) -> f64 {
        self.thermal().headroom_in(seconds).unwrap_or(f64::NAN)
    }

    /// Asks for a mode: `performance`, `eco` or `quiet`. It holds until ReleaseMode with the cookie, or until the caller leaves the bus;
    /// of several, quiet goes before eco, and eco before performance. `reason` is shown to people.
    #[zbus(out_args("cookie"))]
    async fn hold_mode(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        mode: &str,
        reason: &str,
    ) -> Result<u32, Refusal> {
        let Some(mode) = Mode::from_word(mode) else {
            return Err(Refusal::BadRequest(format!("there is no mode `{mode}`; there are performance, eco and quiet")));
        };
        if reason.len() > REASON_BYTES_MAX {
            return Err(Refusal::BadRequest(format!("the reason may have {REASON_BYTES_MAX} bytes")));
        }
        let holds = &self.desk.shared.holds;
        let holder = header.sender().map(ToString::to_string).unwrap_or_default();
        if holds.borrow().count_of(&holder) >= HOLDS_MAX {
            return Err(Refusal::Busy(format!("{HOLDS_MAX} modes are held by this caller already; release one")));
        }
        let mut cookie = 0;
        holds.send_modify(|holds| cookie = holds.add(Hold { mode, reason: reason.into(), holder: holder.clone() }));
        // From here on its leaving is noticed; if it (or the bus) left before that, nobody would release what it holds.
        if self.desk.callers.life(connection, &header).await.is_ok_and(|life| !life.is_over()) {
            return Ok(cookie);
        }
        holds.send_if_modified(|holds| holds.remove_all_of(&holder));
        Ok(cookie)
    }

    /// Lets go of a mode that the caller holds.
    fn release_mode(&self, #[zbus(header)] header: Header<'_>, cookie: u32) -> Result<(), Refusal> {
        let holder = header.sender().map(ToString::to_string).unwrap_or_default();
        if self.desk.shared.holds.send_if_modified(|holds| holds.remove(cookie, &holder)) {
            return Ok(());
        }
        Err(Refusal::NotFound(format!("this caller holds no mode with the cookie {cookie}")))
    }

    /// The mode in force because somebody holds it; empty where the configuration's policy rules.
    #[zbus(property)]
    fn mode(&self) -> &'static str {
        self.desk.shared.holds.borrow().mode().map_or("", Mode::word)
    }

    /// What is held: `mode` s, `reason` s, `holder` s (a name on the bus).
    #[zbus(property)]
    fn active_holds(&self) -> Vec<HashMap<String, zbus::OwnedVariant>> {
        let text = |text: &str| zbus::OwnedVariant::try_from(Variant::from(text)).ok();
        let row = |hold: &Hold| {
            let fields = [("mode", hold.mode.word()), ("reason", &hold.reason), ("holder", &hold.holder)];
            fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), text(value)?))).collect()
        };
        self.desk.shared.holds.borrow().iter().map(|(_, hold)| row(hold)).collect()
    }

    /// What the governor does: `learning`, `free` (nothing limits the board), `ride` (it throttles itself, and well), `stay` (held just
    /// below its own throttle, which is worse), `eco`, `blind` (no thermometer). An open set.
    #[zbus(property)]
    fn level(&self) -> String {
        self.thermal().level.clone()
    }

    /// Why, such as `cool`, `staying-below-cliff` or `policy-off`. An open set.
    #[zbus(property)]
    fn cause(&self) -> String {
        self.thermal().cause.clone()
    }

    /// What holds the board back: `high-operating-temperature`, `under-voltage` (the supply), `power-limit`, `stuck-cap` (a clock limit
    /// that stays though the board is cool), `sensor-lost`; empty where nothing does. An open set.
    #[zbus(property)]
    fn degraded(&self) -> String {
        self.thermal().degraded.clone()
    }

    /// Degrees Celsius of the processor.
    #[zbus(property(emits_changed_signal = "false"))]
    fn temperature(&self) -> f64 {
        self.thermal().temperature.unwrap_or(f64::NAN)
    }

    /// Hertz of the fastest cores, measured where the board can.
    #[zbus(property(emits_changed_signal = "false"))]
    fn clock(&self) -> u64 {
        self.thermal().clock.unwrap_or(0)
    }

    /// Headroom now; see the method.
    #[zbus(property(emits_changed_signal = "false"))]
    fn current_headroom(&self) -> f64 {
        self.thermal().headroom.unwrap_or(f64::NAN)
    }

    /// Generated tokens a second now.
    #[zbus(property(emits_changed_signal = "false"))]
    fn rate(&self) -> f64 {
        self.thermal().speed
    }

    /// Generated tokens a second at best.
    #[zbus(property(emits_changed_signal = "false"))]
    fn peak_rate(&self) -> f64 {
        self.thermal().peak
    }

    /// Generated tokens a second over the last minutes.
    #[zbus(property(emits_changed_signal = "false"))]
    fn sustained_rate(&self) -> f64 {
        self.thermal().sustained
    }
}
