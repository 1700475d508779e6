//! Finds the rows that can be skipped. Only tokens that want logits need the last layer's output; the others need no more than what
//! the states keep. So a value that no state depends on is computed for the wanted rows alone, and [`Op::Select`] stands where the
//! two domains meet. In a prefill this saves the last layer's query, attention, feed-forward part, and the head.

use super::*;
use std::collections::HashMap;

/// Narrows what it can to [`Rows::Wanted`], inserts the selections, drops steps that nothing reads.
pub(super) fn narrow(program: Program) -> Program {
    let needs = needs(&program);
    let mut narrowed = Program { steps: Vec::new(), ..program.clone() };
    // Values for which a selected copy exists.
    let mut selected: HashMap<ValueId, ValueId> = HashMap::new();

    for mut step in program.steps {
        let rows = match step.out {
            _ if step.op.advances_state() => Rows::All,
            Some(out) => match needs[out.0 as usize] {
                Some(rows) => rows,
                None => continue,
            },
            None => Rows::All,
        };
        if rows == Rows::Wanted {
            step.op.for_each_operand(|operand| {
                if domain(&narrowed, operand.id) == Rows::All {
                    operand.id = *selected.entry(operand.id).or_insert_with(|| select(&mut narrowed, *operand));
                }
            });
        }
        if let Some(out) = step.out {
            narrowed.values[out.0 as usize].rows = rows;
        }
        narrowed.steps.push(Step { rows, ..step });
    }
    if domain(&narrowed, narrowed.logits.id) == Rows::All {
        let logits = narrowed.logits;
        narrowed.logits.id = select(&mut narrowed, logits);
    }
    renumber(narrowed)
}

/// For each value the rows it must have a line for; `None` where nothing reads it.
fn needs(program: &Program) -> Vec<Option<Rows>> {
    let mut needs = vec![None; program.values.len()];
    needs[program.logits.id.0 as usize] = Some(Rows::Wanted);
    for step in program.steps.iter().rev() {
        let rows = if step.op.advances_state() { Some(Rows::All) } else { step.out.and_then(|out| needs[out.0 as usize]) };
        let Some(rows) = rows else { continue };
        for operand in step.op.operands() {
            let need = &mut needs[operand.id.0 as usize];
            if *need != Some(Rows::All) {
                *need = Some(rows);
            }
        }
    }
    needs
}

fn domain(program: &Program, id: ValueId) -> Rows {
    program.values[id.0 as usize].rows
}

fn select(program: &mut Program, x: Value) -> ValueId {
    let id = ValueId(program.values.len() as u32);
    let floats = program.values[x.id.0 as usize].floats;
    program.values.push(ValueInfo { floats, rows: Rows::Wanted });
    let whole = Value { id: x.id, groups: 1, width: floats };
    program.steps.push(Step { op: Op::Select { x: whole }, out: Some(id), rows: Rows::Wanted });
    id
}

/// Numbers values in the order they are written, without gaps.
fn renumber(program: Program) -> Program {
    let mut numbers = HashMap::new();
    let mut renumbered = Program { values: Vec::new(), steps: Vec::new(), ..program.clone() };
    for mut step in program.steps {
        step.op.for_each_operand(|operand| operand.id = numbers[&operand.id]);
        step.out = step.out.map(|out| {
            let id = ValueId(renumbered.values.len() as u32);
            renumbered.values.push(program.values[out.0 as usize]);
            numbers.insert(out, id);
            id
        });
        renumbered.steps.push(step);
    }
    renumbered.logits.id = numbers[&program.logits.id];
    renumbered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::builder::FULL;

    /// Two layers of attention and a projection after it.
    fn two_layers() -> Program {
        let b = Builder::new(&|_| false);
        let mut x = b.embed("token_embd", 10, 4);
        for l in b.layers(2) {
            let a = l.rms_norm(x, "attn_norm", 1e-5);
            let (q, k, v) = (l.linear(a, "attn_q", 4), l.linear(a, "attn_k", 4), l.linear(a, "attn_v", 4));
            x = l.add(x, l.linear(l.attention(q, k, v, FULL), "attn_output", 4));
        }
        let logits = b.head(x);
        b.finish("two", logits).expect("it fits together")
    }

    #[test]
    fn last_layer_computes_keys_for_all_rows_and_queries_for_the_wanted() {
        let program = two_layers();
        let rows_of = |tensor: &str| {
            let step =
                program.steps.iter().find(|s| matches!(s.op, Op::Linear { weight, .. } if program.weight(weight.weight).name == tensor));
            step.expect("it is there").rows
        };
        assert_eq!(rows_of("blk.0.attn_q.weight"), Rows::All);
        assert_eq!(rows_of("blk.1.attn_k.weight"), Rows::All);
        assert_eq!(rows_of("blk.1.attn_q.weight"), Rows::Wanted);
        assert_eq!(rows_of("token_embd.weight"), Rows::Wanted);
        let selections = program.steps.iter().filter(|s| matches!(s.op, Op::Select { .. })).count();
        assert_eq!(selections, 2, "the normed input of the queries, and the residual");
    }

    #[test]
    fn operands_and_results_share_a_domain_everywhere() {
        let program = two_layers();
        for step in &program.steps {
            for operand in step.op.operands() {
                let expected = if matches!(step.op, Op::Select { .. }) { Rows::All } else { step.rows };
                assert_eq!(program.value(operand.id).rows, expected, "{step:?}");
            }
        }
        assert_eq!(program.value(program.logits.id).rows, Rows::Wanted);
    }

    #[test]
    fn a_step_nothing_reads_is_dropped() {
        let b = Builder::new(&|_| false);
        let x = b.embed("token_embd", 10, 4);
        b.scale(x, 2.0);
        let logits = b.head(x);
        let program = b.finish("dead", logits).expect("it fits together");
        assert!(!program.steps.iter().any(|s| matches!(s.op, Op::Scale { .. })));
    }
}
