//! The reader against files made here: what it must read, and what it must refuse and how it says so.

use super::writer::Plan;
use super::{Fault, Gguf, GgufError, Value};
use hearth_kernels::quant::Format;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Metadata of every type, and two tensors.
fn plan() -> Plan {
    let mut p = Plan::new();
    p.set("general.architecture", "llama").set("x.u8", 200u8).set("x.i8", -3i8).set("x.u16", 60000u16).set("x.i16", -4i16);
    p.set("x.u32", 7u32).set("x.i32", -7i32).set("x.u64", u64::MAX).set("x.i64", i64::MIN).set("x.f32", 1e-5f32).set("x.f64", 0.25f64);
    p.set("x.bool", true).set("x.words", vec!["a", "", "ü"]).set("x.floats", vec![0.5f32, -1.0]).set("x.ints", vec![1i32, -2]);
    p.set("x.nested", vec![vec![1u8, 2], vec![]]).set("x.empty", Vec::<u32>::new()).set("x.bytes", &b"\xff\xfe"[..]);
    p.tensor("a.weight", Format::F32, &[3, 2]).tensor("b.weight", Format::Q8_0, &[64]);
    p
}

fn bytes() -> Vec<u8> {
    plan().to_bytes([&[1u8; 24][..], &[2u8; 68]])
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let folder = Folder::new();
    Gguf::open(folder.write("m.gguf", bytes))
}

fn refusal(bytes: &[u8]) -> String {
    open(bytes).expect_err("must be refused").to_string()
}

#[test]
fn what_the_writer_wrote_is_read_back() {
    let file = open(&bytes()).unwrap();
    let m = file.meta();
    assert_eq!(m.str("general.architecture").unwrap(), "llama");
    assert_eq!((m.u32("x.u8").unwrap(), m.u32("x.u16").unwrap(), m.u64("x.u64").unwrap()), (200, 60000, u64::MAX));
    assert_eq!(
        (m.required::<i32>("x.i8").unwrap(), m.required::<i32>("x.i16").unwrap(), m.get("x.i64")),
        (-3, -4, Some(Value::I64(i64::MIN)))
    );
    assert_eq!((m.f32("x.f32").unwrap(), m.f32("x.f64").unwrap(), m.bool("x.bool").unwrap()), (1e-5, 0.25, true));
    assert_eq!(m.strings("x.words").unwrap().collect::<Vec<_>>(), [&b"a"[..], b"", "ü".as_bytes()]);
    assert_eq!(
        (m.f32s("x.floats").unwrap(), m.i32s("x.ints").unwrap(), m.u32s("x.empty").unwrap()),
        (vec![0.5, -1.0], vec![1, -2], vec![])
    );
    let Some(Value::Array(nested)) = m.get("x.nested") else { panic!("no array") };
    let inner = |v| if let Value::Array(a) = v { a.len } else { usize::MAX };
    assert_eq!(nested.iter().map(inner).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(m.iter().count(), 18);

    let (a, b) = (file.tensor("a.weight").unwrap(), file.tensor("b.weight").unwrap());
    assert_eq!((a.format, a.cols(), a.rows(), a.data), (Format::F32, 3, 2, &[1u8; 24][..]));
    assert_eq!((b.format, b.cols(), b.rows(), b.data), (Format::Q8_0, 64, 1, &[2u8; 68][..]));
    assert_eq!(file.info("a.weight").unwrap().offset % 32, 0);
}

#[test]
fn getters_name_the_key_what_it_must_be_and_what_it_is() {
    let folder = Folder::new();
    let path = folder.write("m.gguf", &bytes());
    let file = Gguf::open(&path).unwrap();
    let said = |e: GgufError| e.to_string().strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned();
    let m = file.meta();
    assert_eq!(said(m.u32("x.none").unwrap_err()), "metadata key `x.none` is missing");
    assert_eq!(said(m.u32("x.i32").unwrap_err()), "metadata key `x.i32` must be an integer from 0 to 4294967295, but is -7");
    assert_eq!(
        said(m.u32("general.architecture").unwrap_err()),
        "metadata key `general.architecture` must be an integer from 0 to 4294967295, but is the text \"llama\""
    );
    assert_eq!(said(m.f32("x.u8").unwrap_err()), "metadata key `x.u8` must be a floating-point number, but is 200");
    assert_eq!(
        said(m.str("x.bytes").unwrap_err()),
        "metadata key `x.bytes` must be a text in UTF-8, but is text that is not UTF-8 (\"\u{fffd}\u{fffd}\")"
    );
    assert_eq!(
        said(m.u32s("x.ints").unwrap_err()),
        "metadata key `x.ints` must be an array of integers from 0 to 4294967295, but is an array of 2 × int32"
    );
    assert!(m.optional::<u32>("x.none").unwrap().is_none());
}

#[test]
fn a_file_cut_anywhere_is_refused_or_says_which_tensor_is_cut() {
    let whole = bytes();
    for len in 0..whole.len() - 28 {
        let said = refusal(&whole[..len]);
        assert!(["end", "empty"].iter().any(|w| said.contains(w)), "cut at {len}: {said}");
    }
    let said = refusal(&whole[..whole.len() - 29]);
    assert!(said.contains("`b.weight`"), "{said}");
}

/// The whole file with `new` written over the only place where `old` stands.
fn with(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut b = bytes();
    let at = b.windows(old.len()).position(|w| w == old).expect("the pattern is in the file");
    assert!(!b[at + 1..].windows(old.len()).any(|w| w == old), "the pattern stands once");
    b[at..at + new.len()].copy_from_slice(new);
    b
}

#[test]
fn an_unknown_tensor_type_opens_but_is_refused_when_used() {
    let typed = |id: u32| [&64u64.to_le_bytes()[..], &id.to_le_bytes()].concat();
    for (id, name) in [(4u32, "type 4"), (43, "type 43"), (26, "I32")] {
        // 256 bytes of I32 do not fit in the file's tail, so a row of 4.
        let file = with(&typed(8), &[&4u64.to_le_bytes()[..], &id.to_le_bytes()].concat());
        let file = open(&file).unwrap();
        assert_eq!(file.info("b.weight").unwrap().type_name(), name);
        let said = file.tensor("b.weight").unwrap_err().to_string();
        assert!(said.contains("`b.weight`") && said.contains(name), "{said}");
    }
}

#[test]
fn names_from_the_file_cannot_play_with_the_terminal() {
    let said = refusal(&with(b"general.architecture", b"x.\x1b]0;me\x07\nx.u8\0\0\0\0\0\0")[..60]);
    assert!(said.contains(r"x.\u{1b}") && !said.contains(['\x1b', '\x07', '\n']), "{said:?}");
}

#[test]
fn a_count_beyond_reason_is_refused_before_it_is_believed() {
    for (at, word) in [(8, "tensors"), (16, "metadata")] {
        for count in [u64::MAX, 1 << 63, 1 << 32, 1 << 24] {
            let mut b = bytes();
            b[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let said = refusal(&b);
            assert!(said.contains(word) && said.contains("count"), "{said}");
        }
    }
}

#[test]
fn an_array_longer_than_the_file_is_refused_by_its_key() {
    let head = |kind: u32, count: u64| [&b"x.floats"[..], &9u32.to_le_bytes(), &kind.to_le_bytes(), &count.to_le_bytes()].concat();
    for (kind, count) in [(6, 1 << 62), (8, 1 << 60), (9, 1 << 60), (0, u64::MAX), (12, 1 << 61), (6, 10_000)] {
        let said = refusal(&with(&head(6, 2), &head(kind, count)));
        assert!(said.contains("`x.floats`") && said.contains(&count.to_string()), "{said}");
    }
    let said = refusal(&with(&head(6, 2), &head(13, 2)));
    assert!(said.contains("`x.floats`") && said.contains("type 13"), "{said}");
}

#[test]
fn arrays_nested_beyond_the_limit_are_refused_by_their_key() {
    let nested = |depth: usize| {
        let level = [9u32.to_le_bytes(), [1, 0, 0, 0], [0; 4]].concat();
        let inner = [&0u32.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0], &[5]].concat();
        let key = [&3u64.to_le_bytes()[..], b"x.y", &9u32.to_le_bytes()].concat();
        let header = [&b"GGUF\x03\0\0\0"[..], &[0; 8], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        [header, key, level.repeat(depth - 1), inner].concat()
    };
    assert!(open(&nested(4)).is_ok());
    for depth in [5, 20_000] {
        let said = refusal(&nested(depth));
        assert!(said.contains("`x.y`") && said.contains("nested"), "{said}");
    }
}

/// Looks at everything that a file offers.
fn walk(file: &Gguf) -> usize {
    fn elements(v: Value<'_>) -> usize {
        if let Value::Array(a) = v { a.iter().map(elements).sum() } else { v.to_string().len() }
    }
    let m = file.meta();
    let values: usize = m.iter().map(|(_, v)| elements(v)).sum();
    let words: usize = m.iter().filter_map(|(k, _)| m.strings(k).ok()).flatten().map(<[u8]>::len).sum();
    let weights = |t: &super::TensorInfo| file.tensor(&t.name).map_or(0, |v| v.data.iter().map(|b| *b as usize).sum::<usize>() + v.rows());
    values + words + file.tensors().iter().map(weights).sum::<usize>()
}

/// A few thousand damaged files: bytes set to telling values, bits flipped, ends cut off. The seed is the case's number.
#[test]
fn damage_never_panics_or_reads_outside_the_file() {
    let (whole, folder) = (bytes(), Folder::new());
    let header = whole.len() - 24 - 8 - 68;
    let (mut opened, cases) = (0, 6000);
    for case in 0..cases {
        let mut state = case as u64;
        let mut below = |n: usize| {
            // SplitMix64 (Steele, Lea, Flood 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % n as u64) as usize
        };
        let mut b = whole.clone();
        for _ in 0..[1, 1, 2, 8][below(4)] {
            let at = below(header);
            b[at] = match below(4) {
                0 => below(256) as u8,
                1 => 0xff,
                2 => 0,
                _ => b[at] ^ (1 << below(8)),
            };
        }
        if below(8) == 0 {
            b.truncate(below(whole.len()));
        }
        if let Ok(file) = Gguf::open(folder.write("m.gguf", &b)) {
            opened += 1;
            walk(&file);
        }
    }
    assert!((cases / 20..cases * 19 / 20).contains(&opened), "{opened} of {cases} opened: the damage tests one side only");
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let folder = Folder::new();
    let fifo = folder.0.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    for (path, word) in [(folder.0.path(), "a directory"), (&fifo, "a pipe"), (Path::new("/dev/zero"), "a device")] {
        let error = Gguf::open(path).unwrap_err();
        assert!(matches!(error.fault, Fault::NotAFile { what } if what == word), "{error}");
    }
    assert!(matches!(Gguf::open(folder.0.path().join("none")).unwrap_err().fault, Fault::Io { .. }));
}

#[test]
fn a_file_cut_short_while_open_reads_as_zeros_and_is_refused() {
    let folder = Folder::new();
    let mut p = Plan::new();
    p.tensor("big.weight", Format::Q8_0, &[32 << 10]);
    let path = folder.write("m.gguf", &p.to_bytes([&[7u8; 34 << 10][..]]));
    let file = Gguf::open(&path).unwrap();
    file.prefetch(0..u64::MAX).unwrap();
    file.check().unwrap();

    let other = std::fs::File::options().write(true).open(&path).unwrap();
    let (length, written) = (other.metadata().unwrap().len(), other.metadata().unwrap().modified().unwrap());
    other.set_len(8192).unwrap();
    let data = file.tensor("big.weight").unwrap().data;
    assert_eq!((data[0], data[data.len() - 1]), (7, 0));
    assert!(matches!(file.check().unwrap_err().fault, Fault::Shrunk { now: 8192, .. }));
    assert!(matches!(file.prefetch(0..u64::MAX), Ok(()) | Err(GgufError { fault: Fault::Shrunk { .. }, .. })));
    // Grown again as if nothing had happened: the zeros stay.
    other.set_len(length).unwrap();
    other.set_modified(written).unwrap();
    assert!(matches!(file.check().unwrap_err().fault, Fault::Lost));
}

#[test]
fn a_file_written_over_while_open_is_refused_though_its_length_is_the_same() {
    let folder = Folder::new();
    let path = folder.write("m.gguf", &bytes());
    let file = Gguf::open(&path).unwrap();
    // A time of its own: two writes within the clock's grain would have the same.
    let other = std::fs::File::options().write(true).open(&path).unwrap();
    other.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(matches!(file.check().unwrap_err().fault, Fault::Written));
    // Replaced by rename: the one that is open is not touched.
    let file = Gguf::open(&path).unwrap();
    std::fs::rename(folder.write("new.gguf", &bytes()), &path).unwrap();
    file.check().unwrap();
}

#[test]
fn reading_ahead_in_a_file_cut_short_is_refused() {
    let folder = Folder::new();
    let path = folder.write("m.gguf", &[bytes(), vec![0; 1 << 20]].concat());
    let file = Gguf::open(&path).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    assert!(matches!(file.prefetch(0..u64::MAX).unwrap_err().fault, Fault::Shrunk { now: 4096, .. }));
}

#[test]
fn a_gathered_file_has_the_same_bytes() {
    let folder = Folder::new();
    let mut p = Plan::new();
    p.tensor("big.weight", Format::Q8_0, &[16 << 20]);
    let weights: Vec<u8> = (0..17u32 << 20).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let path = folder.write("m.gguf", &p.to_bytes([&weights[..]]));
    let file = Gguf::open(&path).unwrap();
    let asked = std::cell::Cell::new(0);
    let stopped = file.gather(&|| {
        asked.set(asked.get() + 1);
        asked.get() < 3
    });
    // Whether there are huge pages to be had is this machine's business.
    assert!(stopped.unwrap() || asked.get() <= 3);
    assert!(file.tensor("big.weight").unwrap().data == weights);
    file.gather(&|| true).unwrap();
    assert!(file.tensor("big.weight").unwrap().data == weights);
    assert!(!file.gather(&|| false).unwrap(), "nobody let it");
    assert!(file.tensor("big.weight").unwrap().data == weights);
    file.check().unwrap();
}

/// Part `number` of `count`, holding one tensor named after it.
fn part(number: u16, count: u16, tensors: i32) -> Vec<u8> {
    let mut p = Plan::new();
    if number == 1 {
        p.set("general.architecture", "llama");
    }
    p.set("split.no", number - 1).set("split.count", count).set("split.tensors.count", tensors);
    p.tensor(&format!("part{number}.weight"), Format::F32, &[8]);
    p.to_bytes([&[number as u8; 32][..]])
}

#[test]
fn a_split_model_opens_by_its_first_part() {
    let folder = Folder::new();
    let first = folder.write("m-00001-of-00003.gguf", &part(1, 3, 3));
    let second = folder.write("m-00002-of-00003.gguf", &part(2, 3, 3));
    let missing = Gguf::open(&first).unwrap_err().to_string();
    assert!(missing.contains("part 3 of 3") && missing.contains("m-00003-of-00003.gguf"), "{missing}");

    let third = folder.write("m-00003-of-00003.gguf", &part(3, 3, 3));
    let file = Gguf::open(&first).unwrap();
    assert_eq!(file.tensor("part3.weight").unwrap().data, [3; 32]);
    assert_eq!((file.parts(), file.tensors().len()), (3, 3));
    assert_eq!(file.bytes(), [&first, &second, &third].iter().map(|p| p.metadata().unwrap().len()).sum::<u64>());
    file.prefetch(0..file.bytes()).unwrap();

    let wrong = Gguf::open(&second).unwrap_err();
    assert!(matches!(&wrong.fault, Fault::NotTheFirstPart { part: 2, first: f } if *f == first), "{wrong}");
    folder.write("m-00003-of-00003.gguf", &part(2, 3, 3));
    assert!(matches!(Gguf::open(&first).unwrap_err().fault, Fault::DuplicateTensor { .. }));
    folder.write("m-00001-of-00003.gguf", &part(1, 3, 9));
    folder.write("m-00003-of-00003.gguf", &part(3, 3, 9));
    assert!(matches!(Gguf::open(&first).unwrap_err().fault, Fault::PartsDisagree { found: 3, want: 9, .. }));
    let lonely = folder.write("other.gguf", &part(1, 3, 3));
    assert!(matches!(Gguf::open(&lonely).unwrap_err().fault, Fault::PartName { count: 3, .. }));
}
