//! Every kernel of every tier of this CPU against the plain one.

mod registry;

use hearth_kernels::cpu::form::Planes;
use hearth_kernels::cpu::kv::{self, Cache, Kind, POSITIONS};
use hearth_kernels::cpu::partial::{Partial, Scoring, Span};
use hearth_kernels::cpu::{Activation, Form, Kernels, Pairing, Tier, plain};
use hearth_kernels::quant::{FORMATS, Layout};
use registry::{Case, Noise, tiers};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Columns around the boundaries of a format: one block, one short of and one past 256, several runs.
fn columns(block: usize) -> Vec<usize> {
    let mut cols = match block {
        1 => vec![1, 31, 32, 33, 257],
        256 => vec![256, 768],
        _ => vec![block, 256 - block, 256, 256 + block, 576],
    };
    cols.retain(|c| c % block == 0 && *c > 0);
    cols
}

/// The tier below, which the tests of this or of another processor go through: what a tier has from it need not be computed again.
fn below(tier: Tier) -> Kernels {
    let lower = Tier::available().take_while(|t| *t < tier).last().unwrap_or(Tier::Generic);
    Kernels::for_tier(lower).expect("available")
}

#[test]
fn every_tier_multiplies_every_format_as_the_plain_kernels_do() {
    let check = |tier: Tier, layout: &Layout| {
        let (k, below) = (Kernels::for_tier(tier).expect("available"), below(tier));
        let is_new = |exact: bool, tokens| {
            let has_two = k.form(layout.format, tokens) != Form::F32;
            (has_two || !exact) && (tier == Tier::Generic || !k.multiplies_as(&below, layout.format, exact, tokens))
        };
        for cols in columns(layout.weights) {
            for (rows, tokens) in [(1, 1), (3, 1), (33, 1), (2, 2), (5, 3), (2, 9), (7, 15), (33, 32), (35, 37), (67, 51)] {
                for exact in [false, true].into_iter().filter(|exact| is_new(*exact, tokens)) {
                    let case = Case { tier, format: layout.format, cols, rows, tokens, exact };
                    let inputs = case.inputs();
                    case.check(&inputs.weights, &inputs.x, tokens % 4);
                }
            }
        }
    };
    // By far the longest test: every processor takes a format after the other.
    let cases: Vec<_> = tiers().into_iter().flat_map(|tier| FORMATS.iter().map(move |layout| (tier, layout))).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(|| {
                while let Some((tier, layout)) = cases.get(next.fetch_add(1, Relaxed)) {
                    check(*tier, layout);
                }
            });
        }
    });
}

/// Who cuts prompts counts on it: 24 tokens and any more of them are computed one way, so that a cut changes no bit.
#[test]
fn twenty_four_tokens_are_many_to_every_tier() {
    for tier in tiers() {
        let kernels = Kernels::for_tier(tier).expect("available");
        for layout in FORMATS {
            let form = |tokens| kernels.form(layout.format, tokens);
            assert_eq!(form(24), form(1000), "{tier:?} {}", layout.name);
        }
    }
}

#[test]
fn any_bytes_of_weights_give_what_the_plain_kernels_give() {
    for tier in tiers() {
        for layout in FORMATS.iter().filter(|l| l.weights > 1) {
            // Rows that end within 256 are read with the bytes after them.
            let cols = [32, 288, 512].into_iter().filter(|cols| cols % layout.weights == 0);
            for (cols, tokens) in cols.flat_map(|cols| [1, 3, 40].map(|tokens| (cols, tokens))) {
                let case = Case { tier, format: layout.format, cols, rows: 40, tokens, exact: false };
                let mut noise = Noise::new(layout.bytes as u64);
                // One byte into the buffer: rows of a file lie anywhere.
                let row_bytes = layout.format.row_bytes(case.cols).expect("whole blocks");
                let weights: Vec<u8> = (0..1 + row_bytes * case.rows).map(|_| noise.bits() as u8).collect();
                let x = noise.numbers(case.cols * tokens);
                case.check(&weights[1..], &x, 0);
            }
        }
    }
}

#[test]
fn extreme_activations_give_what_the_plain_kernels_give() {
    let rows: [(&str, &dyn Fn(usize) -> f32); 7] = [
        ("zeros", &|_| 0.0),
        ("one NaN", &|i| if i == 40 { f32::NAN } else { 1.0 }),
        ("one infinity", &|i| if i == 100 { f32::INFINITY } else { -1.0 }),
        ("denormal", &|i| f32::from_bits(i as u32 + 1)),
        ("near the smallest", &|i| 1e-30 * (i % 5) as f32),
        ("huge", &|i| if i % 3 == 0 { 1e30 } else { -1e30 }),
        ("ties", &|i| [127.0, 0.5, 1.5, 2.5, -0.5, -1.5][i % 6]),
    ];
    for tier in tiers() {
        for layout in FORMATS {
            for (name, row) in rows {
                for tokens in [1, 33] {
                    let case = Case { tier, format: layout.format, cols: 256, rows: 4, tokens, exact: false };
                    let weights = case.inputs().weights;
                    let x: Vec<f32> = (0..256 * tokens).map(|i| row(i % 256)).collect();
                    println!("{name}:");
                    case.check(&weights, &x, 0);
                }
            }
        }
    }
}

/// The squared error of a row in [`Form::Int8By32`], and whether all is as the form's table says.
fn error_by_32(x: &[f32], row: &[u8]) -> f64 {
    let planes = Planes::new(x.len(), 32);
    let mut decoded = vec![0.0; x.len()];
    plain::linear::dequantize(Form::Int8By32, row, x.len(), 0, 0, &mut decoded);
    for (i, sum) in row[planes.sums..planes.scales].chunks_exact(2).take(x.len() / 16).enumerate() {
        let want: i16 = row[16 * i..][..16].iter().map(|&c| i16::from(c as i8)).sum();
        assert_eq!(i16::from_le_bytes(sum.try_into().expect("two bytes")), want, "sum {i}");
    }
    assert!(row[..x.len()].iter().all(|&c| c as i8 != -128));
    x.iter().zip(&decoded).map(|(x, d)| (f64::from(*x) - d).powi(2)).sum()
}

#[test]
fn scales_of_32_lose_no_more_than_the_plain_ones() {
    for tier in tiers() {
        let k = Kernels::for_tier(tier).expect("available");
        let form = Form::Int8By32;
        for special in [f32::NAN, f32::INFINITY, 1e-38, -0.0, 3e38, 127.0, 1e-31] {
            let mut x = Noise::new(5).numbers(32 * 50);
            x[70] = special;
            x[32..64].fill(special);
            for (run, x) in x.chunks(32).enumerate() {
                let (mut plain, mut got) = (vec![0; form.bytes(32, 1)], vec![0; form.bytes(32, 1)]);
                plain::linear::quantize(form, x, 32, &mut plain);
                k.quantize(form, 32, x, &mut got);
                let (want, got) = (error_by_32(x, &plain), error_by_32(x, &got));
                assert!(
                    got <= want * 1.0001 || want.is_nan() && got.is_nan(),
                    "{tier:?} run {run} with {special}: {got:e}, plain {want:e}"
                );
            }
        }
    }
}

#[test]
fn every_tier_quantizes_to_the_same_bits() {
    for tier in tiers() {
        let k = Kernels::for_tier(tier).expect("available");
        for (form, cols) in [(Form::Int8By64, 128), (Form::Int8By256, 256), (Form::Int8By256, 768), (Form::F32, 33)] {
            let mut x = Noise::new(cols as u64).numbers(3 * cols);
            for (i, special) in [f32::NAN, f32::INFINITY, 1e-38, -0.0, 3e38].into_iter().enumerate() {
                x[(i * 37) % cols] = special;
                let (mut want, mut got) = (vec![0; form.bytes(cols, 3)], vec![0; form.bytes(cols, 3)]);
                plain::linear::quantize(form, &x, cols, &mut want);
                k.quantize(form, cols, &x, &mut got);
                let different = want.iter().zip(&got).position(|(a, b)| a != b);
                assert_eq!(different, None, "{tier:?} {form:?} of {cols} with {special:e}");
            }
        }
    }
}

#[test]
fn columns_quantized_by_themselves_come_to_the_whole() {
    for tier in tiers() {
        let k = Kernels::for_tier(tier).expect("available");
        let mut forms: Vec<Form> = FORMATS.iter().map(|l| k.form(l.format, 500)).filter(|f| f.is_panel()).collect();
        forms.dedup();
        let cuts = |form: Form| {
            let least = form.per().expect("a panel has scales");
            let cols = [32, 96, 256, 320, 800].into_iter();
            cols.flat_map(move |cols| [least, 64].map(|each| (form, cols, each))).chain([(form, 768, 256)])
        };
        for (form, cols, each) in forms.into_iter().flat_map(cuts) {
            for tokens in [1, 3, 8, 12, 13, 24, 47] {
                let mut x = Noise::new((cols + tokens) as u64).numbers(tokens * cols);
                x[cols / 2] = f32::NAN;
                // What neither writes stays what it was.
                let (mut want, mut got) = (vec![0xa5; form.bytes(cols, tokens)], vec![0xa5; form.bytes(cols, tokens)]);
                k.quantize(form, cols, &x, &mut want);
                for start in (0..cols).step_by(each) {
                    let columns = start..(start + each).min(cols);
                    let some: Vec<f32> = x.chunks_exact(cols).flat_map(|row| row[columns.clone()].iter().copied()).collect();
                    let mut spare = vec![0x5a; form.bytes(columns.len(), tokens)];
                    k.quantize_columns(form, cols, columns, &some, &mut spare, |at, bytes| {
                        got[at..at + bytes.len()].copy_from_slice(bytes)
                    });
                }
                let different = want.iter().zip(&got).position(|(a, b)| a != b);
                assert_eq!(different, None, "{tier:?} {form:?}, {tokens} rows of {cols}, by {each}");
            }
        }
    }
}

/// `n` positions of a head's keys and values, blocks in no order, beside another head; the rest of the last tile holds NaN.
struct Head {
    kind: Kind,
    memory: Vec<u8>,
    stride: usize,
    blocks: Vec<u32>,
    dims: (usize, usize),
}

impl Head {
    fn new(kind: Kind, dims: (usize, usize), n: usize) -> Head {
        let pair = kind.pair(dims.0, dims.1);
        let stride = 2 * kv::GROUP * pair;
        let tiles = n.div_ceil(POSITIONS);
        let blocks: Vec<u32> = (0..tiles as u32).map(|i| (i * 5 + 3) % (tiles as u32 * 5 + 4)).collect();
        let mut memory = vec![0xff; stride * (tiles * 5 + 4).div_ceil(kv::GROUP)];
        let mut noise = Noise::new(n as u64);
        let k = Kernels::for_tier(Tier::Generic).expect("always there");
        for p in 0..n {
            let tiles = &mut memory[kv::place(blocks[p / POSITIONS] as usize, stride, pair)..][..pair];
            let (keys, values) = tiles.split_at_mut(kind.key_tile(dims.0));
            k.store_key(kind, &noise.numbers(dims.0), keys, p % POSITIONS);
            k.store_value(kind, &noise.numbers(dims.1), values, p % POSITIONS);
        }
        Head { kind, memory, stride, blocks, dims }
    }

    fn cache(&self) -> Cache<'_> {
        let Head { kind, stride, dims, .. } = *self;
        Cache { kind, memory: &self.memory, stride, blocks: &self.blocks, key_dim: dims.0, value_dim: dims.1 }
    }

    /// In two parts where it can be cut between tiles, merged and finished.
    fn attend(&self, tier: Tier, scoring: Scoring, queries: &[f32], spans: &[Span]) -> Vec<f32> {
        let k = Kernels::for_tier(tier).expect("available");
        let n = spans.len();
        let mut scratch = vec![0; k.attend_scratch(self.dims.0, self.dims.1, n)];
        let (mut max, mut sum, mut acc) = (vec![0.0; 2 * n], vec![0.0; 2 * n], vec![0.0; 2 * n * self.dims.1]);
        let (max, sum, acc) = (max.split_at_mut(n), sum.split_at_mut(n), acc.split_at_mut(n * self.dims.1));
        let mut first = Partial { max: max.0, sum: sum.0, acc: acc.0 };
        let mut second = Partial { max: max.1, sum: sum.1, acc: acc.1 };
        let cut = (self.blocks.len() / 2 * POSITIONS) as u32;
        for (part, from, to) in [(&mut first, 0, cut), (&mut second, cut, u32::MAX)] {
            part.clear();
            let spans: Vec<Span> = spans.iter().map(|s| Span { from: s.from.clamp(from, to), to: s.to.clamp(from, to) }).collect();
            k.attend(&self.cache(), scoring, queries, &spans, part, &mut scratch);
        }
        first.merge(&second);
        let mut out = vec![f32::NAN; n * self.dims.1];
        first.finish(None, &mut out);
        out
    }
}

/// Of each query's results, whose values are below `VALUES`: what they may lose where a tile's weights, with a run's scales, are rounded to
/// 32512ths of the largest: half of one for each position, as a share of all weights.
fn lost_to_rounded_weights(head: &Head, scoring: Scoring, queries: &[f32], spans: &[Span]) -> Vec<f32> {
    let (cache, dim) = (head.cache(), head.dims.0);
    let lost = |(query, span): (&[f32], &Span)| {
        let weight = |p: usize| {
            let key = |i| f64::from(plain::attention::key(head.kind, dim, cache.key_tile(p / POSITIONS), p % POSITIONS, i));
            let score: f64 = query.iter().enumerate().map(|(i, q)| f64::from(*q) * key(i)).sum();
            scoring.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()).exp()
        };
        let weights: Vec<(usize, f64)> = (span.from as usize..span.to as usize).map(|p| (p, weight(p))).collect();
        let of_tile = |tile: &[(usize, f64)]| tile.len() as f64 * tile.iter().map(|w| w.1).fold(0.0, f64::max);
        let largest: f64 = weights.chunk_by(|a, b| a.0 / POSITIONS == b.0 / POSITIONS).map(of_tile).sum();
        let all: f64 = weights.iter().map(|w| w.1).sum();
        if all > 0.0 { (VALUES * 0.5 / 32512.0 * largest / all) as f32 } else { 0.0 }
    };
    queries.chunks(dim).zip(spans).map(lost).collect()
}

/// Values of a [`Head`] are below this.
const VALUES: f64 = 4.0;

#[test]
fn every_tier_attends_as_the_plain_kernel_does() {
    let is_new = |tier: &Tier| !Kernels::for_tier(*tier).expect("available").attends_as(&below(*tier));
    let tiers: Vec<Tier> = tiers().into_iter().filter(is_new).collect();
    if tiers.is_empty() {
        return;
    }
    for kind in [Kind::F32, Kind::F16, Kind::Q8_0] {
        for dims in [(8, 8), (16, 24), (64, 64), (80, 80), (96, 40), (128, 128), (256, 256), (37, 45), (512, 512)] {
            for n in [1, 63, 64, 65, 200] {
                let head = Head::new(kind, dims, n);
                // From 17 on more than are weighed together; that does not depend on how wide a head is.
                let counts = if dims.0 <= 128 { &[1, 3, 4, 7, 16, 18][..] } else { &[1, 3, 4, 7] };
                for &queries in counts {
                    // Numbers that kernels which round queries to 16 bits, by 32, keep: what they lose has a test of its own.
                    let mut q = Noise::new(queries as u64).numbers(queries * dims.0);
                    for run in q.chunks_mut(dims.0).flat_map(|q| q.chunks_mut(32)) {
                        run.iter_mut().for_each(|x| *x = (*x * 4096.0).round() / 32768.0);
                        run[run.len() / 2] = 127.0 / 128.0;
                    }
                    // A window for every other query; one that sees nothing.
                    let spans: Vec<Span> = (0..queries as u32)
                        .map(|i| Span {
                            from: if i % 2 == 0 { 0 } else { (n as u32).saturating_sub(70 + i) },
                            to: (n as u32).saturating_sub(i % 6),
                        })
                        .map(|s| if s.from >= s.to { Span { from: 0, to: 0 } } else { s })
                        .collect();
                    for softcap in [None, Some(5.0)] {
                        // The plain kernel brings nothing into f32 beforehand.
                        let plain = Scoring { softcap, decoded: false };
                        let want = head.attend(Tier::Generic, plain, &q, &spans);
                        // Every pairing; of wide heads, which take long, two.
                        let pairings: &[bool] = if dims.0 <= 128 { &[false, true] } else { &[softcap.is_some()] };
                        let rounds = kind == Kind::Q8_0 && pairings.contains(&false);
                        let rounded = if rounds { lost_to_rounded_weights(&head, plain, &q, &spans) } else { vec![0.0; queries] };
                        for (&tier, &decoded) in tiers.iter().flat_map(|tier| pairings.iter().map(move |decoded| (tier, decoded))) {
                            let scoring = Scoring { softcap, decoded };
                            let got = head.attend(tier, scoring, &q, &spans);
                            for (i, (want, got)) in want.iter().zip(&got).enumerate() {
                                // Weights add up to 1 and values are below 4: scores off by 64 ε move the result by as much.
                                let bound = 4e-5 + if decoded { 0.0 } else { rounded[i / dims.1] };
                                assert!(
                                    (want - got).abs() < bound,
                                    "{tier:?} {kind:?} {scoring:?} {dims:?} {n} {spans:?} {i}: plain {want}, got {got}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Blocks that no span touches, and that follow none that a span touches, lie beyond the memory: whoever looks them up panics.
#[test]
fn tiles_that_no_span_touches_are_not_read() {
    const TILES: u32 = 12;
    let (dims, tile) = ((16, 24), POSITIONS as u32);
    let span = |from: u32, to: u32| Span { from, to };
    let cases: [(&str, &[Span], &[u32]); 4] = [
        ("an empty span before", &[span(0, 0), span(8 * tile + 3, 9 * tile)], &[8, 9]),
        ("an empty span behind", &[span(5, 70), span(11 * tile, 11 * tile)], &[0, 1, 2]),
        ("a gap", &[span(0, tile), span(7 * tile + 1, 8 * tile)], &[0, 1, 7, 8]),
        ("nothing but empty spans", &[span(3, 3), span(9 * tile, 9 * tile)], &[]),
    ];
    for kind in [Kind::F32, Kind::F16, Kind::Q8_0] {
        let whole = Head::new(kind, dims, (TILES * tile) as usize);
        for (what, spans, touched) in cases {
            let mut head = Head { memory: whole.memory.clone(), blocks: whole.blocks.clone(), ..whole };
            for (index, block) in (0..).zip(&mut head.blocks).filter(|(index, _)| !touched.contains(index)) {
                *block = u32::MAX - index;
            }
            let q: Vec<f32> = Noise::new(3).numbers(spans.len() * dims.0).iter().map(|x| 0.1 * x).collect();
            for (tier, decoded) in tiers().into_iter().flat_map(|tier| [(tier, false), (tier, true)]) {
                let k = Kernels::for_tier(tier).expect("available");
                let n = spans.len();
                let (mut max, mut sum, mut acc) = (vec![0.0; n], vec![0.0; n], vec![0.0; n * dims.1]);
                let mut seen = Partial { max: &mut max, sum: &mut sum, acc: &mut acc };
                seen.clear();
                let mut scratch = vec![0; k.attend_scratch(dims.0, dims.1, n)];
                k.attend(&head.cache(), Scoring { softcap: None, decoded }, &q, spans, &mut seen, &mut scratch);
                for (sum, span) in sum.iter().zip(spans) {
                    assert_eq!(*sum > 0.0, span.from < span.to, "{what}: {tier:?} {kind:?} {decoded}: {sum} of {span:?}");
                }
            }
        }
    }
}

#[test]
fn a_query_that_is_no_number_spoils_its_own_result_alone() {
    const QUERIES: usize = 18;
    let dims = (64, 64);
    let scoring = |decoded| Scoring { softcap: None, decoded };
    for kind in [Kind::F32, Kind::F16, Kind::Q8_0] {
        let head = Head::new(kind, dims, 100);
        let spans = [Span { from: 0, to: 100 }; QUERIES];
        let sound = Noise::new(1).numbers(QUERIES * dims.0);
        let mut spoilt = sound.clone();
        spoilt[5 * dims.0 + 33] = f32::NAN;
        spoilt[12 * dims.0] = f32::INFINITY;
        spoilt[17 * dims.0 + 63] = f32::NEG_INFINITY;
        for (tier, decoded) in tiers().into_iter().flat_map(|tier| [(tier, false), (tier, true)]) {
            let want = head.attend(tier, scoring(decoded), &sound, &spans);
            let got = head.attend(tier, scoring(decoded), &spoilt, &spans);
            for (query, (want, got)) in want.chunks(dims.1).zip(got.chunks(dims.1)).enumerate() {
                match query {
                    5 | 12 | 17 => assert!(got.iter().all(|x| x.is_nan()), "{tier:?} {kind:?} {decoded}: query {query} is {got:?}"),
                    _ => assert_eq!(want, got, "{tier:?} {kind:?} {decoded}: query {query}"),
                }
            }
        }
    }
}

#[test]
fn every_tier_stores_the_same_bits() {
    for tier in tiers() {
        let (plain, k) = (Kernels::for_tier(Tier::Generic).expect("always there"), Kernels::for_tier(tier).expect("available"));
        for kind in [Kind::F32, Kind::F16, Kind::Q8_0] {
            for dim in [1, 8, 31, 32, 64, 80, 128] {
                for special in [1.0, f32::NAN, f32::INFINITY, 1e-40, 1e6] {
                    let mut x = Noise::new(dim as u64).numbers(dim);
                    x[dim / 2] = special;
                    for position in [0, 5, 63] {
                        let (mut want, mut got) = (vec![7; kind.key_tile(dim)], vec![7; kind.key_tile(dim)]);
                        plain.store_key(kind, &x, &mut want, position);
                        k.store_key(kind, &x, &mut got, position);
                        assert!(want == got, "{tier:?} key {kind:?} of {dim} with {special}");
                        let (mut want, mut got) = (vec![7; kind.value_tile(dim)], vec![7; kind.value_tile(dim)]);
                        plain.store_value(kind, &x, &mut want, position);
                        k.store_value(kind, &x, &mut got, position);
                        assert!(want == got, "{tier:?} value {kind:?} of {dim} with {special}");
                    }
                }
            }
        }
    }
}

/// Fills a vector.
type Kernel<'a> = &'a dyn Fn(&Kernels, &mut [f32]);

#[test]
fn every_tier_computes_vectors_as_the_plain_kernels_do() {
    let plain = Kernels::for_tier(Tier::Generic).expect("always there");
    for tier in tiers() {
        let k = Kernels::for_tier(tier).expect("available");
        for n in [1, 7, 8, 31, 64, 65, 200, 576] {
            let mut noise = Noise::new(n as u64);
            let (a, b, c) = (noise.numbers(n), noise.numbers(n), noise.numbers(n));
            // Terms' magnitudes times the length of a sum, and a few roundings.
            let bound = |magnitude: f32| magnitude * f32::EPSILON * (n as f32 / 64.0 + 16.0) + 1e-30;
            let same = |what: &str, want: &[f32], got: &[f32], magnitude: &dyn Fn(usize) -> f32| {
                for i in 0..want.len() {
                    let error = (want[i] - got[i]).abs();
                    assert!(error <= bound(magnitude(i)), "{tier:?} {what} of {n}: element {i} is {}, not {}", got[i], want[i]);
                }
            };
            let both = |f: Kernel| {
                let (mut want, mut got) = (c.clone(), c.clone());
                f(&plain, &mut want);
                f(&k, &mut got);
                (want, got)
            };
            let one = |i: usize| 1.0 + a[i].abs() * (1.0 + b[i].abs()) + c[i].abs();
            let cases: [(&str, Kernel); 13] = [
                ("add_scaled", &|k, y| k.add_scaled(y, 0.3, &a)),
                ("add", &|k, y| k.add(&a, &b, y)),
                ("mul", &|k, y| k.mul(&a, &b, y)),
                ("scale", &|k, y| k.scale(&a, 0.7, y)),
                ("rms_norm", &|k, y| k.rms_norm(&a, Some(&b), 1e-5, y)),
                ("rms_norm without weight", &|k, y| k.rms_norm(&a, None, 1e-5, y)),
                ("l2_norm", &|k, y| k.l2_norm(&a, 1e-5, y)),
                ("silu", &|k, y| k.activate(Activation::Silu, &a, y)),
                ("gelu", &|k, y| k.activate(Activation::GeluTanh, &a, y)),
                ("sigmoid", &|k, y| k.activate(Activation::Sigmoid, &a, y)),
                ("softplus", &|k, y| k.activate(Activation::Softplus, &a, y)),
                ("swiglu", &|k, y| k.gated(Activation::Silu, &a, &b, y)),
                ("soft_cap", &|k, y| k.soft_cap(&a, 2.0, y)),
            ];
            for (what, f) in cases {
                let (want, got) = both(f);
                same(what, &want, &got, &one);
            }
            if n > 1 {
                let (want, got) = both(&|k, y| k.layer_norm(&a, Some(&b), Some(&b), 1e-2, y));
                same("layer_norm", &want, &got, &|i| 10.0 * (1.0 + a[i].abs()) * (1.0 + b[i].abs()));
            }
            for pairing in [Pairing::Neighbours, Pairing::Halves] {
                let (want, got) = both(&|k, y| k.rope(pairing, y, &a[..n / 2], &b[..n / 2]));
                same("rope", &want, &got, &|_| 16.0);
            }
        }
    }
}

#[test]
fn activations_of_extreme_numbers_are_what_the_plain_kernels_give() {
    let ends = [0.0, 20.0, 87.0, 88.5, 100.0, 1e20, f32::MAX, f32::INFINITY, f32::NAN, 1e-40];
    // A whole number of vectors, and some that fill none.
    let x: Vec<f32> = (0..83).map(|i| if i % 3 == 0 { -ends[i % ends.len()] } else { ends[i % ends.len()] }).collect();
    let up = vec![-1.5; x.len()];
    let plain = Kernels::for_tier(Tier::Generic).expect("always there");
    for tier in tiers() {
        let k = Kernels::for_tier(tier).expect("available");
        for f in [Activation::Silu, Activation::GeluTanh, Activation::Sigmoid, Activation::Softplus] {
            let cases: [(&str, Kernel); 2] = [("alone", &|k, y| k.activate(f, &x, y)), ("as a gate", &|k, y| k.gated(f, &x, &up, y))];
            for (what, compute) in cases {
                let (mut want, mut got) = (vec![7.0; x.len()], vec![7.0; x.len()]);
                compute(&plain, &mut want);
                compute(&k, &mut got);
                for ((x, want), got) in x.iter().zip(&want).zip(&got) {
                    let near = (want - got).abs() <= 4.0 * f32::EPSILON * want.abs() + 1e-30;
                    assert!(want == got || near || want.is_nan() && got.is_nan(), "{tier:?} {f:?} {what} of {x}: {got}, not {want}");
                }
            }
        }
        let (mut want, mut got) = (vec![7.0; x.len()], vec![7.0; x.len()]);
        plain.soft_cap(&x, 30.0, &mut want);
        k.soft_cap(&x, 30.0, &mut got);
        for ((x, want), got) in x.iter().zip(&want).zip(&got) {
            let near = (want - got).abs() <= 4.0 * f32::EPSILON * 30.0;
            assert!(near || want.is_nan() && got.is_nan(), "{tier:?} {x} capped: {got}, not {want}");
        }
    }
}
