//! Activations as products want them. A value that products read is brought into the kernels' form once, when it is finished, and every
//! product that reads it takes the same: q, k and v, or gate and up. Which form that is depends on the formats of the weights and on the
//! number of rows, so it is looked up every step.

use super::arena::Shared;
use super::places::{FeedLife, LINE_FLOATS, Memory, Places};
use super::schedule::{Schedule, fed_value, steps_of};
use crate::program::{Matrix, Op, Program, Rows, Value, ValueId};
use hearth_kernels::cpu::{Form, Kernels};
use hearth_kernels::quant::Format;

/// Who feeds what, found once at load.
pub struct FeedList {
    feeds: Vec<Feed>,
    /// For each stage the feeds that its end makes, or its works.
    pub by_stage: Vec<Vec<usize>>,
    /// Activations stay f32.
    exact: bool,
}

pub struct Feed {
    pub value: Value,
    pub rows: Rows,
    /// Of the weights that are multiplied with it.
    formats: Vec<Format>,
    /// The last stage that reads it.
    read: usize,
}

/// The forms of each feed in one step.
pub type Forms = Vec<Vec<Form>>;

/// The forms of one step, with their memory.
pub struct Fed<'a> {
    by_feed: Vec<Vec<(Form, Shared<'a, u8>)>>,
    feed_of: Vec<Option<usize>>,
}

impl FeedList {
    pub fn new(program: &Program, schedule: &Schedule, format: &dyn Fn(Matrix) -> Format, exact: bool) -> FeedList {
        let mut feeds: Vec<Feed> = Vec::new();
        let mut by_stage = Vec::new();
        for (number, stage) in schedule.stages.iter().enumerate() {
            let mut made = Vec::new();
            for &value in &stage.feeds {
                let mut formats = Vec::new();
                let mut read = number;
                for (later, stage) in schedule.stages.iter().enumerate() {
                    for step in stage.works.iter().flat_map(|&w| steps_of(w)) {
                        let Op::Linear { weight, .. } = program.steps[step].op else { continue };
                        if fed_value(&program.steps[step].op) == Some(value) {
                            read = later;
                            if !formats.contains(&format(weight)) {
                                formats.push(format(weight));
                            }
                        }
                    }
                }
                made.push(feeds.len());
                feeds.push(Feed { value, rows: program.value(value.id).rows, formats, read });
            }
            by_stage.push(made);
        }
        FeedList { feeds, by_stage, exact }
    }

    pub fn feed(&self, index: usize) -> &Feed {
        &self.feeds[index]
    }

    /// How long each lives, and its room: for the widest form of each of its formats that differ in forms.
    pub fn lives(&self, kernels: &Kernels) -> Vec<FeedLife> {
        let room = |feed: &Feed| {
            let width = feed.value.width;
            let mut counted = Vec::new();
            let mut floats = 0;
            for &format in &feed.formats {
                let key = (kernels.forms(format), kernels.many_from(format));
                if !counted.contains(&key) {
                    counted.push(key);
                    let forms = key.0.into_iter().map(|wanted| possible(wanted, width, self.exact));
                    floats += forms.map(|form| form_floats(form, width)).max().unwrap_or(0);
                }
            }
            floats
        };
        let made = |index: usize| self.by_stage.iter().position(|made| made.contains(&index)).expect("a stage makes it");
        let life =
            |(index, feed): (usize, &Feed)| FeedLife { value: feed.value.id, floats: room(feed), made: made(index), read: feed.read };
        self.feeds.iter().enumerate().map(life).collect()
    }

    /// Chooses forms for a step of `n` rows, `m` of which want logits.
    pub fn forms(&self, kernels: &Kernels, n: usize, m: usize) -> Forms {
        let of_feed = |feed: &Feed| {
            let tokens = if feed.rows == Rows::All { n } else { m };
            let mut wanted = Vec::new();
            for &format in &feed.formats {
                let form = form(kernels, format, feed.value.width, tokens, self.exact);
                if !wanted.contains(&form) {
                    wanted.push(form);
                }
            }
            wanted
        };
        self.feeds.iter().map(of_feed).collect()
    }

    /// Whether the works that make `values` can convert them by columns: each is read in one form, a panel.
    pub fn are_panels(&self, forms: &Forms, values: &[ValueId]) -> bool {
        let is_panel = |id: &ValueId| {
            let feed = self.feeds.iter().position(|feed| feed.value.id == *id);
            feed.is_some_and(|feed| matches!(forms[feed][..], [form] if form.is_panel()))
        };
        values.iter().all(is_panel)
    }

    /// Lines of a memory for so many rows: panels come in groups of rows.
    pub fn lines(&self, forms: &Forms, memory: Memory, rows: usize) -> usize {
        if memory == Memory::Logits {
            return rows;
        }
        let of_memory = forms.iter().zip(&self.feeds).filter(|(_, feed)| feed.rows == memory.rows());
        rows.next_multiple_of(of_memory.flat_map(|(forms, _)| forms).map(|form| form.group()).max().unwrap_or(1))
    }

    /// The memory of each form. `memory`: by [`Memory`], of so many `lines`.
    pub fn lay<'a>(
        &self,
        forms: &Forms,
        places: &Places,
        memory: &[Shared<'a, f32>; Memory::ALL.len()],
        lines: &[usize; Memory::ALL.len()],
        values: usize,
    ) -> Fed<'a> {
        let mut feed_of = vec![None; values];
        let mut by_feed = Vec::with_capacity(self.feeds.len());
        for (index, (feed, forms)) in self.feeds.iter().zip(forms).enumerate() {
            feed_of[feed.value.id.0 as usize] = Some(index);
            let place = places.feed(index);
            let lines = lines[place.memory as usize];
            let memory = memory[place.memory as usize].bytes();
            let mut at = lines * place.offset * size_of::<f32>();
            let lay = |&form: &Form| {
                let start = at;
                at += lines * form_floats(form, feed.value.width) * size_of::<f32>();
                (form, memory.within(start..at))
            };
            by_feed.push(forms.iter().map(lay).collect());
        }
        Fed { by_feed, feed_of }
    }
}

/// Floats a line of one form, in whole groups of lines.
fn form_floats(form: Form, width: usize) -> usize {
    match form {
        Form::F32 => 0,
        form => (form.bytes(width, form.group()) / form.group()).div_ceil(size_of::<f32>()).next_multiple_of(LINE_FLOATS),
    }
}

/// The form for a product of `format` with rows of `width`; F32 where the rows are no whole runs of scales.
pub fn form(kernels: &Kernels, format: Format, width: usize, tokens: usize, exact: bool) -> Form {
    possible(kernels.form(format, tokens), width, exact)
}

/// Whether [`form`] is F32 for some number of tokens. What is converted for every number is not kept as numbers:
/// [`Places::new`].
pub fn may_be_numbers(kernels: &Kernels, format: Format, width: usize, exact: bool) -> bool {
    kernels.forms(format).into_iter().any(|wanted| possible(wanted, width, exact) == Form::F32)
}

/// Numbers of tokens from which on products of `format` go another way.
pub fn thresholds(kernels: &Kernels, format: Format) -> [usize; 3] {
    [1, 2, kernels.many_from(format)]
}

fn possible(wanted: Form, width: usize, exact: bool) -> Form {
    if exact || wanted.per().is_some_and(|per| !width.is_multiple_of(per)) { Form::F32 } else { wanted }
}

impl<'a> Fed<'a> {
    /// The forms of a feed, with their memory.
    pub fn forms(&self, feed: usize) -> &[(Form, Shared<'a, u8>)] {
        &self.by_feed[feed]
    }

    /// The feed of a value.
    pub fn feed_of(&self, id: ValueId) -> usize {
        self.feed_of[id.0 as usize].expect("products read fed values")
    }

    /// Value `id`, `[tokens, width]`, in one of its forms.
    ///
    /// # Safety
    /// The stage that makes the feed is over, and none that reuses its memory has begun.
    pub unsafe fn bytes(&self, id: ValueId, form: Form, width: usize, tokens: usize) -> &'a [u8] {
        let feed = self.feed_of(id);
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
