//! The exponential function in a form that compilers vectorise.

/// 2^n for integers n is built from bits, the rest by a polynomial over half a binary octave
/// (the coefficients are those of the Cephes library's `expf`).
const POLYNOMIAL: [f32; 6] = [
    1.987_569_1e-4,
    1.398_2e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_5e-1,
    5e-1,
];
/// Below this the result rounds to 0.
const LOWEST: f32 = -104.0;
/// Above this the result is infinite.
const HIGHEST: f32 = 89.0;
/// ln 2 in two parts: the first has so few bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x` of any f32, with a relative error below 2.4e-7 where the result is a normal
/// number; infinite above 88.73, 0 below -104, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Written so that a NaN passes (`f32::clamp` and `max` do not compile to plain selections).
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let exponent = rounded - ROUND;
    let rest = x - exponent * LN_2_HIGH - exponent * LN_2_LOW;
    let mut value = POLYNOMIAL[0];
    value = value * rest + POLYNOMIAL[1];
    value = value * rest + POLYNOMIAL[2];
    value = value * rest + POLYNOMIAL[3];
    value = value * rest + POLYNOMIAL[4];
    value = value * rest + POLYNOMIAL[5];
    value = value * (rest * rest) + rest + 1.0;
    // In two factors, since the exponents of the largest and of denormal results do not fit one.
    let exponent = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = exponent >> 1;
    value * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) << 23) as u32)
}

/// Largest relative error of [`exp`], measured over all of its range: two units in the last place.
#[cfg(test)]
const RELATIVE_ERROR: f64 = 2.4e-7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_f64_over_the_whole_range() {
        let mut worst: f64 = 0.0;
        for at in -870_000..=887_000 {
            let x = at as f32 * 1e-4 + 1e-5;
            let expected = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / expected - 1.0).abs());
        }
        assert!(worst < RELATIVE_ERROR, "{worst:e}");
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(exp(0.0), 1.0);
        for x in [f32::NEG_INFINITY, -1e30, -104.0, -200.0] {
            assert_eq!(exp(x), 0.0, "{x}");
        }
        for x in [89.0, 1e30, f32::INFINITY] {
            assert_eq!(exp(x), f32::INFINITY, "{x}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(88.72).is_finite());
        // A denormal result.
        let found = f64::from(exp(-95.0));
        assert!((found / (-95f64).exp() - 1.0).abs() < 1e-2);
    }
}
