//! Reads from a byte slice that never go past its end. Little-endian, as GGUF is.

use super::metadata::{Array, Kind, Value};

/// Deepest nesting of arrays that is read. The format sets no limit; real files stop at 1.
pub const NESTING_MAX: usize = 4;

/// A position in a byte slice. A read that fails leaves the position undefined: callers give up then.
#[derive(Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why a value cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The bytes end inside it.
    Cut,
    /// A string or an array claims this length, which the rest of the bytes cannot hold.
    Length(u64),
    /// An unknown value type.
    Kind(u32),
    /// Arrays nested deeper than [`NESTING_MAX`].
    Deep,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    pub fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N as u64)?.try_into().ok()
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length and that many bytes.
    pub fn string(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.u64().ok_or(Broken::Cut)?;
        self.take(length).ok_or(Broken::Length(length))
    }

    /// A value of a kind that was read before. Walks strings and nested arrays once to find where it ends; allocates nothing.
    pub fn value(&mut self, kind: Kind) -> Result<Value<'a>, Broken> {
        self.value_at_depth(kind, 0)
    }

    fn value_at_depth(&mut self, kind: Kind, depth: usize) -> Result<Value<'a>, Broken> {
        match kind {
            Kind::String => return self.string().map(Value::String),
            Kind::Array => return self.array_at_depth(depth + 1).map(Value::Array),
            _ => {}
        }
        let scalar = match kind {
            Kind::U8 => self.array().map(|b| Value::U8(u8::from_le_bytes(b))),
            Kind::I8 => self.array().map(|b| Value::I8(i8::from_le_bytes(b))),
            Kind::U16 => self.array().map(|b| Value::U16(u16::from_le_bytes(b))),
            Kind::I16 => self.array().map(|b| Value::I16(i16::from_le_bytes(b))),
            Kind::U32 => self.u32().map(Value::U32),
            Kind::I32 => self.array().map(|b| Value::I32(i32::from_le_bytes(b))),
            Kind::F32 => self.array().map(|b| Value::F32(f32::from_le_bytes(b))),
            Kind::U64 => self.u64().map(Value::U64),
            Kind::I64 => self.array().map(|b| Value::I64(i64::from_le_bytes(b))),
            Kind::F64 => self.array().map(|b| Value::F64(f64::from_le_bytes(b))),
            Kind::Bool => self.array().map(|[b]| Value::Bool(b != 0)),
            Kind::String | Kind::Array => unreachable!("returned above"),
        };
        scalar.ok_or(Broken::Cut)
    }

    fn array_at_depth(&mut self, depth: usize) -> Result<Array<'a>, Broken> {
        if depth > NESTING_MAX {
            return Err(Broken::Deep);
        }
        let id = self.u32().ok_or(Broken::Cut)?;
        let kind = Kind::from_id(id).ok_or(Broken::Kind(id))?;
        let count = self.u64().ok_or(Broken::Cut)?;
        // Every element takes at least this much, so a lying count ends here and the walk below is no longer than the file.
        let least = count.checked_mul(kind.bytes_min()).filter(|n| *n <= self.remaining()).ok_or(Broken::Length(count))?;
        let start = self.at;
        match kind {
            Kind::String => (0..count).try_for_each(|_| self.string().map(drop))?,
            Kind::Array => (0..count).try_for_each(|_| self.array_at_depth(depth + 1).map(drop))?,
            _ => drop(self.take(least).ok_or(Broken::Length(count))?),
        }
        Ok(Array { kind, len: count as usize, bytes: &self.bytes[start..self.at] })
    }
}
