//! One file's header: counts, metadata, tensor list. Each claim is checked here, before anything believes it; work and memory
//! are bounded by the header's bytes and by the limits below.

use super::cursor::{Broken, Cursor, NESTING_MAX};
use super::error::{Fault, printable};
use super::metadata::{Array, FromValue, Kind, Value};
use super::tensor::{TensorInfo, block_of};
use hearth_kernels::quant::Format;
use std::collections::HashMap;
use std::ops::Range;

/// Longest header: the largest vocabularies in use take some 20 MiB.
const HEADER_BYTES_MAX: usize = 64 << 20;
/// Most metadata entries; real files have less than a hundred.
const KEYS_MAX: u64 = 1 << 16;
/// Most tensors in one part; the largest models in use have some thousand.
const TENSORS_MAX: u64 = 1 << 17;
/// The specification's own limits.
const KEY_BYTES_MAX: u64 = 65535;
const NAME_BYTES_MAX: u64 = 64;
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u64 = 32;
/// Below 8 the format forbids it (and f32 weights could not be read in place); above this nobody has a reason.
const ALIGNMENT: Range<u64> = 8..(1 << 24) + 1;

/// What a header says.
#[derive(Debug)]
pub struct Header {
    pub version: u32,
    pub alignment: u64,
    pub entries: Vec<Entry>,
    /// From a key to its index in `entries`.
    pub keys: HashMap<String, usize>,
    pub tensors: Vec<TensorInfo>,
}

/// A metadata entry: where its value lies.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    kind: Kind,
    range: Range<usize>,
}

impl Entry {
    /// The value. Arrays are not walked again: their end is known.
    pub fn value<'a>(&self, file: &'a [u8]) -> Option<Value<'a>> {
        let bytes = file.get(self.range.clone())?;
        let mut cursor = Cursor::new(bytes);
        if self.kind != Kind::Array {
            return cursor.value(self.kind).ok();
        }
        let (kind, len) = (Kind::from_id(cursor.u32()?)?, cursor.u64()?);
        Some(Value::Array(Array { kind, len: usize::try_from(len).ok()?, bytes: &bytes[cursor.position()..] }))
    }
}

/// Checks the header of a whole mapped file.
pub fn header(file: &[u8]) -> Result<Header, Fault> {
    let len = file.len() as u64;
    let cut = |what: &str| Fault::Cut { what: what.to_owned(), len };
    let mut c = Cursor::new(&file[..file.len().min(HEADER_BYTES_MAX)]);

    let magic = c.take(4).ok_or_else(|| cut("the header (its magic)"))?;
    if magic != b"GGUF" {
        return Err(Fault::Magic { found: magic.escape_ascii().to_string() });
    }
    let version = c.u32().ok_or_else(|| cut("the header (its version)"))?;
    match version {
        2 | 3 => {}
        v if (1..=3).contains(&v.swap_bytes()) => return Err(Fault::BigEndian { version }),
        _ => return Err(Fault::Version { version }),
    }
    let tensor_count = c.u64().ok_or_else(|| cut("the header (its tensor count)"))?;
    let key_count = c.u64().ok_or_else(|| cut("the header (its metadata count)"))?;
    for (what, count, limit) in [("metadata entries", key_count, KEYS_MAX), ("tensors", tensor_count, TENSORS_MAX)] {
        if count > limit {
            return Err(Fault::Count { what, count, limit });
        }
    }

    let mut reader = Reader { cursor: c, len };
    let (mut entries, mut keys) = (Vec::new(), HashMap::new());
    for index in 0..key_count {
        let entry = reader.entry(index)?;
        if keys.insert(entry.key.clone(), entries.len()).is_some() {
            return Err(Fault::DuplicateKey { key: printable(entry.key.as_bytes()) });
        }
        entries.push(entry);
    }
    let alignment = match keys.get("general.alignment").and_then(|i| entries[*i].value(file)) {
        Some(value) => alignment(value)?,
        None => ALIGNMENT_DEFAULT,
    };
    let mut tensors = Vec::new();
    for index in 0..tensor_count {
        tensors.push(reader.tensor(index, alignment)?);
    }
    let data = (reader.cursor.position() as u64).next_multiple_of(alignment);
    tensors.iter_mut().try_for_each(|t| place(t, data, len))?;
    Ok(Header { version, alignment, entries, keys, tensors })
}

fn alignment(value: Value<'_>) -> Result<u64, Fault> {
    let sane = u64::from_value(value).filter(|n| n.is_power_of_two() && ALIGNMENT.contains(n));
    sane.ok_or_else(|| Fault::Alignment { found: value.to_string(), min: ALIGNMENT.start, max: ALIGNMENT.end - 1 })
}

/// Turns an offset within the data section into one within the file.
fn place(t: &mut TensorInfo, data: u64, len: u64) -> Result<(), Fault> {
    let start = data.checked_add(t.offset);
    let past_end = || Fault::TensorPastEnd { tensor: t.name.clone(), offset: t.offset, size: t.bytes, len };
    let end = start.and_then(|s| s.checked_add(t.bytes)).filter(|e| *e <= len).ok_or_else(past_end)?;
    t.offset = end - t.bytes;
    Ok(())
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    len: u64,
}

impl Reader<'_> {
    /// What a read that ran out of bytes means: the file ends, or the header is longer than we follow.
    fn cut(&self, what: String) -> Fault {
        if self.len > HEADER_BYTES_MAX as u64 {
            return Fault::HeaderTooLong { what, limit: HEADER_BYTES_MAX as u64 };
        }
        Fault::Cut { what, len: self.len }
    }

    fn entry(&mut self, index: u64) -> Result<Entry, Fault> {
        let here = || format!("metadata entry {index}");
        let long = |n: u64| Fault::Key { index, problem: too_long(n, KEY_BYTES_MAX) };
        let key = match self.cursor.string() {
            Ok(key) if key.len() as u64 > KEY_BYTES_MAX => return Err(long(key.len() as u64)),
            Ok(key) => key,
            Err(Broken::Length(n)) => return Err(long(n)),
            Err(_) => return Err(self.cut(here())),
        };
        let text = || Fault::Key { index, problem: format!("not UTF-8 (\"{}\")", printable(key)) };
        let key = std::str::from_utf8(key).map_err(|_| text())?;
        let shown = || printable(key.as_bytes());
        let id = self.cursor.u32().ok_or_else(|| self.cut(format!("metadata key `{}`", shown())))?;
        let kind = Kind::from_id(id).ok_or_else(|| Fault::ValueType { key: shown(), id })?;
        let start = self.cursor.position();
        self.cursor.value(kind).map_err(|broken| match broken {
            Broken::Cut => self.cut(format!("the value of metadata key `{}`", shown())),
            Broken::Length(count) => Fault::Length { key: shown(), count, len: self.len },
            Broken::Kind(id) => Fault::ValueType { key: shown(), id },
            Broken::Deep => Fault::Nesting { key: shown(), limit: NESTING_MAX },
        })?;
        Ok(Entry { key: key.to_owned(), kind, range: start..self.cursor.position() })
    }

    /// A line of the tensor list; its offset is still the one within the data section.
    fn tensor(&mut self, index: u64, alignment: u64) -> Result<TensorInfo, Fault> {
        let bad_name = |problem: String| Fault::TensorName { index, problem };
        let long = |n: u64| bad_name(too_long(n, NAME_BYTES_MAX));
        let name = match self.cursor.string() {
            Ok([]) => return Err(bad_name("empty".to_owned())),
            Ok(name) if name.len() as u64 > NAME_BYTES_MAX => return Err(long(name.len() as u64)),
            Ok(name) => name,
            Err(Broken::Length(n)) => return Err(long(n)),
            Err(_) => return Err(self.cut(format!("the tensor list, at tensor {index}"))),
        };
        let name = std::str::from_utf8(name).map_err(|_| bad_name(format!("not UTF-8 (\"{}\")", printable(name))))?;
        let tensor = printable(name.as_bytes());
        let cut = |r: &Self| r.cut(format!("the tensor list, at `{}`", printable(name.as_bytes())));

        let count = self.cursor.u32().ok_or_else(|| cut(self))?;
        if !(1..=DIMENSIONS_MAX).contains(&count) {
            return Err(Fault::Dimensions { tensor, count });
        }
        let mut shape = Vec::new();
        for _ in 0..count {
            shape.push(self.cursor.u64().ok_or_else(|| cut(self))?);
        }
        let type_id = self.cursor.u32().ok_or_else(|| cut(self))?;
        let offset = self.cursor.u64().ok_or_else(|| cut(self))?;
        if !offset.is_multiple_of(alignment) {
            return Err(Fault::Offset { tensor, offset, alignment });
        }
        let bytes = size(&tensor, &shape, type_id)?;
        let shape = shape.iter().map(|n| *n as usize).collect();
        Ok(TensorInfo { name: name.to_owned(), type_id, format: Format::from_id(type_id), shape, offset, bytes, part: 0 })
    }
}

/// What to say of a key or name that claims a length of `n` bytes and cannot have it.
fn too_long(n: u64, limit: u64) -> String {
    let why = if n > limit { format!("at most {limit} are allowed") } else { "past the end of the file".to_owned() };
    format!("{n} bytes long, {why}")
}

/// Bytes of a tensor; 0 for a type of unknown size.
fn size(tensor: &str, shape: &[u64], type_id: u32) -> Result<u64, Fault> {
    let bad = |problem| Fault::Shape { tensor: tensor.to_owned(), shape: shape.to_owned(), problem };
    if shape.contains(&0) {
        return Err(bad("none may be zero"));
    }
    // GGUF counts weights in an i64, so more than that is nonsense even where the bytes would fit.
    let weights = shape.iter().try_fold(1i64, |n, d| n.checked_mul(i64::try_from(*d).ok()?));
    let weights = weights.ok_or_else(|| bad("their product overflows"))? as u64;
    let Some((block, bytes)) = block_of(type_id) else { return Ok(0) };
    if !shape[0].is_multiple_of(block) {
        let format = Format::from_id(type_id).map_or("", Format::name);
        return Err(Fault::Row { tensor: tensor.to_owned(), cols: shape[0], format, block });
    }
    (weights / block).checked_mul(bytes).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(|| bad("their size in bytes overflows"))
}
