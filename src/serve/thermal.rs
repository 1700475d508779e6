//! What the daemon tells of board and governor, in plain fields. The governor's own report rides along as JSON, so that this room needs
//! no knowledge of how decisions are made.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::watch;

/// Board and governor at one moment. Absent figures are those that this board can't measure.
#[derive(Debug, Default)]
pub struct Thermal {
    /// What is written only when somebody asks; absent before the first look at the board.
    pub account: Option<Box<dyn Account>>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Hertz, as measured or else as asked for.
    pub clock: Option<u64>,
    /// Words of open sets; their meaning is documented with the bus's properties.
    pub level: String,
    pub cause: String,
    pub degraded: String,
    /// 1: throttling begins, 0: 30 K below; now, in 10 s, in 60 s.
    pub headroom: Option<f64>,
    pub headroom_10_s: Option<f64>,
    pub headroom_60_s: Option<f64>,
    /// Generated tokens a second: now, at best, over the last minutes.
    pub speed: f64,
    pub peak: f64,
    pub sustained: f64,
}

/// The whole of it, as clients read it: a daemon at rest does not write it at every beat for nobody.
pub trait Account: Debug + Send + Sync {
    /// For `GET /v1/thermal`.
    fn report(&self) -> Value;
    /// Gauges and counters in the Prometheus text format.
    fn metrics(&self) -> String;
}

impl Thermal {
    pub fn report(&self) -> Value {
        self.account.as_ref().map_or(Value::Null, |account| account.report())
    }

    pub fn metrics(&self) -> String {
        self.account.as_ref().map_or_else(String::new, |account| account.metrics())
    }

    /// Headroom `seconds` ahead: on the lines between the horizons that are computed; beyond the last, as there.
    pub fn headroom_in(&self, seconds: u32) -> Option<f64> {
        let points = [(0.0, self.headroom), (10.0, self.headroom_10_s), (60.0, self.headroom_60_s)];
        let at = f64::from(seconds).min(60.0);
        let after = points.iter().position(|(horizon, _)| at <= *horizon)?;
        let (then, value) = points[after];
        if at == then {
            return value;
        }
        let (before, start) = points[after - 1];
        let share = (at - before) / (then - before);
        Some(start? + share * (value? - start?))
    }
}

/// How many there are who follow what is told as it comes: for them the board is looked at every second, whatever else may rest.
#[derive(Clone, Debug, Default)]
pub struct Followers(Arc<watch::Sender<usize>>);

/// One of them, until it is dropped.
pub struct Follower(Followers);

impl Followers {
    pub fn follow(&self) -> Follower {
        self.0.send_modify(|n| *n += 1);
        Follower(self.clone())
    }

    pub fn are_there(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits until there is one.
    pub async fn come(&self) {
        // The sender is ours, so it can't go.
        let _ = self.0.subscribe().wait_for(|n| *n > 0).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n -= 1);
    }
}

/// Modes that clients asked for; each is let go by its holder, or when the holder leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holds {
    next: u32,
    by_cookie: BTreeMap<u32, Hold>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    pub mode: Mode,
    pub reason: String,
    /// Who holds it: a name on the bus.
    pub holder: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Performance,
    Eco,
    Quiet,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Performance, Mode::Eco, Mode::Quiet];

    pub fn word(self) -> &'static str {
        match self {
            Mode::Performance => "performance",
            Mode::Eco => "eco",
            Mode::Quiet => "quiet",
        }
    }

    pub fn from_word(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|m| m.word() == word)
    }
}

impl Holds {
    /// The cookie that releases it.
    pub fn add(&mut self, hold: Hold) -> u32 {
        self.next = self.next.wrapping_add(1).max(1);
        self.by_cookie.insert(self.next, hold);
        self.next
    }

    /// Whether there was such a hold of `holder`.
    pub fn remove(&mut self, cookie: u32, holder: &str) -> bool {
        match self.by_cookie.get(&cookie) {
            Some(hold) if hold.holder == holder => self.by_cookie.remove(&cookie).is_some(),
            _ => false,
        }
    }

    /// Whether `holder` held anything.
    pub fn remove_all_of(&mut self, holder: &str) -> bool {
        let before = self.by_cookie.len();
        self.by_cookie.retain(|_, hold| hold.holder != holder);
        self.by_cookie.len() < before
    }

    /// Whether anything was held.
    pub fn remove_all(&mut self) -> bool {
        let before = self.by_cookie.len();
        self.by_cookie.clear();
        before > 0
    }

    pub fn count_of(&self, holder: &str) -> usize {
        self.by_cookie.values().filter(|h| h.holder == holder).count()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Hold)> {
        self.by_cookie.iter().map(|(cookie, hold)| (*cookie, hold))
    }

    /// The mode in force, if any: quiet is someone's sleep and goes before eco, eco before performance.
    pub fn mode(&self) -> Option<Mode> {
        self.by_cookie.values().map(|h| h.mode).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(mode: Mode, holder: &str) -> Hold {
        Hold { mode, reason: "test".into(), holder: holder.into() }
    }

    #[test]
    fn headroom_lies_on_the_lines_between_the_horizons() {
        let thermal = Thermal { headroom: Some(0.2), headroom_10_s: Some(0.4), headroom_60_s: Some(0.9), ..Thermal::default() };
        for (seconds, want) in [(0, 0.2), (5, 0.3), (10, 0.4), (35, 0.65), (60, 0.9), (600, 0.9)] {
            assert!((thermal.headroom_in(seconds).unwrap() - want).abs() < 1e-12, "{seconds}");
        }
        assert_eq!(Thermal { headroom: Some(0.2), ..Thermal::default() }.headroom_in(3), None);
    }

    #[tokio::test]
    async fn a_follower_is_there_until_it_is_dropped() {
        let followers = Followers::default();
        assert!(!followers.are_there());
        let one = followers.clone().follow();
        followers.come().await;
        assert!(followers.are_there());
        drop(one);
        assert!(!followers.are_there());
    }

    #[test]
    fn only_its_holder_releases_a_hold() {
        let mut holds = Holds::default();
        let cookie = holds.add(hold(Mode::Eco, ":1.5"));
        assert!(!holds.remove(cookie, ":1.6"));
        assert!(!holds.remove(cookie + 1, ":1.5"));
        assert_eq!(holds.mode(), Some(Mode::Eco));
        assert!(holds.remove(cookie, ":1.5"));
        assert_eq!(holds.mode(), None);
    }

    #[test]
    fn quiet_goes_before_eco_before_performance() {
        let mut holds = Holds::default();
        holds.add(hold(Mode::Performance, "a"));
        assert_eq!(holds.mode(), Some(Mode::Performance));
        holds.add(hold(Mode::Quiet, "b"));
        holds.add(hold(Mode::Eco, "c"));
        assert_eq!(holds.mode(), Some(Mode::Quiet));
        assert!(holds.remove_all_of("b"));
        assert_eq!(holds.mode(), Some(Mode::Eco));
    }
}
