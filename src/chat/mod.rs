//! Messages in, a prompt out; an answer's text in, deltas out. Words only: no token ids, no model, nothing else of this house.
//!
//! - [`template`]: the model's own Jinja template, rendered to pieces of text and special tokens.

pub mod template;
