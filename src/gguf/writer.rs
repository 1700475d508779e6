//! Writes a GGUF file (version 3): metadata first, then the tensor list, then the tensors' bytes as they come.
//! Nothing but the header is held in memory. Who calls it knows what is written, so wrong use is an assertion, not an error.

pub use hearth_kernels::quant::Format;
use std::io::{self, Write};

const ALIGNMENT: usize = 32;

/// A file being planned: keys and tensors are announced, then [`Plan::start`] writes the header.
#[derive(Default)]
pub struct Plan {
    keys: u64,
    metadata: Vec<u8>,
    list: Vec<u8>,
    tensors: Vec<usize>,
    /// Bytes of the data section so far, padding included.
    data: usize,
}

impl Plan {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key. Keys are not checked for duplicates, so that tests can write them.
    pub fn set(&mut self, key: &str, value: impl Put) -> &mut Self {
        put_string(&mut self.metadata, key.as_bytes());
        self.metadata.extend(value.id().to_le_bytes());
        value.put(&mut self.metadata);
        self.keys += 1;
        self
    }

    /// Announces a tensor. `shape` is in GGUF's order, the length of a row first.
    ///
    /// # Panics
    /// When a row is no whole number of the format's blocks.
    pub fn tensor(&mut self, name: &str, format: Format, shape: &[usize]) -> &mut Self {
        let rows: usize = shape[1..].iter().product();
        let bytes = format.row_bytes(shape[0]).unwrap_or_else(|| panic!("{name}: rows of {} in {}", shape[0], format.name())) * rows;
        put_string(&mut self.list, name.as_bytes());
        self.list.extend((shape.len() as u32).to_le_bytes());
        self.list.extend(shape.iter().flat_map(|n| (*n as u64).to_le_bytes()));
        self.list.extend(format.id().to_le_bytes());
        self.list.extend((self.data as u64).to_le_bytes());
        self.tensors.push(bytes);
        self.data += bytes.next_multiple_of(ALIGNMENT);
        self
    }

    /// Writes the header. The tensors' bytes follow, in the order they were announced.
    pub fn start<W: Write>(self, mut out: W) -> io::Result<Writer<W>> {
        let header = 4 + 4 + 8 + 8 + self.metadata.len() + self.list.len();
        out.write_all(b"GGUF")?;
        out.write_all(&3u32.to_le_bytes())?;
        out.write_all(&(self.tensors.len() as u64).to_le_bytes())?;
        out.write_all(&self.keys.to_le_bytes())?;
        out.write_all(&self.metadata)?;
        out.write_all(&self.list)?;
        pad(&mut out, header)?;
        Ok(Writer { out, pending: self.tensors.into_iter(), left: 0, written: 0 })
    }

    /// The whole file in memory, for tests. `tensors` are the bytes of each tensor in order.
    pub fn to_bytes<'a>(self, tensors: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let write = || {
            let mut w = self.start(Vec::new())?;
            tensors.into_iter().try_for_each(|t| w.write_all(t))?;
            w.finish()
        };
        write().expect("writing to memory does not fail")
    }
}

/// The data section being written: bytes go in by [`Write`], in pieces of any size, and padding goes between tensors by itself.
pub struct Writer<W> {
    out: W,
    pending: std::vec::IntoIter<usize>,
    /// Bytes that the current tensor still lacks.
    left: usize,
    /// Bytes written of the current tensor.
    written: usize,
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.left = self.pending.next().ok_or_else(|| io::Error::other("more tensor bytes than were announced"))?;
            self.written = 0;
        }
        let count = self.out.write(&bytes[..bytes.len().min(self.left)])?;
        self.left -= count;
        self.written += count;
        if self.left == 0 {
            pad(&mut self.out, self.written)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Writer<W> {
    /// Hands back what it wrote to. An error when a tensor's bytes are missing.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left != 0 || self.pending.next().is_some() {
            return Err(io::Error::other("fewer tensor bytes than were announced"));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// What can stand as a value.
pub trait Put {
    /// The type's id.
    fn id(&self) -> u32;
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($t:ty: $id:literal;)*) => {$(
        impl Put for $t {
            fn id(&self) -> u32 { $id }
            fn put(&self, out: &mut Vec<u8>) { out.extend(self.to_le_bytes()) }
        }
    )*};
}

numbers! { u8: 0; i8: 1; u16: 2; i16: 3; u32: 4; i32: 5; f32: 6; u64: 10; i64: 11; f64: 12; }

impl Put for bool {
    fn id(&self) -> u32 {
        7
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Put for &str {
    fn id(&self) -> u32 {
        8
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_string(out, self.as_bytes());
    }
}

impl Put for &[u8] {
    fn id(&self) -> u32 {
        8
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_string(out, self);
    }
}

impl Put for String {
    fn id(&self) -> u32 {
        8
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_string(out, self.as_bytes());
    }
}

/// An array. Its element type is that of the first element; an empty one is of `uint32`.
impl<T: Put> Put for Vec<T> {
    fn id(&self) -> u32 {
        9
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.first().map_or(4, Put::id).to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        self.iter().for_each(|item| item.put(out));
    }
}
