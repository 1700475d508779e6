//! (being written)
pub struct Gguf;
