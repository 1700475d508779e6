//! Models of random shapes in random mixes of formats, as files in the wild have them: what one product leaves for the next may then be of
//! any form. Each is held to its exact twin, and one thread's logits to three's.
//!
//! `HEARTH_TEST_SHAPES` says how many, where the usual few are not enough.

use crate::session::Session;
use crate::tiny::{Random, TINY};
use hearth::backend::{KvType, LoadOptions};
use hearth_kernels::quant::FORMATS;

const CONTEXT: usize = 256;
/// Largest ‖got − exact‖ / ‖exact‖ of a position's logits. Found: at most 0.04 in a hundred models.
const NEAR: f32 = 0.1;

impl Random {
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[((self.next() + 1.0) / 2.0 * of.len() as f32) as usize % of.len()]
    }
}

#[test]
fn any_shape_in_any_mix_of_formats_is_near_its_exact_twin() {
    let most = if crate::emulated() { 2 } else { 12 };
    let count = std::env::var("HEARTH_TEST_SHAPES").map_or(most, |n| n.parse().expect("HEARTH_TEST_SHAPES is a number"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    for seed in 0..count {
        let mut random = Random(seed);
        let arch = random.pick(&["llama", "llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "granite", "olmo2", "smollm3"]);
        let heads = random.pick(&[[4, 2], [1, 1], [3, 1], [6, 2], [7, 7], [8, 1], [5, 5], [16, 2]]);
        let dim = heads[0] * random.pick(&[8, 20, 32, 64, 72, 80, 96, 128]);
        let feed_forward = random.pick(&[40, 96, 160, 256, 288, 512, 544, 768, 1056]);
        let known = TINY.iter().find(|tiny| tiny.name == arch).expect("an architecture of theirs").without_choices();
        let tiny = known.shaped(dim, feed_forward, heads);
        let few = [0, 1].map(|_| random.pick(FORMATS).format);
        let kv = random.pick(&[KvType::F16, KvType::Q8_0, KvType::F32]);
        let chunk = random.pick(&[1, 3, 9, 24, 100]);
        let name = format!("seed {seed}, {arch} [{dim}, {feed_forward}], heads {heads:?}, {kv:?}, steps of {chunk}");
        let random = std::cell::RefCell::new(random);
        let (file, program) = tiny.open_mixed(&folder, &|_| {
            let mut random = random.borrow_mut();
            if random.next() < 0.5 { random.pick(&few) } else { random.pick(FORMATS).format }
        });
        let logits = |exact, kv, threads, chunk| {
            let tokens: Vec<u32> = (0..70).map(|i| (i * 13 + i * i) % 40).collect();
            let options = LoadOptions { context: CONTEXT, kv, exact, threads: Some(threads), ..LoadOptions::default() };
            let mut session = Session::new(&*crate::cpu(), &file, &program, 1, &options);
            let mut all = session.feed(&tokens, chunk, &[0, 30, 69]);
            all.extend(session.step(&[(0, &[3])], |_, _| true));
            all
        };
        let exact = logits(true, KvType::F32, 1, 100);
        let got = logits(false, kv, 1, chunk);
        assert!(logits(false, kv, 3, chunk) == got, "{name}: three threads give other logits than one");
        for (got, exact) in got.iter().zip(&exact) {
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
            let off = norm(&mut got.iter().zip(exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
            assert!(off < NEAR, "{name}: logits are {off} off, of their own size");
        }
    }
}
