//! The governor in a measured run, without a daemon: it sees each second, chooses threads, and caps the clock where that is permitted.
//! On a PC it is not asked, as in the daemon; there its goal is `off`. Where it chooses no number of threads, the backend's own holds.

use super::load::Load;
use super::series::Second;
use crate::backend::{Pace, cache_folder};
use crate::board::lever::{self, ClockCap};
use crate::board::{Identity, Kind, Root, Sense, thermal};
use crate::governor::observation::Limits;
use crate::governor::{Goal, KernelPolicy, Phase, Policy, Prior, State, decide};
use crate::helm;
use crate::units::{Hertz, Seconds};
use std::path::PathBuf;

pub struct Steered {
    policy: Policy,
    state: Option<State>,
    is_board: bool,
    root: Root,
    policies: Vec<String>,
    /// Whether the kernel takes the clock away, and what the owner lets it be.
    kernel: KernelPolicy,
    owners_limit: Option<Hertz>,
    /// Where the owner's limit is kept while a cap is set.
    keep: PathBuf,
    /// The threads that single tokens have without a governor: the most there may be.
    own_threads: usize,
    /// Whether the tokens that count are prompts'.
    counts_prompts: bool,
    pace: Pace,
    /// Held only while a governor may use it.
    cap: Option<ClockCap>,
    /// The first reason why a governor was without it in this run.
    uncapped: Option<String>,
    notices: Vec<String>,
}

impl Steered {
    /// Off to begin with. `threads`: those that single tokens have in this run, as its caller wants or as measured best.
    /// `load` says whose tokens count. `keep`: the file of [`keep`]; what a killed run has left capped is given back.
    pub fn new(root: &Root, identity: &Identity, threads: usize, load: Load, keep: PathBuf) -> Steered {
        let (zones, policies) = (thermal::zones(root), identity.working_policies());
        let prior = Prior { cores: u8::try_from(threads).unwrap_or(u8::MAX), ..helm::prior(&zones, identity) };
        let is_board = identity.kind == Kind::Board;
        // Without a governor too: else a clock that nobody wants low would be measured.
        let left = if is_board { lever::release(root, &keep).err() } else { None };
        Steered {
            policy: Policy { goal: Goal::Off, prior },
            state: None,
            is_board,
            root: root.clone(),
            kernel: helm::kernel_policy(&zones),
            owners_limit: policies.first().and_then(|policy| lever::owners_limit(root, policy)).map(Hertz),
            policies,
            keep,
            own_threads: threads,
            counts_prompts: load == Load::Prefill,
            pace: Pace::default(),
            cap: None,
            uncapped: None,
            notices: left.map(|error| format!("the clock is as a killed run left it: {error}")).into_iter().collect(),
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
            match ClockCap::open(&self.root, &policies, &self.keep) {
                Ok(Some(cap)) => self.cap = Some(cap),
                Ok(None) => self.do_without_cap("`scaling_max_freq` is not ours to write".into()),
                Err(error) => self.do_without_cap(error.to_string()),
            }
        }
        self.pace
    }

    /// Why the governor was without its clock cap, at some time of the run at least.
    pub fn uncapped(&self) -> Option<&str> {
        self.uncapped.as_deref()
    }

    /// What became of the lever since this was last asked, a sentence each.
    pub fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn do_without_cap(&mut self, reason: String) {
        self.cap = None;
        if self.uncapped.is_none() {
            self.notices.push(format!("the governor can't cap the clock and has threads alone: {reason}"));
            self.uncapped = Some(reason);
        }
    }

    /// One second: what was seen and done. Returns the pace to go on with, where it changes.
    pub fn tick(&mut self, sense: &Sense, slept: bool, work: &Second) -> Option<Pace> {
        if self.policy.goal == Goal::Off || !self.is_board {
            return None;
        }
        let limit = self.cap.as_ref().and_then(ClockCap::hertz).map(Hertz).or(self.owners_limit);
        let mut seen = helm::observation(sense, self.kernel, limit);
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

    /// A lever that refuses is let go: the run goes on without it.
    fn apply_cap(&mut self, hertz: Option<u64>) {
        if let Some(Err(error)) = self.cap.as_mut().map(|cap| cap.set(hertz)) {
            self.do_without_cap(error.to_string());
        }
    }
}

/// A run that is killed leaves its cap behind. The next one finds it here and puts the owner's limit back first; so does `hearth board
/// release --kept`. Nowhere that anybody may write to: who may cap the clock is often root, and would be led to other files by a link.
pub fn keep() -> PathBuf {
    let own = cache_folder().filter(|folder| std::fs::create_dir_all(folder).is_ok());
    own.unwrap_or_else(|| "/run/hearth".into()).join("bench-clock-cap")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::fake::pi5;
    use std::path::Path;

    const LIMIT: &str = "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq";

    fn steered(folder: &Path, root: &Root, load: Load) -> Steered {
        Steered::new(root, &Identity::of(root), 4, load, folder.join("bench-clock-cap"))
    }

    /// What stands in the file, in kHz, by which a Pi's clock is limited.
    fn limit(folder: &Path) -> u32 {
        std::fs::read_to_string(folder.join(LIMIT)).unwrap().trim().parse().unwrap()
    }

    /// A cool board with speed to spare, whose clock is as its limit; the lowest limit that was set.
    fn run_cool(steered: &mut Steered, folder: &Path, seconds: u32) -> u32 {
        let second = |s: u32| {
            let sense = Sense {
                soc: Some((50.0 + f64::from(s % 2) * 0.5, 0.1)),
                requested: Some((2.4e9, 0.1)),
                measured: Some((f64::from(limit(folder)) * 1000.0, 0.1)),
                ..Sense::default()
            };
            steered.tick(&sense, false, &Second { tokens: 10.0, seconds: 1.0, ..Second::default() });
            limit(folder)
        };
        (0..seconds).map(second).min().unwrap()
    }

    #[test]
    fn a_governor_that_is_off_changes_nothing_and_one_that_saves_gives_back_what_it_took() {
        let (dir, root) = pi5();
        let mut steered = steered(dir.path(), &root, Load::Decode);
        assert_eq!((run_cool(&mut steered, dir.path(), 300), steered.pace), (2_400_000, Pace::default()));
        steered.set(Goal::Quiet);
        assert!(steered.cap.is_some() && steered.notices().is_empty());
        assert!(run_cool(&mut steered, dir.path(), 900) < 2_400_000, "a cool board with speed to spare is held lower");
        drop(steered);
        assert_eq!(limit(dir.path()), 2_400_000);
    }

    #[test]
    fn the_clock_that_a_killed_run_left_capped_is_given_back_before_the_next_whatever_its_governor() {
        let (dir, root) = pi5();
        let mut killed = steered(dir.path(), &root, Load::Decode);
        killed.set(Goal::Quiet);
        run_cool(&mut killed, dir.path(), 900);
        std::mem::forget(killed);
        assert!(limit(dir.path()) < 2_400_000);
        let _next = steered(dir.path(), &root, Load::Decode);
        assert_eq!(limit(dir.path()), 2_400_000);
    }

    #[test]
    fn a_clock_that_cannot_be_capped_is_told_of_once_and_stays_known() {
        let (dir, root) = pi5();
        std::fs::remove_file(dir.path().join(LIMIT)).unwrap();
        let mut bare = steered(dir.path(), &root, Load::Decode);
        assert!(bare.uncapped().is_none() && bare.notices().is_empty(), "nobody wanted it yet");
        for goal in [Goal::Quiet, Goal::Off, Goal::Quiet] {
            bare.set(goal);
        }
        let told = bare.notices();
        assert!(told.len() == 1 && told[0].contains("scaling_max_freq") && bare.uncapped().is_some(), "{told:?}");
        // A cap that nobody could put back is none either, as soon as it is asked for.
        let (dir, root) = pi5();
        let mut unkept = Steered::new(&root, &Identity::of(&root), 4, Load::Decode, "/no/such/folder/keep".into());
        unkept.set(Goal::Quiet);
        assert!(unkept.notices().is_empty());
        assert_eq!(run_cool(&mut unkept, dir.path(), 900), 2_400_000);
        assert!(unkept.notices()[0].contains("/no/such/folder/keep"));
    }

    #[test]
    fn a_second_is_of_the_phase_that_took_most_of_it() {
        let (dir, root) = pi5();
        let of = |load, prompt_seconds, seconds| {
            let work = Second { tokens: 9.0, seconds, prompt_tokens: 70.0, prompt_seconds, ..Second::default() };
            steered(dir.path(), &root, load).phase(&work)
        };
        assert_eq!(of(Load::Voice, 0.7, 0.3), (Phase::Prefill, 70.0, 0.7));
        assert_eq!(of(Load::Voice, 0.3, 0.7), (Phase::Decode, 9.0, 0.7));
        assert_eq!(of(Load::Voice, 0.1, 0.2), (Phase::Idle, 0.0, 0.0));
        assert_eq!(of(Load::Prefill, 0.0, 1.0), (Phase::Prefill, 9.0, 1.0));
    }
}
