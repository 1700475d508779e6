//! The program as text: one step a line, with every size. This text is an architecture's golden file, so it leaves nothing out.

use super::*;
use std::fmt;

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "program {} vocabulary {}", self.name, self.vocabulary)?;
        for (index, state) in self.states.iter().enumerate() {
            write!(f, "s{index}: ")?;
            match state {
                State::Kv { kv_heads, k_dim, v_dim, window } => {
                    write!(f, "kv heads {kv_heads} k {k_dim} v {v_dim}")?;
                    option(f, "window", *window)?;
                    writeln!(f)?;
                }
                State::Conv { channels, tail } => writeln!(f, "conv [{tail}, {channels}]")?,
                State::Recurrent { heads, k_dim, v_dim } => writeln!(f, "recurrent [{heads}, {k_dim}, {v_dim}]")?,
            }
        }
        for step in &self.steps {
            self.step(f, step)?;
        }
        writeln!(f, "logits %{}", self.logits.id.0)
    }
}

impl Program {
    fn step(&self, f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
        if let Some(out) = step.out {
            let rows = if step.rows == Rows::All { "n" } else { "m" };
            write!(f, "%{} [{rows}, {}] = ", out.0, self.value(out).floats)?;
        }
        write!(f, "{}", step.op.name())?;
        for operand in step.op.operands() {
            write!(f, " %{}", operand.id.0)?;
            if operand.groups > 1 {
                write!(f, "[{}, {}]", operand.groups, operand.width)?;
            }
        }
        match step.op {
            Op::Embed { table } => self.matrix(f, table),
            Op::Linear { weight, bias, .. } => {
                self.matrix(f, weight)?;
                self.vector(f, bias)
            }
            Op::RmsNorm { weight, eps, .. } => {
                self.vector(f, weight)?;
                write!(f, " eps {eps:e}")
            }
            Op::LayerNorm { weight, bias, eps, .. } => {
                self.vector(f, weight)?;
                self.vector(f, bias)?;
                write!(f, " eps {eps:e}")
            }
            Op::L2Norm { eps, .. } => write!(f, " eps {eps:e}"),
            Op::Rope { rope, .. } => self.rope(f, rope),
            Op::Store { cache, .. } => write!(f, " s{}", cache.0),
            Op::Attention { cache, scale, window, softcap, sinks, .. } => {
                write!(f, " s{} scale {scale}", cache.0)?;
                option(f, "window", window)?;
                option(f, "softcap", softcap)?;
                self.vector(f, sinks)
            }
            Op::Gated { activation, .. } | Op::Apply { activation, .. } => write!(f, " {}", activation.name()),
            Op::Moe { gate, up, down, experts, used, gating, normalise, scale, activation, .. } => {
                for matrix in [gate, up, down] {
                    self.matrix(f, matrix)?;
                }
                let gating = if gating == Gating::Softmax { "softmax" } else { "sigmoid" };
                let normalised = if normalise { " normalised" } else { "" };
                write!(f, " {used} of {experts} {gating}{normalised} scale {scale} {}", activation.name())
            }
            Op::ShortConv { kernel, state, .. } => {
                self.vector(f, Some(kernel))?;
                write!(f, " s{}", state.0)
            }
            Op::DeltaRule { state, scale, .. } => write!(f, " s{} scale {scale}", state.0),
            Op::MulVector { weight, .. } => self.vector(f, Some(weight)),
            Op::Scale { by, .. } => write!(f, " by {by}"),
            Op::SoftCap { cap, .. } => write!(f, " cap {cap}"),
            Op::Slice { start, width, .. } => write!(f, " columns {start}..{}", start + width),
            Op::Add { .. } | Op::Mul { .. } | Op::Select { .. } => Ok(()),
        }?;
        writeln!(f)
    }

    fn matrix(&self, f: &mut fmt::Formatter<'_>, matrix: Matrix) -> fmt::Result {
        let weight = self.weight(matrix.weight);
        write!(f, " {} {:?}", weight.name, weight.shape)?;
        let whole: usize = weight.shape.iter().rev().skip(1).product();
        if matrix.rows != whole {
            write!(f, " rows {}..{}", matrix.first_row, matrix.first_row + matrix.rows)?;
        }
        Ok(())
    }

    fn vector(&self, f: &mut fmt::Formatter<'_>, weight: Option<WeightId>) -> fmt::Result {
        let Some(id) = weight else { return Ok(()) };
        let weight = self.weight(id);
        write!(f, " {} {:?}", weight.name, weight.shape)
    }

    fn rope(&self, f: &mut fmt::Formatter<'_>, rope: Rope) -> fmt::Result {
        let pairing = if rope.pairing == Pairing::Neighbours { "neighbours" } else { "halves" };
        write!(f, " {pairing} dims {} base {}", rope.dims, rope.base)?;
        match rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => write!(f, " linear {factor}")?,
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow } => {
                write!(f, " yarn {factor} original {original_context} beta {beta_fast} {beta_slow}")?;
            }
        }
        match rope.factors {
            RopeFactors::None => {}
            RopeFactors::Always(weight) => self.vector(f, Some(weight))?,
            RopeFactors::ByContext { short, long, original_context } => {
                self.vector(f, Some(short))?;
                write!(f, " above {original_context}")?;
                self.vector(f, Some(long))?;
            }
        }
        if rope.attention_factor != 1.0 {
            write!(f, " attention {}", rope.attention_factor)?;
        }
        Ok(())
    }
}

impl Activation {
    fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Softplus => "softplus",
        }
    }
}

fn option(f: &mut fmt::Formatter<'_>, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " {name} {value}"))
}
