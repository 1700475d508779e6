//! The mean of some seconds' rates, and how far it can be trusted: what two settings are compared by.

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    n: f32,
    sum: f32,
    squares: f32,
}

impl Rates {
    /// Takes in the rate of one busy second.
    pub fn add(&mut self, rate: f32) {
        self.n += 1.0;
        self.sum += rate;
        self.squares += rate * rate;
    }

    pub fn count(&self) -> f32 {
        self.n
    }

    pub fn mean(&self) -> f32 {
        self.sum / self.n.max(1.0)
    }

    /// One sigma of the mean, from the scatter of the seconds themselves.
    pub fn error_of_mean(&self) -> f32 {
        let variance = (self.squares / self.n.max(1.0) - self.mean().powi(2)).max(0.0);
        (variance / (self.n - 1.0).max(1.0)).sqrt()
    }
}
