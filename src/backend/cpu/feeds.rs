//! Activations as products want them. A value that products read is brought into the kernels' form once, when it is finished, and every
//! product that reads it takes the same: q, k and v, or gate and up. Which form that is depends on the formats of the weights and on the
//! number of rows, so it is looked up every step.

use super::arena::{AlignedBytes, Shared};
use super::schedule::{Schedule, fed_value, steps_of};
use crate::gguf::Gguf;
use crate::program::{Op, Program, Rows, Value, ValueId};
use hearth_kernels::cpu::{Form, Kernels};
use hearth_kernels::quant::Format;

/// Who feeds what, and the memory for it.
pub struct Feeds {
    list: FeedList,
    memory: Memory,
}

/// For each slot the memory of its forms.
pub type Memory = Vec<Vec<AlignedBytes>>;

/// Who feeds what, found once at load.
pub struct FeedList {
    feeds: Vec<Feed>,
    /// For each stage the feeds that its end makes.
    pub by_stage: Vec<Vec<usize>>,
    /// Activations stay f32.
    exact: bool,
}

pub struct Feed {
    pub value: Value,
    pub rows: Rows,
    /// Of the weights that are multiplied with it.
    formats: Vec<Format>,
    /// Feeds that are not needed at the same time share memory.
    slot: usize,
}

/// The forms of one step.
pub struct Fed<'a> {
    by_feed: Vec<Vec<(Form, Shared<'a, u8>)>>,
    feed_of: Vec<Option<usize>>,
}

impl Feeds {
    pub fn new(program: &Program, schedule: &Schedule, file: &Gguf, exact: bool) -> Feeds {
        let mut feeds: Vec<Feed> = Vec::new();
        let mut by_stage = Vec::new();
        // The last stage that reads what lies in a slot.
        let mut busy_until: Vec<usize> = Vec::new();
        for (number, stage) in schedule.stages.iter().enumerate() {
            let mut made = Vec::new();
            for &value in &stage.feeds {
                let mut formats = Vec::new();
                let mut last = number;
                for (later, stage) in schedule.stages.iter().enumerate() {
                    for step in stage.works.iter().flat_map(|&w| steps_of(w)) {
                        let Op::Linear { weight, .. } = program.steps[step].op else { continue };
                        if fed_value(&program.steps[step].op) == Some(value) {
                            last = later;
                            let format = file.tensor(&program.weight(weight.weight).name).expect("found at load").format;
                            if !formats.contains(&format) {
                                formats.push(format);
                            }
                        }
                    }
                }
                let slot = busy_until.iter().position(|&until| until < number).unwrap_or_else(|| {
                    busy_until.push(0);
                    busy_until.len() - 1
                });
                busy_until[slot] = last;
                made.push(feeds.len());
                feeds.push(Feed { value, rows: program.value(value.id).rows, formats, slot });
            }
            by_stage.push(made);
        }
        let memory = busy_until.iter().map(|_| Vec::new()).collect();
        Feeds { list: FeedList { feeds, by_stage, exact }, memory }
    }

    pub fn split(&mut self) -> (&FeedList, &mut Memory) {
        (&self.list, &mut self.memory)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.memory.iter().flatten().map(AlignedBytes::len).sum()
    }
}

impl FeedList {
    /// Chooses forms for a step of `n` rows, `m` of which want logits, and makes room for them.
    pub fn prepare<'a>(&self, memory: &'a mut Memory, kernels: &Kernels, values: usize, n: usize, m: usize) -> Fed<'a> {
        let mut forms: Vec<Vec<Form>> = Vec::with_capacity(self.feeds.len());
        for feed in &self.feeds {
            let tokens = if feed.rows == Rows::All { n } else { m };
            let mut wanted = Vec::new();
            for &format in &feed.formats {
                let form = form(kernels, format, feed.value.width, tokens, self.exact);
                if !wanted.contains(&form) {
                    wanted.push(form);
                }
            }
            let memory = &mut memory[feed.slot];
            for (place, form) in wanted.iter().enumerate() {
                if memory.len() <= place {
                    memory.push(AlignedBytes::default());
                }
                if *form != Form::F32 {
                    memory[place].reserve(form.bytes(feed.value.width, tokens));
                }
            }
            forms.push(wanted);
        }
        let shared: Vec<Vec<Shared<u8>>> = memory.iter_mut().map(|m| m.iter_mut().map(|b| Shared::new(b.as_mut())).collect()).collect();
        let mut feed_of = vec![None; values];
        for (index, feed) in self.feeds.iter().enumerate() {
            feed_of[feed.value.id.0 as usize] = Some(index);
        }
        let by_feed =
            forms.iter().zip(&self.feeds).map(|(forms, feed)| forms.iter().copied().zip(shared[feed.slot].iter().copied()).collect());
        Fed { by_feed: by_feed.collect(), feed_of }
    }

    pub fn feed(&self, index: usize) -> &Feed {
        &self.feeds[index]
    }
}

/// The form for a product of `format` with rows of `width`; F32 where the rows are no whole runs of scales.
pub fn form(kernels: &Kernels, format: Format, width: usize, tokens: usize, exact: bool) -> Form {
    possible(kernels.form(format, tokens), width, exact)
}

/// Whether [`form`] is F32 for some number of tokens. What is converted for every number is not kept as numbers:
/// [`Schedule::new`](super::schedule::Schedule::new).
pub fn may_be_numbers(kernels: &Kernels, format: Format, width: usize, exact: bool) -> bool {
    kernels.forms(format).into_iter().any(|wanted| possible(wanted, width, exact) == Form::F32)
}

fn possible(wanted: Form, width: usize, exact: bool) -> Form {
    if exact || wanted.per().is_some_and(|per| !width.is_multiple_of(per)) { Form::F32 } else { wanted }
}

impl<'a> Fed<'a> {
    /// The forms of a feed, with their memory.
    pub fn forms(&self, feed: usize) -> &[(Form, Shared<'a, u8>)] {
        &self.by_feed[feed]
    }

    /// Value `id`, `[tokens, width]`, in one of its forms.
    ///
    /// # Safety
    /// The stage that makes the feed is over, and none that reuses its memory has begun.
    pub unsafe fn bytes(&self, id: ValueId, form: Form, width: usize, tokens: usize) -> &'a [u8] {
        let feed = self.feed_of[id.0 as usize].expect("products read fed values");
        let (_, memory) = self.by_feed[feed].iter().find(|(f, _)| *f == form).expect("every reader's form is made");
        // SAFETY: by the caller's promise nobody writes to it now.
        unsafe { memory.part(0..form.bytes(width, tokens)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_kernels::cpu::Tier;
    use hearth_kernels::quant::FORMATS;

    #[test]
    fn what_any_product_may_read_as_numbers_is_known_beforehand() {
        for tier in Tier::available() {
            let kernels = Kernels::for_tier(tier).expect("available");
            for (format, width, exact) in
                FORMATS.iter().flat_map(|l| [32, 96, 256].into_iter().flat_map(|w| [(l.format, w, false), (l.format, w, true)]))
            {
                let read = (1..=64).chain([512]).any(|tokens| form(&kernels, format, width, tokens, exact) == Form::F32);
                assert_eq!(may_be_numbers(&kernels, format, width, exact), read, "{tier:?} {} of {width}", format.name());
            }
        }
    }
}
