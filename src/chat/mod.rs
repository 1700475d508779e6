//! Messages in, a prompt out; an answer's text in, deltas out. Words only: no token ids, no model, nothing else of this house.
//!
//! - [`message`]: what a request says, in OpenAI's form.
//! - [`prompt`]: [`Chat`] puts it into the form that the model's template knows and renders it.
//! - [`template`]: the model's own Jinja template, rendered to pieces of text and special tokens.
//! - [`capabilities`]: what a template can do; [`defaults`]: templates for files that bring none.
//! - [`deltas`]: the answer's text read into what is said, thought and called.
//! - [`form`]: what an answer has to look like, where a request asks for a form.

pub mod capabilities;
pub mod defaults;
pub mod deltas;
pub mod form;
pub mod message;
pub mod prompt;
pub mod template;

pub use deltas::{Delta, Format, Reader};
pub use form::{Form, Hold};
pub use message::{Message, Tool, ToolCall};
pub use prompt::{Chat, ChatError, Prompt, Request};
pub use template::{Piece, TemplateError};
