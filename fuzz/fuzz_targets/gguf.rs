//! Bytes → a file → the reader. Whatever opens is walked to its last byte, so a range that was let through by mistake shows.
#![no_main]

use hearth::gguf::{Gguf, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("hearth-fuzz-{}.gguf", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder takes files");
    let Ok(file) = Gguf::open(&path) else { return };
    for (key, value) in file.meta().iter() {
        std::hint::black_box((key, elements(value)));
    }
    for info in file.tensors() {
        if let Ok(view) = file.tensor(&info.name) {
            assert_eq!(Some(view.data.len()), view.format.row_bytes(view.cols()).map(|row| row * view.rows()));
            std::hint::black_box(view.data.iter().fold(0u8, |a, b| a ^ b));
        }
    }
});

fn elements(value: Value<'_>) -> usize {
    if let Value::Array(a) = value { a.iter().map(elements).sum() } else { value.to_string().len() }
}
