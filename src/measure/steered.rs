//! The governor in a measured run, without a daemon: it sees each second, chooses threads, and caps the clock where that is permitted.
//! On a PC it is not asked, as in the daemon; there its goal is `off`. Where it chooses no number of threads, the backend's own holds.

use super::load::Load;
use super::series::Second;
use crate::backend::Pace;
use crate::board::lever::ClockCap;
use crate::board::{Identity, Kind, Root, Sense, thermal};
use crate::governor::observation::Limits;
use crate::governor::{Goal, Phase, Policy, Prior, State, decide};
use crate::helm;
use crate::units::Seconds;

pub struct Steered {
    policy: Policy,
    state: Option<State>,
    is_board: bool,
    root: Root,
    policies: Vec<String>,
    /// The threads that single tokens have without a governor: the most there may be.
    own_threads: usize,
    /// Whether the tokens that count are prompts'.
    counts_prompts: bool,
    pace: Pace,
    /// Held only while a governor may use it.
    cap: Option<ClockCap>,
}

impl Steered {
    /// Off to begin with. `threads`: those that single tokens have in this run, as its caller wants or as measured best.
    /// `load` says whose tokens count.
    pub fn new(root: &Root, identity: &Identity, threads: usize, load: Load) -> Steered {
        let prior = Prior { cores: u8::try_from(threads).unwrap_or(u8::MAX), ..helm::prior(&thermal::zones(root), identity) };
        Steered {
            policy: Policy { goal: Goal::Off, prior },
            state: None,
            is_board: identity.kind == Kind::Board,
            root: root.clone(),
            policies: identity.working_policies(),
            own_threads: threads,
            counts_prompts: load == Load::Prefill,
            pace: Pace::default(),
            cap: None,
        }
    }

    /// Those that single tokens have now.
    pub fn threads(&self) -> usize {
        self.pace.decode_threads.unwrap_or(self.own_threads)
    }

    /// Begins anew with a goal. Returns the pace to begin with.
    pub fn set(&mut self, goal: Goal) -> Pace {
        self.policy.goal = goal;
        self.state = None;
        self.pace = Pace::default();
        // Dropped, a cap gives back what the owner had set; and a new one begins from that.
        self.cap = None;
        if goal != Goal::Off && self.is_board {
            let policies: Vec<&str> = self.policies.iter().map(String::as_str).collect();
            // A run that is killed leaves its cap behind; `hearth board release --kept` takes it back from here.
            let keep = std::env::temp_dir().join(format!("hearth-bench-clock-cap-{}", std::process::id()));
            self.cap = ClockCap::open(&self.root, &policies, keep).ok().flatten();
        }
        self.pace
    }

    /// One second: what was seen and done. Returns the pace to go on with, where it changes.
    pub fn tick(&mut self, sense: &Sense, slept: bool, work: &Second) -> Option<Pace> {
        if self.policy.goal == Goal::Off || !self.is_board {
            return None;
        }
        let mut seen = helm::observation(sense);
        seen.dt = Seconds(1.0);
        seen.resumed = slept;
        let (phase, tokens, seconds) = self.phase(work);
        (seen.phase, seen.tokens, seen.busy) = (phase, tokens as f32, Seconds(seconds));
        seen.threads = u8::try_from(self.threads()).unwrap_or(u8::MAX);
        seen.may_cap = self.cap.is_some();
        let state = self.state.take().unwrap_or_else(|| State::new(&self.policy));
        let (state, decision) = decide(&self.policy, state, &seen);
        self.state = Some(state);
        self.apply_cap(decision.limits(phase).cap.map(|f| f.0));
        // All cores is where the governor begins, not a choice.
        let chosen = |limits: Limits| Some(usize::from(limits.threads.max(1))).filter(|n| *n < self.own_threads);
        let pace = Pace { decode_threads: chosen(decision.decode), prefill_threads: chosen(decision.prefill) };
        (std::mem::replace(&mut self.pace, pace) != pace).then_some(pace)
    }

    /// What most of a second was spent on, with its tokens and their time.
    fn phase(&self, work: &Second) -> (Phase, f64, f64) {
        let (prompt, counted) = (work.prompt_seconds, work.seconds);
        let of_counted = if self.counts_prompts { Phase::Prefill } else { Phase::Decode };
        match 1.0 - prompt - counted {
            rest if rest > prompt.max(counted) => (Phase::Idle, 0.0, 0.0),
            _ if prompt > counted => (Phase::Prefill, work.prompt_tokens, prompt),
            _ => (of_counted, work.tokens, counted),
        }
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
        let mut steered = Steered::new(&root, &Identity::of(&root), 4, Load::Decode);
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

    #[test]
    fn a_second_is_of_the_phase_that_took_most_of_it() {
        let (_dir, root) = pi5();
        let of = |load, prompt_seconds, seconds| {
            let work = Second { tokens: 9.0, seconds, prompt_tokens: 70.0, prompt_seconds, ..Second::default() };
            Steered::new(&root, &Identity::of(&root), 4, load).phase(&work)
        };
        assert_eq!(of(Load::Voice, 0.7, 0.3), (Phase::Prefill, 70.0, 0.7));
        assert_eq!(of(Load::Voice, 0.3, 0.7), (Phase::Decode, 9.0, 0.7));
        assert_eq!(of(Load::Voice, 0.1, 0.2), (Phase::Idle, 0.0, 0.0));
        assert_eq!(of(Load::Prefill, 0.0, 1.0), (Phase::Prefill, 9.0, 1.0));
    }
}
