//! What holds an answer to a form: which tokens may come next. The engine asks once a token; the form itself is the service's business.

use crate::units::TokenId;
use std::fmt::Debug;

/// Holds one answer to its form. Called on the engine's thread between two steps, so every call has to be short.
pub trait Constraint: Send + Debug {
    /// Whether `token` may come next.
    fn allows(&mut self, token: TokenId) -> Result<bool, Broken>;

    /// Makes every token that may not come next impossible: minus infinity.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Broken>;

    /// `token`, which is allowed, came. Answers whether the form is complete, so that nothing but the answer's end can follow.
    fn advance(&mut self, token: TokenId) -> Result<bool, Broken>;
}

/// The form can't be followed any further; why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the answer can't be held to the form that was asked for: {0}")]
pub struct Broken(pub String);

impl Broken {
    /// Nothing that the model can say goes on here.
    pub fn dead_end() -> Self {
        Broken(
            "no token of the model's vocabulary goes on as it asks; has it letters that the model can't write, or `logit_bias` forbids, or a \
             rule that leads to nothing but itself?"
                .into(),
        )
    }
}
