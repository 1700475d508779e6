//! `hearth inspect`: what a GGUF file holds. Reads the header only; weights are not touched.

use crate::gguf::error::printable;
use crate::gguf::{Array, Gguf, Kind, TensorInfo, Value, file_type};
use crate::units::Bytes;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The GGUF file (of a split model, its first part)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Every element of every array, and every tensor on a line of its own
    #[arg(long)]
    full: bool,
}

/// Elements of an array that are shown without `--full`.
const SHOWN: usize = 8;

pub fn run(args: Args) -> anyhow::Result<()> {
    let file = Gguf::open(&args.file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        serde_json::to_writer(&mut out, &object(&file, args.full)).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        page(&file, args.full, &mut out)?;
    }
    file.check()?;
    Ok(out.flush()?)
}

/// The contract's JSON object.
fn object(file: &Gguf, full: bool) -> Json {
    let metadata: Map<String, Json> = file.meta().iter().map(|(key, value)| (key.to_owned(), value_json(value, full))).collect();
    let tensors: Vec<Json> = file.tensors().iter().map(|t| tensor_json(t, file.parts() > 1)).collect();
    json!({
        "version": file.version(),
        "architecture": text(file, "general.architecture"),
        "parameters": parameters(file),
        "file_type": file_type_name(file),
        "bytes": file.bytes(),
        "metadata": metadata,
        "tensors": tensors,
    })
}

/// `offset` counts from the start of the file (of the part, in a split model).
fn tensor_json(t: &TensorInfo, split: bool) -> Json {
    let mut line = json!({ "name": t.name, "type": t.type_name(), "shape": t.shape, "offset": t.offset, "bytes": t.bytes });
    if split {
        line["part"] = json!(t.part + 1);
    }
    line
}

fn value_json(value: Value<'_>, full: bool) -> Json {
    match value {
        Value::F32(x) => float_json(x),
        Value::F64(x) => json!(x),
        Value::Bool(b) => json!(b),
        Value::String(s) => json!(String::from_utf8_lossy(s)),
        Value::U64(n) => json!(n),
        Value::Array(a) if full || a.len <= SHOWN => items(a, a.len, full),
        Value::Array(a) => json!({ "type": a.kind.name(), "length": a.len, "items": items(a, SHOWN, full) }),
        integer => json!(integer.integer().and_then(|n| i64::try_from(n).ok())),
    }
}

fn items(array: Array<'_>, count: usize, full: bool) -> Json {
    array.iter().take(count).map(|v| value_json(v, full)).collect()
}

/// The shortest decimal that is this f32, not its 17 digits as an f64. JSON has no NaN and no infinity: null.
fn float_json(x: f32) -> Json {
    x.to_string().parse::<f64>().map_or(Json::Null, |x| json!(x))
}

fn text(file: &Gguf, key: &str) -> Option<String> {
    match file.meta().get(key) {
        Some(Value::String(s)) => Some(String::from_utf8_lossy(s).into_owned()),
        _ => None,
    }
}

/// Weights in all tensors, norms and tables included.
fn parameters(file: &Gguf) -> u64 {
    file.tensors().iter().map(TensorInfo::weights).fold(0, u64::saturating_add)
}

fn file_type_name(file: &Gguf) -> Option<String> {
    let id = file.meta().optional::<u32>("general.file_type").ok()??;
    Some(file_type::name(id).into_owned())
}

/// For people: a summary, the mix of formats, the metadata, the tensors.
fn page(file: &Gguf, full: bool, out: &mut impl Write) -> io::Result<()> {
    for (label, value) in summary(file) {
        writeln!(out, "{label:<14} {value}")?;
    }
    writeln!(out, "\nFORMAT      TENSORS        MIB   SHARE")?;
    for (name, (count, bytes)) in mix(file) {
        let share = 100.0 * bytes as f64 / weight_bytes(file).max(1) as f64;
        writeln!(out, "{name:<10} {count:>8} {:>10.1} {share:>6.1}%", Bytes(bytes).mebibytes())?;
    }
    writeln!(out, "\nMETADATA")?;
    let keys = file.meta().iter().map(|(key, value)| (printable(key.as_bytes()), value)).collect::<Vec<_>>();
    let width = keys.iter().map(|(key, _)| key.len()).max().unwrap_or(0).min(60);
    for (key, value) in keys {
        writeln!(out, "{key:<width$}  {}", value_text(value, full))?;
    }
    writeln!(out, "\nTENSORS")?;
    let lines = if full { file.tensors().iter().map(Line::of).collect() } else { grouped(file) };
    let width = lines.iter().map(|l| l.name.chars().count()).max().unwrap_or(0);
    lines
        .iter()
        .try_for_each(|l| writeln!(out, "{:<width$}  {:<8} {:<22} {:>10.2} MiB", l.name, l.format, l.shape, Bytes(l.bytes).mebibytes()))
}

fn summary(file: &Gguf) -> Vec<(&'static str, String)> {
    let m = file.meta();
    let architecture = text(file, "general.architecture");
    let number = |key: &str| m.optional::<u64>(&format!("{}.{key}", architecture.as_deref()?)).ok()?.map(|n| n.to_string());
    let words = m.get("tokenizer.ggml.tokens").and_then(|v| if let Value::Array(a) = v { Some(a.len) } else { None });
    let tokenizer = text(file, "tokenizer.ggml.model").unwrap_or_else(|| "no tokenizer".to_owned());
    let bits = 8.0 * weight_bytes(file) as f64 / parameters(file).max(1) as f64;
    let parts = if file.parts() > 1 { format!(", {} parts", file.parts()) } else { String::new() };
    let rows = [
        ("file", Some(format!("{} (GGUF {}{parts})", file.path().display(), file.version()))),
        ("name", text(file, "general.name")),
        ("architecture", architecture.clone()),
        ("parameters", Some(format!("{:.1} million", parameters(file) as f64 / 1e6))),
        ("file type", file_type_name(file)),
        ("size", Some(format!("{:.1} MiB, {bits:.2} bits a weight", Bytes(file.bytes()).mebibytes()))),
        ("context", number("context_length").map(|n| n + " tokens")),
        ("layers", number("block_count")),
        ("width", number("embedding_length")),
        ("vocabulary", words.map(|n| format!("{n} words ({tokenizer})"))),
        ("chat template", Some(if m.get("tokenizer.chat_template").is_some() { "yes" } else { "no" }.to_owned())),
    ];
    rows.into_iter().filter_map(|(label, value)| Some((label, printable(value?.as_bytes())))).collect()
}

fn weight_bytes(file: &Gguf) -> u64 {
    file.tensors().iter().map(|t| t.bytes).fold(0, u64::saturating_add)
}

/// From a format's name to its number of tensors and of bytes.
fn mix(file: &Gguf) -> BTreeMap<String, (usize, u64)> {
    let mut mix = BTreeMap::<_, (usize, u64)>::new();
    for t in file.tensors() {
        let sum = mix.entry(t.type_name()).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(t.bytes));
    }
    mix
}

fn value_text(value: Value<'_>, full: bool) -> String {
    match value {
        Value::F32(x) => format!("{x:?}"),
        Value::F64(x) => format!("{x:?}"),
        Value::String(s) => format!("\"{}\"", printable(s)),
        Value::Array(a) => {
            let count = if full { a.len } else { SHOWN.min(a.len) };
            let items = a.iter().take(count).map(|v| value_text(v, full)).collect::<Vec<_>>().join(", ");
            let rest = if count < a.len { format!(", … {} in all", a.len) } else { String::new() };
            let kind = if a.kind == Kind::String { "" } else { a.kind.name() };
            format!("{kind}[{items}{rest}]")
        }
        other => other.to_string(),
    }
}

/// A line of the table of tensors.
struct Line {
    name: String,
    format: String,
    shape: String,
    bytes: u64,
}

impl Line {
    fn of(t: &TensorInfo) -> Line {
        let shape = t.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ");
        Line { name: printable(t.name.as_bytes()), format: t.type_name(), shape, bytes: t.bytes }
    }
}

/// Tensors that differ only in their layer share a line: `blk.*.attn_q.weight (30)`. In the order of their first one.
fn grouped(file: &Gguf) -> Vec<Line> {
    let mut lines: Vec<(Line, usize)> = Vec::new();
    let mut places = BTreeMap::new();
    for t in file.tensors() {
        let mut line = Line::of(t);
        if let Some((layer, rest)) = line.name.strip_prefix("blk.").and_then(|n| n.split_once('.'))
            && layer.bytes().all(|b| b.is_ascii_digit())
        {
            line.name = format!("blk.*.{rest}");
        }
        let place = *places.entry((line.name.clone(), line.format.clone(), line.shape.clone())).or_insert(lines.len());
        match lines.get_mut(place) {
            Some((first, count)) => (first.bytes, *count) = (first.bytes.saturating_add(line.bytes), *count + 1),
            None => lines.push((line, 1)),
        }
    }
    let counted = |(line, count): (Line, usize)| if count > 1 { Line { name: format!("{} ({count})", line.name), ..line } } else { line };
    lines.into_iter().map(counted).collect()
}
