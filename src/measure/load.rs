//! What a run asks of the machine, over and over: one turn of a load, in tokens. The names are the simulator's.

pub use crate::governor::simulate::Load;
use serde::{Deserialize, Serialize};

/// A turn: a prompt, an answer, silence. Each begins with an empty context, so that minutes are alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub load: Load,
    pub prompt_tokens: usize,
    pub answer_tokens: usize,
    pub silence_s: f64,
}

impl Turn {
    /// `prompt` and `answer` in tokens; `None` is the load's own: decode 32 and 256 (it slows as the context grows, so that it begins anew
    /// now and then), prefill 512 and none, voice 256 and 128 with 8 s of silence, which is what somebody who listens and thinks leaves.
    pub fn of(load: Load, prompt: Option<usize>, answer: Option<usize>) -> Turn {
        let (prompt_tokens, answer_tokens, silence_s) = match load {
            Load::Decode => (32, 256, 0.0),
            Load::Prefill => (512, 0, 0.0),
            Load::Voice => (256, 128, 8.0),
        };
        Turn { load, prompt_tokens: prompt.unwrap_or(prompt_tokens), answer_tokens: answer.unwrap_or(answer_tokens), silence_s }
    }

    /// Why nothing could be measured with it.
    pub fn fault(&self) -> Option<&'static str> {
        match self.load {
            _ if self.prompt_tokens == 0 => Some("a turn needs a prompt of one token at least (-p)"),
            Load::Prefill if self.answer_tokens > 0 => Some("the load `prefill` is prompts alone and has no answers: leave -n out"),
            Load::Decode | Load::Voice if self.answer_tokens == 0 => Some("a turn of this load needs an answer of one token at least (-n)"),
            _ => None,
        }
    }

    /// Positions that a turn fills.
    pub fn context(&self) -> usize {
        self.prompt_tokens.saturating_add(self.answer_tokens)
    }

    /// The load in words, for the record.
    pub fn words(&self) -> String {
        let Turn { prompt_tokens: prompt, answer_tokens: answer, .. } = self;
        match self.load {
            Load::Decode => {
                format!("decode of one sequence, begun anew after {answer} tokens with a prompt of {prompt}, which is not counted")
            }
            Load::Prefill => format!("prompts of {prompt} tokens, one after the other, nothing generated; tokens are the prompts'"),
            Load::Voice => {
                format!(
                    "turns: a prompt of {prompt} tokens, {answer} generated, {:.0} s of silence; tokens are the generated ones",
                    self.silence_s
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_the_lengths_of_its_load_unless_the_caller_says_others() {
        assert_eq!(Turn::of(Load::Decode, None, None).context(), 288);
        assert_eq!(Turn::of(Load::Voice, Some(100), None).context(), 228);
        assert_eq!(Turn::of(Load::Prefill, None, Some(0)).context(), 512);
        for (turn, is_wrong) in [
            (Turn::of(Load::Prefill, Some(0), None), true),
            (Turn::of(Load::Prefill, None, Some(64)), true),
            (Turn::of(Load::Voice, None, Some(0)), true),
            (Turn::of(Load::Prefill, None, None), false),
        ] {
            assert_eq!(turn.fault().is_some(), is_wrong, "{turn:?}");
        }
    }
}
