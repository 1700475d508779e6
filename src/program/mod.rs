//! (being written)
pub struct Program;
