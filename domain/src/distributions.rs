//! The distributions for intervals: normal, Student's t, and binomial with p = 1/2. `statrs` computes other last digits,
//! and the figures of stored runs must stay the same, so these few functions are written here.

use std::f64::consts::PI;

/// Probability that a standard normal number is at most `x`; by the series of Marsaglia 2004, "Evaluating the normal
/// distribution", with the tails beyond ±8 (below 10^-15) cut off. Absolute error below 10^-14.
pub fn normal_cdf(x: f64) -> f64 {
    if x < -8.0 {
        return 0.0;
    }
    if x > 8.0 {
        return 1.0;
    }
    let (mut sum, mut term, mut divisor) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        divisor += 2.0;
        term *= x * x / divisor;
        sum += term;
    }
    let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    (0.5 + density * sum).clamp(0.0, 1.0)
}

/// The number below which a standard normal one lies with probability `p`; infinite at 0 and 1.
pub fn normal_quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    bisect(-8.0, 8.0, |x| normal_cdf(x) < p)
}

/// Probability that a number of Student's t distribution with `freedom` degrees of freedom is at most `t`; through
/// the regularised incomplete beta function (NIST DLMF 8.17).
pub fn student_cdf(t: f64, freedom: f64) -> f64 {
    let tail = 0.5 * regularised_beta(freedom / (freedom + t * t), 0.5 * freedom, 0.5);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The number below which one of Student's t distribution lies with probability `p`; infinite at 0 and 1.
/// Error below 10^-6 for the confidences in use.
pub fn student_quantile(p: f64, freedom: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let mut reach = 1.0;
    while student_cdf(reach, freedom) < p.max(1.0 - p) && reach < 1e12 {
        reach *= 2.0;
    }
    bisect(-reach, reach, |t| student_cdf(t, freedom) < p)
}

/// Probabilities of at most 0, 1, 2 and so on heads among `throws` of a fair coin.
pub fn fair_coin_cdf(throws: usize) -> impl Iterator<Item = f64> {
    let exponent = throws as f64 * std::f64::consts::LN_2;
    let (mut ln_ways, mut sum) = (0.0_f64, 0.0_f64);
    (0..=throws).map(move |heads| {
        sum += (ln_ways - exponent).exp();
        ln_ways += ((throws - heads) as f64).ln() - ((heads + 1) as f64).ln();
        sum.min(1.0)
    })
}

/// The point in [low, high] where `below` turns false.
fn bisect(mut low: f64, mut high: f64, below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if high - low <= 1e-12 * (1.0 + middle.abs()) {
            break;
        }
        if below(middle) { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// `I_x(a, b)`, by the continued fraction NIST DLMF 8.17.22, evaluated by Lentz's method (Thompson & Barnett 1986).
fn regularised_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on this side of the mean only.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - regularised_beta(1.0 - x, b, a);
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    let mut denominator = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let (mut numerator, mut fraction) = (1.0, denominator);
    for step in 1..300 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            denominator = 1.0 / away_from_zero(1.0 + coefficient * denominator);
            numerator = away_from_zero(1.0 + coefficient / numerator);
            change = denominator * numerator;
            fraction *= change;
        }
        if (change - 1.0_f64).abs() < 1e-15 {
            break;
        }
    }
    ln_front.exp() * fraction / a
}

fn away_from_zero(value: f64) -> f64 {
    if value.abs() < 1e-300 { 1e-300 } else { value }
}

/// Logarithm of the gamma function for x > 0, by Stirling's series (NIST DLMF 5.11.1) above 10 and the recurrence
/// below. Relative error below 10^-13.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let (inverse, square) = (1.0 / x, 1.0 / (x * x));
    let series = inverse
        * (1.0 / 12.0
            - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: f64, wanted: f64, within: f64) {
        assert!((found - wanted).abs() <= within, "{found}, not {wanted}");
    }

    #[test]
    fn normal_values_of_the_tables() {
        check(normal_cdf(0.0), 0.5, 1e-15);
        check(normal_cdf(1.0), 0.841_344_746_068_543, 1e-13);
        check(normal_cdf(-1.959_963_984_540_054), 0.025, 1e-13);
        check(normal_quantile(0.975), 1.959_963_984_540_054, 1e-9);
        check(normal_quantile(0.001), -3.090_232_306_167_813, 1e-9);
        assert!(normal_quantile(1.0).is_infinite());
    }

    #[test]
    fn student_values_of_the_tables() {
        for (freedom, wanted) in
            [(1.0, 12.706_205), (2.0, 4.302_653), (4.0, 2.776_445), (9.0, 2.262_157), (30.0, 2.042_272)]
        {
            check(student_quantile(0.975, freedom), wanted, 1e-6);
            check(student_quantile(0.025, freedom), -wanted, 1e-6);
        }
        check(student_quantile(0.995, 4.0), 4.604_095, 1e-6);
        check(student_quantile(0.5, 7.0), 0.0, 1e-6);
        check(student_cdf(1.0, 1.0), 0.75, 1e-12);
    }

    #[test]
    fn fair_coins() {
        let at_most = |heads: usize, throws: usize| fair_coin_cdf(throws).nth(heads).unwrap();
        check(at_most(0, 5), 1.0 / 32.0, 1e-15);
        check(at_most(2, 5), 0.5, 1e-14);
        check(at_most(5, 20), 0.020_694_732_666_015_6, 1e-14);
        check(at_most(3, 3), 1.0, 1e-14);
        assert_eq!(fair_coin_cdf(3).count(), 4);
    }
}
