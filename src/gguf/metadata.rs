//! Metadata: typed values that are views of the mapped file, and getters whose refusals name the key.

use super::cursor::Cursor;
use super::error::{Fault, GgufError, printable};
use super::parse::Entry;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// The metadata of one file. Copy it freely; it borrows from the [`Gguf`](super::Gguf).
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    pub(super) path: &'a Path,
    pub(super) bytes: &'a [u8],
    pub(super) entries: &'a [Entry],
    pub(super) keys: &'a HashMap<String, usize>,
}

impl<'a> Metadata<'a> {
    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.keys.get(key).and_then(|i| self.entries[*i].value(self.bytes))
    }

    /// Every key with its value, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let bytes = self.bytes;
        self.entries.iter().filter_map(move |e| Some((e.key.as_str(), e.value(bytes)?)))
    }

    /// The value of `key` as a `T`; `None` when the key is absent, an error when it has another type or does not fit.
    pub fn optional<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>, GgufError> {
        self.get(key).map(|v| self.convert(key, v)).transpose()
    }

    /// The value of `key` as a `T`; an error when it is absent, has another type or does not fit.
    pub fn required<T: FromValue<'a>>(&self, key: &str) -> Result<T, GgufError> {
        self.optional(key)?.ok_or_else(|| Fault::MissingKey { key: key.to_owned() }.at(self.path))
    }

    fn convert<T: FromValue<'a>>(&self, key: &str, value: Value<'a>) -> Result<T, GgufError> {
        let wrong = || Fault::WrongType { key: key.to_owned(), want: T::WANTED, found: value.to_string() };
        T::from_value(value).ok_or_else(|| wrong().at(self.path))
    }

    pub fn str(&self, key: &str) -> Result<&'a str, GgufError> {
        self.required(key)
    }

    /// Any integer type that fits.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        self.required(key)
    }

    /// Any integer type that fits.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        self.required(key)
    }

    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        self.required(key)
    }

    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        self.required(key)
    }

    /// A list of texts, decoded as it is walked. Bytes, since words of a vocabulary need not be UTF-8.
    pub fn strings(&self, key: &str) -> Result<Strings<'a>, GgufError> {
        self.required(key)
    }

    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        self.required(key)
    }

    /// A list of any integer type whose values fit.
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, GgufError> {
        self.required(key)
    }

    /// A list of any integer type whose values fit.
    pub fn u32s(&self, key: &str) -> Result<Vec<u32>, GgufError> {
        self.required(key)
    }
}

/// The type of a value. The discriminant is its id in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Kind; 13] = {
        use Kind::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    pub fn from_id(id: u32) -> Option<Kind> {
        Kind::ALL.get(id as usize).copied()
    }

    /// Bytes of a value; of a string or an array, those of an empty one.
    pub fn bytes_min(self) -> u64 {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }

    /// As the format's specification calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::U8 => "uint8",
            Kind::I8 => "int8",
            Kind::U16 => "uint16",
            Kind::I16 => "int16",
            Kind::U32 => "uint32",
            Kind::I32 => "int32",
            Kind::F32 => "float32",
            Kind::Bool => "bool",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::U64 => "uint64",
            Kind::I64 => "int64",
            Kind::F64 => "float64",
        }
    }
}

/// One value. Strings and arrays are views of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    /// Not necessarily UTF-8.
    String(&'a [u8]),
    Array(Array<'a>),
}

impl Value<'_> {
    /// An integer of any type; `None` for everything else.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(n) => n.into(),
            Value::I8(n) => n.into(),
            Value::U16(n) => n.into(),
            Value::I16(n) => n.into(),
            Value::U32(n) => n.into(),
            Value::I32(n) => n.into(),
            Value::U64(n) => n.into(),
            Value::I64(n) => n.into(),
            _ => return None,
        })
    }
}

/// How a message speaks of a value.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::F32(x) => write!(f, "the number {x:?}"),
            Value::F64(x) => write!(f, "the number {x:?}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::String(s) if std::str::from_utf8(s).is_err() => write!(f, "text that is not UTF-8 (\"{}\")", printable(s)),
            Value::String(s) => write!(f, "the text \"{}\"", printable(s)),
            Value::Array(a) => write!(f, "an array of {} × {}", a.len, a.kind.name()),
            integer => write!(f, "{}", integer.integer().unwrap_or_default()),
        }
    }
}

/// An array as it lies in the file: its element type, its length, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub kind: Kind,
    pub len: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The elements, decoded one by one.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut cursor) = (self.kind, Cursor::new(self.bytes));
        (0..self.len).map_while(move |_| cursor.value(kind).ok())
    }

    /// Elements of four bytes as they lie, little-endian: vocabularies hold hundreds of thousands. `None` for other sizes.
    pub fn of_four_bytes(&self) -> Option<&'a [[u8; 4]]> {
        let four = matches!(self.kind, Kind::U32 | Kind::I32 | Kind::F32);
        self.bytes.get(..self.len.checked_mul(4)?).filter(|_| four).map(|bytes| bytes.as_chunks().0)
    }

    fn collect<T: FromValue<'a>>(&self) -> Option<Vec<T>> {
        self.iter().map(T::from_value).collect()
    }
}

/// The texts of an array, in order.
#[derive(Clone)]
pub struct Strings<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl Strings<'_> {
    /// The first `count` of them, or all where there are fewer.
    pub fn first(self, count: usize) -> Self {
        Strings { left: self.left.min(count), ..self }
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        // Lengths were walked when the file was opened; if the file was changed since, empty texts keep the count right.
        Some(self.cursor.string().unwrap_or_default())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// What a value can be asked to be.
pub trait FromValue<'a>: Sized {
    /// Completes "must be …".
    const WANTED: &'static str;
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! integers {
    ($($t:ty: $wanted:literal, $list:literal;)*) => {$(
        impl<'a> FromValue<'a> for $t {
            const WANTED: &'static str = $wanted;
            fn from_value(value: Value<'a>) -> Option<Self> {
                value.integer().and_then(|n| n.try_into().ok())
            }
        }
        impl<'a> FromValue<'a> for Vec<$t> {
            const WANTED: &'static str = $list;
            fn from_value(value: Value<'a>) -> Option<Self> {
                Array::from_value(value)?.collect()
            }
        }
    )*};
}

integers! {
    u32: "an integer from 0 to 4294967295", "an array of integers from 0 to 4294967295";
    i32: "an integer of 32 bits", "an array of integers of 32 bits";
    u64: "an integer from 0 to 2^64-1", "an array of integers from 0 to 2^64-1";
    usize: "an integer that is not negative", "an array of integers that are not negative";
}

impl<'a> FromValue<'a> for f32 {
    const WANTED: &'static str = "a floating-point number";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Vec<f32> {
    const WANTED: &'static str = "an array of floating-point numbers";
    fn from_value(value: Value<'a>) -> Option<Self> {
        Array::from_value(value)?.collect()
    }
}

impl<'a> FromValue<'a> for bool {
    const WANTED: &'static str = "true or false";
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Bool(b) = value { Some(b) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    const WANTED: &'static str = "a text";
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::String(s) = value { Some(s) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const WANTED: &'static str = "a text in UTF-8";
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::String(s) = value { std::str::from_utf8(s).ok() } else { None }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    const WANTED: &'static str = "an array";
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Array(a) = value { Some(a) } else { None }
    }
}

impl<'a> FromValue<'a> for Strings<'a> {
    const WANTED: &'static str = "an array of texts";
    fn from_value(value: Value<'a>) -> Option<Self> {
        let a = Array::from_value(value).filter(|a| a.kind == Kind::String)?;
        Some(Strings { cursor: Cursor::new(a.bytes), left: a.len })
    }
}
