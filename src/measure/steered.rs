//! The governor in a measured run, without a daemon: it sees each second, chooses threads, and caps the clock where that is permitted.
//! On a PC it is not asked, as in the daemon; there its goal is `off`.

use super::series::Second;
use crate::board::lever::ClockCap;
use crate::board::{Identity, Kind, Root, Sense, thermal};
use crate::governor::{Goal, Phase, Policy, Prior, State, decide};
use crate::helm;
use crate::units::Seconds;

pub struct Steered {
    policy: Policy,
    state: Option<State>,
    is_board: bool,
    root: Root,
    policies: Vec<String>,
    /// The threads that the run was started with: what `off` means, and the most there may be.
    own_threads: usize,
    threads: usize,
    /// Held only while a governor may use it.
    cap: Option<ClockCap>,
}

impl Steered {
    /// Off to begin with. `threads`: those of the run as its caller wants it.
    pub fn new(root: &Root, identity: &Identity, threads: usize) -> Steered {
        let prior = Prior { cores: u8::try_from(threads).unwrap_or(u8::MAX), ..helm::prior(&thermal::zones(root), identity) };
        Steered {
            policy: Policy { goal: Goal::Off, prior },
            state: None,
            is_board: identity.kind == Kind::Board,
            root: root.clone(),
            policies: identity.working_policies(),
            own_threads: threads,
            threads,
            cap: None,
        }
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Begins anew with a goal. Returns the threads to begin with.
    pub fn set(&mut self, goal: Goal) -> usize {
        self.policy.goal = goal;
        self.state = None;
        self.threads = self.own_threads;
        // Dropped, a cap gives back what the owner had set; and a new one begins from that.
        self.cap = None;
        if goal != Goal::Off && self.is_board {
            let policies: Vec<&str> = self.policies.iter().map(String::as_str).collect();
            // A run that is killed leaves its cap behind; `hearth board release --kept` takes it back from here.
            let keep = std::env::temp_dir().join(format!("hearth-bench-clock-cap-{}", std::process::id()));
            self.cap = ClockCap::open(&self.root, &policies, keep).ok().flatten();
        }
        self.threads
    }

    /// One second: what was seen and done. Returns the threads to go on with, where they change.
    pub fn tick(&mut self, sense: &Sense, slept: bool, work: &Second) -> Option<usize> {
        if self.policy.goal == Goal::Off || !self.is_board {
            return None;
        }
        let mut seen = helm::observation(sense);
        seen.dt = Seconds(1.0);
        seen.resumed = slept;
        seen.phase = if work.tokens > 0.0 { Phase::Decode } else { Phase::Idle };
        seen.tokens = work.tokens as f32;
        seen.busy = Seconds(work.seconds);
        seen.threads = u8::try_from(self.threads).unwrap_or(u8::MAX);
        seen.may_cap = self.cap.is_some();
        let state = self.state.take().unwrap_or_else(|| State::new(&self.policy));
        let (state, decision) = decide(&self.policy, state, &seen);
        self.state = Some(state);
        self.apply_cap(decision.decode.cap.map(|f| f.0));
        let threads = usize::from(decision.decode.threads).clamp(1, self.own_threads);
        (std::mem::replace(&mut self.threads, threads) != threads).then_some(threads)
    }

    /// A lever that refuses is let go: the run goes on without it, as the daemon does.
    fn apply_cap(&mut self, hertz: Option<u64>) {
        if self.cap.as_mut().is_some_and(|cap| cap.set(hertz).is_err()) {
            self.cap = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::fake::pi5;

    #[test]
    fn a_governor_that_is_off_changes_nothing_and_one_that_saves_gives_back_what_it_took() {
        let (dir, root) = pi5();
        let limit = || std::fs::read_to_string(dir.path().join("sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq")).unwrap();
        let mut steered = Steered::new(&root, &Identity::of(&root), 4);
        let sense = |second: u32| Sense {
            soc: Some((50.0 + f64::from(second % 2) * 0.5, 0.1)),
            requested: Some((2.4e9, 0.1)),
            measured: Some((limit().trim().parse::<f64>().unwrap() * 1000.0, 0.1)),
            ..Sense::default()
        };
        let work = Second { tokens: 10.0, seconds: 1.0, ..Second::default() };
        assert!((0..300).all(|s| steered.tick(&sense(s), false, &work).is_none()));
        assert_eq!(limit().trim(), "2400000");
        steered.set(Goal::Quiet);
        assert!(steered.cap.is_some());
        let mut least = 2_400_000;
        for second in 0..900 {
            steered.tick(&sense(second), false, &work);
            least = least.min(limit().trim().parse::<u32>().unwrap());
        }
        assert!(least < 2_400_000, "a cool board with speed to spare is held lower");
        drop(steered);
        assert_eq!(limit().trim(), "2400000");
    }
}
