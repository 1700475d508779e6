//! Which values may share a buffer: two whose lives don't overlap. A backend that runs step by step needs one buffer a slot, of
//! `floats · rows` numbers, and no more scratch for values.

use super::{Program, Rows, ValueId, ValueInfo};

/// Buffers for the values of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For each value its buffer.
    pub buffer_of: Vec<usize>,
    /// Floats a row and row domain of each buffer.
    pub buffers: Vec<ValueInfo>,
    /// For each step the values read there for the last time.
    pub dies_at: Vec<Vec<ValueId>>,
}

impl Plan {
    pub fn buffer(&self, value: ValueId) -> usize {
        self.buffer_of[value.0 as usize]
    }

    /// Floats of all buffers in a step of `n` rows, `m` of which want logits.
    pub fn floats(&self, n: usize, m: usize) -> usize {
        self.buffers.iter().map(|b| b.floats * if b.rows == Rows::All { n } else { m }).sum()
    }
}

/// Assigns buffers in the order of the steps. A result never shares a buffer with its own operands, so kernels need not work in place.
/// Wanted and other rows don't mix: a prefill's logits would make every shared buffer as wide as the vocabulary.
pub fn plan(program: &Program) -> Plan {
    let dies_at = deaths(program);
    let mut plan = Plan { buffer_of: vec![usize::MAX; program.values.len()], buffers: Vec::new(), dies_at };
    let mut free: Vec<usize> = Vec::new();
    for (index, step) in program.steps.iter().enumerate() {
        if let Some(out) = step.out {
            let need = *program.value(out);
            // The free buffer that fits closest; growing one is better than opening another.
            let choice = free
                .iter()
                .copied()
                .filter(|&buffer| plan.buffers[buffer].rows == need.rows)
                .min_by_key(|&buffer| (plan.buffers[buffer].floats < need.floats, plan.buffers[buffer].floats.abs_diff(need.floats)));
            let buffer = choice.unwrap_or_else(|| {
                plan.buffers.push(need);
                plan.buffers.len() - 1
            });
            free.retain(|&other| other != buffer);
            plan.buffers[buffer].floats = plan.buffers[buffer].floats.max(need.floats);
            plan.buffer_of[out.0 as usize] = buffer;
        }
        free.extend(plan.dies_at[index].iter().map(|value| plan.buffer_of[value.0 as usize]));
    }
    plan
}

fn deaths(program: &Program) -> Vec<Vec<ValueId>> {
    let mut last_read = vec![None; program.values.len()];
    for (index, step) in program.steps.iter().enumerate() {
        for operand in step.op.operands() {
            last_read[operand.id.0 as usize] = Some(index);
        }
    }
    let mut dies_at = vec![Vec::new(); program.steps.len()];
    for (value, read) in last_read.iter().enumerate() {
        let id = ValueId(value as u32);
        if let Some(index) = read.filter(|_| id != program.logits.id) {
            dies_at[index].push(id);
        }
    }
    dies_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Builder;
    use crate::program::builder::FULL;

    #[test]
    fn values_that_live_together_have_buffers_of_their_own() {
        let b = Builder::new(&|_| false);
        let mut x = b.embed("token_embd", 10, 4);
        for l in b.layers(3) {
            let a = l.rms_norm(x, "attn_norm", 1e-5);
            let (q, k, v) = (l.linear(a, "attn_q", 8), l.linear(a, "attn_k", 8), l.linear(a, "attn_v", 8));
            x = l.add(x, l.linear(l.attention(q, k, v, FULL), "attn_output", 4));
        }
        let logits = b.head(x);
        let program = b.finish("three", logits).expect("it fits together");
        let plan = plan(&program);

        let mut holder = vec![None; plan.buffers.len()];
        for (index, step) in program.steps.iter().enumerate() {
            for operand in step.op.operands() {
                assert_eq!(holder[plan.buffer(operand.id)], Some(operand.id), "step {index} reads a value that was overwritten");
            }
            if let Some(out) = step.out {
                let buffer = plan.buffer(out);
                assert!(step.op.operands().iter().all(|o| plan.buffer(o.id) != buffer), "step {index} writes over its operand");
                assert!(plan.buffers[buffer].floats >= program.value(out).floats);
                assert_eq!(plan.buffers[buffer].rows, program.value(out).rows);
                holder[buffer] = Some(out);
            }
        }
        assert!(plan.buffers.len() < program.values.len() / 2, "{} buffers for {} values", plan.buffers.len(), program.values.len());
    }
}
