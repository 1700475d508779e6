//! From logits to the next token: penalties → bias → top-k → top-p → min-p → temperature → draw (the order of llama.cpp's server, whose
//! settings people carry over). Temperature 0 takes the largest. The same seed draws the same tokens whatever else is running,
//! as far as the logits are the same.
//!
//! A [`Constraint`] is asked about a free choice first; only if it refuses, the logits are masked and a second choice is made. That has
//! the distribution of the allowed tokens (with A their sum, p + (1 − A) · p/A = p/A), where a cut does not come between. What is saved
//! is the mask: a model that was asked for a form mostly follows it, and masking a free text among 262,144 words can cost 10 ms.
//!
//! Cost: one pass over the logits, then work on the candidates only (`select.rs`). Buffers are kept from token to token.

use super::constraint::{Broken, Constraint};
use super::random::Random;
use super::select::{self, Candidate};
use crate::units::TokenId;
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

/// How to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only so many of the most likely; 0: all.
    pub top_k: usize,
    /// Only the most likely that together reach this probability; 1: all.
    pub top_p: f32,
    /// Only those at least this fraction as likely as the most likely; 0: all.
    pub min_p: f32,
    /// Divides (or, below zero, multiplies) the logits of tokens among the last `window`, prompt included; 1: none.
    pub repetition: f32,
    /// Taken from the logit of each token that was already generated.
    pub presence: f32,
    /// Taken from the logit of each generated token, once for every time it came.
    pub frequency: f32,
    /// Tokens that `repetition` looks back on.
    pub window: usize,
    /// Added to the logits of these tokens.
    pub bias: Vec<(TokenId, f32)>,
    /// `None`: a new seed each time.
    pub seed: Option<u64>,
    /// How many alternatives to tell with each token; `None`: no probabilities at all.
    pub logprobs: Option<usize>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
            window: 64,
            bias: Vec::new(),
            seed: None,
            logprobs: None,
        }
    }
}

/// Natural logarithms of probabilities in the model's own distribution, before penalties and cuts.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    pub chosen: f32,
    /// Most likely first.
    pub top: Vec<(TokenId, f32)>,
}

/// The next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub token: TokenId,
    pub logprobs: Option<Logprobs>,
    /// The form that the answer is held to is complete with it.
    pub completes: bool,
}

/// Why there is no next token.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoToken {
    #[error("the model's output holds no number; the file may be damaged")]
    NoNumber,
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    constraint: Option<Box<dyn Constraint>>,
    random: Random,
    /// The window that `repetition` looks back on, and how often each token stands in it: a client may ask for thousands.
    recent: VecDeque<TokenId>,
    recent_counts: HashMap<TokenId, u32>,
    generated: HashMap<TokenId, u32>,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
    /// Logits that were changed, with their value before.
    changed: Vec<(u32, f32)>,
}

impl Sampler {
    /// `constraint` holds what is chosen to a form.
    pub fn new(sampling: Sampling, prompt: &[TokenId], constraint: Option<Box<dyn Constraint>>) -> Self {
        let random = Random::from_seed(sampling.seed.unwrap_or_else(Random::fresh_seed));
        let mut sampler = Self {
            sampling,
            constraint,
            random,
            recent: VecDeque::new(),
            recent_counts: HashMap::new(),
            generated: HashMap::new(),
            candidates: Vec::new(),
            weights: Vec::new(),
            changed: Vec::new(),
        };
        for &token in &prompt[prompt.len().saturating_sub(sampler.window())..] {
            sampler.remember(token);
        }
        sampler
    }

    /// The next token. `logits` is scratch afterwards.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<Chosen, NoToken> {
        let mut told = self.sampling.logprobs.map(|count| self.most_likely(logits, count));
        self.changed.clear();
        self.penalise(logits);
        let mut token = self.pick(logits).ok_or(NoToken::NoNumber)?;
        let mut completes = false;
        if let Some(mut constraint) = self.constraint.take() {
            if !constraint.allows(TokenId(token))? {
                constraint.mask(logits)?;
                token = self.pick(logits).ok_or_else(Broken::dead_end)?;
            }
            completes = constraint.advance(TokenId(token))?;
            self.constraint = Some(constraint);
        }
        if let Some((log_sum, told)) = &mut told {
            let before = self.changed.iter().find(|(t, _)| *t == token).map_or(logits[token as usize], |&(_, x)| x);
            told.chosen = before - *log_sum;
        }
        let token = TokenId(token);
        if self.sampling.presence != 0.0 || self.sampling.frequency != 0.0 {
            *self.generated.entry(token).or_default() += 1;
        }
        self.remember(token);
        Ok(Chosen { token, logprobs: told.map(|(_, t)| t), completes })
    }

    fn pick(&mut self, logits: &[f32]) -> Option<u32> {
        if self.sampling.temperature <= 0.0 { select::largest(logits).map(|c| c.token) } else { self.draw(logits) }
    }

    fn window(&self) -> usize {
        if self.sampling.repetition == 1.0 { 0 } else { self.sampling.window }
    }

    fn remember(&mut self, token: TokenId) {
        let window = self.window();
        if window == 0 {
            return;
        }
        if self.recent.len() == window
            && let Some(oldest) = self.recent.pop_front()
            && let Entry::Occupied(mut count) = self.recent_counts.entry(oldest)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.recent.push_back(token);
        *self.recent_counts.entry(token).or_default() += 1;
    }

    /// ln Σ exp and the most likely tokens of the untouched distribution.
    fn most_likely(&mut self, logits: &[f32], count: usize) -> (f32, Logprobs) {
        let log_sum = select::log_sum_exp(logits);
        select::top(logits, count, f32::NEG_INFINITY, &mut self.candidates);
        let top = self.candidates.iter().map(|c| (TokenId(c.token), c.logit - log_sum)).collect();
        (log_sum, Logprobs { chosen: 0.0, top })
    }

    fn penalise(&mut self, logits: &mut [f32]) {
        let Self { sampling, recent_counts, generated, changed, .. } = self;
        let mut change = |token: TokenId, to: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get_mut(token.0 as usize) {
                changed.push((token.0, *logit));
                *logit = to(*logit);
            }
        };
        // A token that stands in the window several times is penalised once.
        for &token in recent_counts.keys() {
            change(token, &|x| if x > 0.0 { x / sampling.repetition } else { x * sampling.repetition });
        }
        for (&token, &count) in generated.iter() {
            change(token, &|x| x - sampling.presence - sampling.frequency * count as f32);
        }
        for &(token, bias) in &sampling.bias {
            change(token, &|x| x + bias);
        }
    }

    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        let Self { sampling: s, candidates, weights, .. } = self;
        let best = if s.top_k > 0 {
            select::top(logits, s.top_k, f32::NEG_INFINITY, candidates);
            candidates.first()?.logit
        } else {
            select::largest(logits)?.logit
        };
        let weight = |c: &Candidate| f64::from(select::exp(c.logit - best));
        // Each cut keeps a head of the list sorted by likelihood, so only top-p's whole must be known before the others cut.
        let floor = if s.min_p > 0.0 { best + s.min_p.ln() } else { f32::NEG_INFINITY };
        let whole = if s.top_k > 0 {
            candidates.iter().map(weight).sum()
        } else {
            // What is e^-24 times less likely than the best, at this temperature, has less than 1e-5 together at 262,144 words.
            select::above(logits, floor.max(best - 24.0 * s.temperature.max(1.0)).next_down(), candidates);
            if s.top_p < 1.0 { f64::from(select::log_sum_exp(logits) - best).exp() } else { 0.0 }
        };
        if s.top_p < 1.0 {
            keep_mass(candidates, f64::from(s.top_p) * whole, weight);
        }
        candidates.retain(|c| c.logit >= floor);
        weights.clear();
        weights.extend(candidates.iter().map(|c| f64::from(select::exp((c.logit - best) / s.temperature))));
        let mut left = self.random.unit() * weights.iter().sum::<f64>();
        let hit = weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        // Rounding can leave a crumb after the last candidate.
        candidates.get(hit.unwrap_or(candidates.len() - 1)).map(|c| c.token)
    }
}

/// Keeps the most likely candidates whose weights together reach `wanted`, at least one. Sorts no more of them than needed.
fn keep_mass(candidates: &mut Vec<Candidate>, wanted: f64, weight: impl Fn(&Candidate) -> f64) {
    let mut head = 64.min(candidates.len());
    while head > 0 {
        candidates.select_nth_unstable_by(head - 1, select::order);
        candidates[..head].sort_unstable_by(select::order);
        let mut sum = 0.0;
        let enough = candidates[..head].iter().position(|c| {
            sum += weight(c);
            sum >= wanted
        });
        if let Some(last) = enough {
            candidates.truncate(last + 1);
            return;
        }
        if head == candidates.len() {
            return;
        }
        head = (head * 8).min(candidates.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(temperature: f32) -> Sampling {
        Sampling { temperature, top_k: 0, top_p: 1.0, min_p: 0.0, seed: Some(1), ..Sampling::default() }
    }

    /// Which tokens come in many draws from the same logits.
    fn support(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling, &[], None);
        let mut seen: Vec<u32> = (0..2000).map(|_| sampler.choose(&mut logits.to_vec()).unwrap().token.0).collect();
        seen.sort();
        seen.dedup();
        seen
    }

    /// Probabilities 0.5, 0.25, 0.15, 0.07, 0.03 in a shuffled order of tokens.
    fn five() -> Vec<f32> {
        [0.07f32, 0.5, 0.03, 0.25, 0.15].iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = Sampler::new(plain(1.0), &[], None);
        let mut counts = [0u32; 5];
        for _ in 0..20_000 {
            counts[sampler.choose(&mut five()).unwrap().token.0 as usize] += 1;
        }
        for (count, p) in counts.iter().zip([0.07, 0.5, 0.03, 0.25, 0.15]) {
            let (got, deviation) = (f64::from(*count) / 20_000.0, (p * (1.0f64 - p) / 20_000.0).sqrt());
            assert!((got - p).abs() < 5.0 * deviation, "{counts:?}");
        }
    }

    #[test]
    fn every_cut_keeps_what_it_should() {
        assert_eq!(support(plain(1.0), &five()), [0, 1, 2, 3, 4]);
        assert_eq!(support(Sampling { top_k: 3, ..plain(1.0) }, &five()), [1, 3, 4]);
        assert_eq!(support(Sampling { top_p: 0.6, ..plain(1.0) }, &five()), [1, 3]);
        assert_eq!(support(Sampling { top_p: 0.6, top_k: 4, ..plain(1.0) }, &five()), [1, 3]);
        assert_eq!(support(Sampling { min_p: 0.2, ..plain(1.0) }, &five()), [1, 3, 4]);
        assert_eq!(support(Sampling { top_p: 0.0, ..plain(1.0) }, &five()), [1]);
        assert_eq!(support(plain(0.0), &five()), [1]);
        assert_eq!(support(plain(0.01), &five()), [1]);
    }

    #[test]
    fn mass_is_reached_however_flat_the_words_are() {
        let mut candidates: Vec<_> = (0..1000).map(|token| Candidate { token, logit: 1.0 }).collect();
        keep_mass(&mut candidates, 500.0, |_| 1.0);
        assert_eq!((candidates.len(), candidates[0].token, candidates[499].token), (500, 0, 499));
    }

    #[test]
    fn penalties_and_bias_change_the_choice() {
        let logits = [2.0f32, 1.9, -1.0];
        let choose =
            |sampling: Sampling, prompt: &[TokenId]| Sampler::new(sampling, prompt, None).choose(&mut logits.to_vec()).unwrap().token.0;
        assert_eq!(choose(plain(0.0), &[TokenId(0)]), 0);
        assert_eq!(choose(Sampling { repetition: 1.2, ..plain(0.0) }, &[TokenId(0)]), 1);
        assert_eq!(choose(Sampling { repetition: 1.2, window: 1, ..plain(0.0) }, &[TokenId(0), TokenId(2)]), 0);
        assert_eq!(choose(Sampling { bias: vec![(TokenId(2), 10.0), (TokenId(99), 1.0)], ..plain(0.0) }, &[]), 2);
        let mut sampler = Sampler::new(Sampling { frequency: 0.06, ..plain(0.0) }, &[TokenId(0); 9], None);
        let text: Vec<u32> = (0..4).map(|_| sampler.choose(&mut logits.to_vec()).unwrap().token.0).collect();
        assert_eq!(text, [0, 0, 1, 0], "counts only what was generated");
    }

    #[test]
    fn a_token_is_penalised_as_long_as_it_stands_in_the_window_and_once_however_often() {
        let sampling = Sampling { repetition: 2.0, window: 3, ..plain(0.0) };
        let mut sampler = Sampler::new(sampling, &[0, 0, 1].map(TokenId), None);
        let mut penalised = || {
            let mut logits = [8.0f32, 8.0, 8.0, -8.0];
            let token = sampler.choose(&mut logits).unwrap().token.0;
            (logits, token)
        };
        assert_eq!(penalised(), ([4.0, 4.0, 8.0, -8.0], 2));
        assert_eq!(penalised(), ([4.0, 4.0, 4.0, -8.0], 0), "of two zeros one has left the window");
        assert_eq!(penalised(), ([4.0, 4.0, 4.0, -8.0], 0), "1, 2, 0");
        assert_eq!(penalised(), ([4.0, 8.0, 4.0, -8.0], 1), "2, 0, 0");
        assert_eq!(penalised(), ([4.0, 4.0, 8.0, -8.0], 2), "0, 0, 1");
    }

    #[test]
    fn logprobs_are_those_of_the_model() {
        let sampling = Sampling { logprobs: Some(2), bias: vec![(TokenId(2), 50.0)], ..plain(0.0) };
        let chosen = Sampler::new(sampling, &[], None).choose(&mut five()).unwrap();
        let (token, told) = (chosen.token, chosen.logprobs.unwrap());
        assert_eq!(token, TokenId(2));
        assert!((told.chosen - 0.03f32.ln()).abs() < 1e-5);
        assert_eq!(told.top.iter().map(|t| t.0.0).collect::<Vec<_>>(), [1, 3]);
        assert!((told.top[0].1 - 0.5f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn no_number_no_token() {
        for (sampling, logit) in [(plain(0.0), f32::NAN), (plain(1.0), f32::NEG_INFINITY), (Sampling::default(), f32::NAN)] {
            assert_eq!(Sampler::new(sampling, &[], None).choose(&mut [logit; 4]), Err(NoToken::NoNumber));
        }
    }

    /// Allows the tokens given, one list a place; complete after the last.
    #[derive(Debug)]
    struct Only(Vec<Vec<u32>>);

    impl Constraint for Only {
        fn allows(&mut self, token: TokenId) -> Result<bool, Broken> {
            Ok(self.0.first().ok_or_else(|| Broken("past its end".into()))?.contains(&token.0))
        }

        fn mask(&mut self, logits: &mut [f32]) -> Result<(), Broken> {
            let allowed = &self.0[0];
            logits.iter_mut().zip(0u32..).filter(|(_, t)| !allowed.contains(t)).for_each(|(x, _)| *x = f32::NEG_INFINITY);
            Ok(())
        }

        fn advance(&mut self, token: TokenId) -> Result<bool, Broken> {
            assert!(self.0.remove(0).contains(&token.0));
            Ok(self.0.is_empty())
        }
    }

    #[test]
    fn a_constraint_takes_its_best_and_says_when_it_is_complete() {
        let held = |allowed: Vec<Vec<u32>>| Sampler::new(plain(0.0), &[], Some(Box::new(Only(allowed))));
        let mut sampler = held(vec![vec![1, 2], vec![0, 4], vec![7]]);
        let chosen: Vec<_> = (0..2).map(|_| sampler.choose(&mut five()).map(|c| (c.token.0, c.completes)).unwrap()).collect();
        assert_eq!(chosen, [(1, false), (4, false)], "the likeliest of those allowed");
        assert_eq!(sampler.choose(&mut five()), Err(NoToken::Broken(Broken::dead_end())));
        assert!(held(vec![vec![3]]).choose(&mut five()).unwrap().completes);
        assert!(matches!(held(vec![]).choose(&mut five()), Err(NoToken::Broken(_))));
    }

    #[test]
    fn draws_under_a_constraint_follow_the_probabilities_of_what_is_allowed() {
        let mut sampler = Sampler::new(plain(1.0), &[], Some(Box::new(Only(vec![vec![0, 3, 4]; 4_000]))));
        let mut counts = [0u32; 5];
        for _ in 0..4_000 {
            counts[sampler.choose(&mut five()).unwrap().token.0 as usize] += 1;
        }
        for (count, p) in counts.iter().zip([0.07f64, 0.0, 0.0, 0.25, 0.15].map(|p| p / 0.47)) {
            let (got, deviation) = (f64::from(*count) / 4_000.0, (p * (1.0 - p) / 4_000.0).sqrt());
            assert!((got - p).abs() <= 5.0 * deviation, "{counts:?}");
        }
    }
}
