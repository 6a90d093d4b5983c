//! How close a unit comes to the limits of its processor.
//!
//! A unit can be no faster than its multiply-adds at the processor's peak rate, nor than reading its weights once at
//! the rate of the memory they lie in: the roofline model (Williams, Waterman, Patterson 2009, *Roofline: an insightful
//! visual performance model*, CACM 52(4):65–76, doi:10.1145/1498765.1498785).

/// The limits of a processor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roof {
    /// Multiply-adds a second; above 0.
    pub multiply_adds: f64,
    /// Bytes a second read from memory that holds the network's weights; above 0.
    pub bytes: f64,
}

/// A unit below the roof.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BelowRoof {
    /// Measured time of a frame, in ns.
    pub ns: f64,
    /// The least time the roof allows, in ns; 0 for a unit without multiply-adds and weights.
    pub least_ns: f64,
}

impl BelowRoof {
    /// Time beyond the least, in ns; 0 if the measured time is shorter, which noise can cause.
    pub fn lost_ns(&self) -> f64 {
        (self.ns - self.least_ns).max(0.0)
    }

    /// Least time over measured time; absent if nothing was measured, or if the unit has no least time.
    pub fn share(&self) -> Option<f64> {
        (self.ns > 0.0 && self.least_ns > 0.0).then(|| self.least_ns / self.ns)
    }
}

impl Roof {
    /// A unit with this many multiply-adds and bytes of weights, which took `ns`.
    pub fn place(&self, multiply_adds: u64, weight_bytes: u64, ns: f64) -> BelowRoof {
        let work = multiply_adds as f64;
        let least = (work / self.multiply_adds).max(weight_bytes as f64 / self.bytes);
        BelowRoof { ns, least_ns: 1e9 * least }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_work_and_reading_is_the_roof() {
        let roof = Roof { multiply_adds: 1e9, bytes: 1e10 };
        let work = roof.place(1000, 100, 2000.0);
        assert_eq!((work.least_ns, work.share(), work.lost_ns()), (1000.0, Some(0.5), 1000.0));
        let reading = roof.place(1000, 40_000, 5000.0);
        assert_eq!((reading.least_ns, reading.share()), (4000.0, Some(0.8)));
        let neither = roof.place(0, 0, 700.0);
        assert_eq!((neither.least_ns, neither.share(), neither.lost_ns()), (0.0, None, 700.0));
        let noise = roof.place(1000, 0, 900.0);
        assert!(noise.lost_ns() < f64::EPSILON, "{noise:?}");
    }
}
