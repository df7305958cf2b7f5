//! Dot products of four item rows at a time with a user vector, in the widest instructions of this
//! processor.
//!
//! int8 rows meet a user vector of 16 bits ([`UserVector`]): products and sums are integers, so
//! neither their order nor the machine changes a score. f32 and f16 rows are summed in a fixed
//! number of partial sums; there the machine's fused multiplication can change the last bit.
//! A row's score never depends on which rows it is computed with.

/// Rows that are computed together.
pub(crate) const ROWS: usize = 4;
/// Partial sums of a row of floats.
const LANES: usize = 16;
/// Values after which integer sums could leave 32 bits: `512 * 128 * 32767 < 2^31`.
const MOST_IN_32_BITS: usize = 512;

/// A user vector as the kernels read it.
pub(crate) struct UserVector<'a> {
    values: &'a [f32],
    /// `values / scale`, rounded; for int8 rows.
    integers: Vec<i16>,
    scale: f32,
}

impl<'a> UserVector<'a> {
    /// A vector for rows of floats.
    pub(crate) fn floats(values: &'a [f32]) -> Self {
        Self {
            values,
            integers: Vec::new(),
            scale: 1.0,
        }
    }

    /// A vector for int8 rows. Values that are not finite give scores that are no numbers.
    pub(crate) fn integers(values: &'a [f32]) -> Self {
        let finite = values.iter().all(|v| v.is_finite());
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = if finite {
            largest / f32::from(i16::MAX)
        } else {
            f32::NAN
        };
        let steps = |v: &f32| match scale > 0.0 {
            // The division cannot leave the range by more than a rounding.
            true => (v / scale).round() as i16,
            false => 0,
        };
        Self {
            values,
            integers: values.iter().map(steps).collect(),
            scale,
        }
    }
}

/// What differs between processors.
pub(crate) trait Kernel: Copy {
    /// Whether a multiplication and an addition are one instruction.
    const FUSED: bool;

    /// Four sums of products; at most [`MOST_IN_32_BITS`] values a row.
    fn integer_dots(self, rows: [&[i8]; ROWS], user: &[i16]) -> [i32; ROWS];
}

/// Work that is compiled once for each kernel. Its `run` must be `#[inline(always)]`, so that its
/// loops are compiled with the kernel's instructions.
pub(crate) trait Work {
    /// What it gives.
    type Output;

    /// Does it.
    fn run<K: Kernel>(self, kernel: K) -> Self::Output;
}

/// Runs `work` with the widest instructions that are there.
pub(crate) fn dispatch<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = pulp::x86::V3::try_new() {
        return kernel.vectorize(Vectorized { kernel, work });
    }
    work.run(Portable)
}

/// Plain loops: NEON is part of every aarch64, so the compiler's own vectors are the widest there.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    const FUSED: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    fn integer_dots(self, rows: [&[i8]; ROWS], user: &[i16]) -> [i32; ROWS] {
        rows.map(|row| integer_dot(row, user))
    }
}

#[inline(always)]
fn integer_dot(row: &[i8], user: &[i16]) -> i32 {
    let products = row.iter().zip(user);
    products.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

#[cfg(target_arch = "x86_64")]
struct Vectorized<W> {
    kernel: pulp::x86::V3,
    work: W,
}

#[cfg(target_arch = "x86_64")]
impl<W: Work> pulp::NullaryFnOnce for Vectorized<W> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.work.run(self.kernel)
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for pulp::x86::V3 {
    const FUSED: bool = true;

    /// The compiler does not find `vpmaddwd` (two products and their sum) by itself here.
    #[inline(always)]
    fn integer_dots(self, rows: [&[i8]; ROWS], user: &[i16]) -> [i32; ROWS] {
        use std::arch::x86_64::__m256i;
        let avx2 = self.avx2;
        let (chunks, rest) = user.as_chunks::<16>();
        let row_chunks = rows.map(|row| &row.as_chunks::<16>().0[..chunks.len()]);
        let mut sums: [__m256i; ROWS] = [pulp::cast([0i32; 8]); ROWS];
        for (at, user) in chunks.iter().enumerate() {
            let user: __m256i = pulp::cast(*user);
            for (sum, row) in sums.iter_mut().zip(row_chunks) {
                let row = avx2._mm256_cvtepi8_epi16(pulp::cast(row[at]));
                let products = avx2._mm256_madd_epi16(row, user);
                *sum = avx2._mm256_add_epi32(*sum, products);
            }
        }
        let front = avx2._mm256_hadd_epi32(sums[0], sums[1]);
        let back = avx2._mm256_hadd_epi32(sums[2], sums[3]);
        let halves: [i32; 8] = pulp::cast(avx2._mm256_hadd_epi32(front, back));
        let from = chunks.len() * 16;
        std::array::from_fn(|i| halves[i] + halves[i + ROWS] + integer_dot(&rows[i][from..], rest))
    }
}

/// Scores of four int8 rows with their scales.
#[inline(always)]
pub(crate) fn score_int8<K: Kernel>(
    kernel: K,
    rows: [&[i8]; ROWS],
    scales: [f32; ROWS],
    user: &UserVector<'_>,
) -> [f32; ROWS] {
    let sums: [f32; ROWS] = if user.integers.len() <= MOST_IN_32_BITS {
        kernel
            .integer_dots(rows, &user.integers)
            .map(|sum| sum as f32)
    } else {
        let mut sums = [0i64; ROWS];
        for (part, user) in user.integers.chunks(MOST_IN_32_BITS).enumerate() {
            let from = part * MOST_IN_32_BITS;
            let rows = rows.map(|row| &row[from..from + user.len()]);
            let dots = kernel.integer_dots(rows, user);
            for (sum, dot) in sums.iter_mut().zip(dots) {
                *sum += i64::from(dot);
            }
        }
        sums.map(|sum| sum as f32)
    };
    std::array::from_fn(|i| scales[i] * (user.scale * sums[i]))
}

/// Scores of four rows of floats; `wide` makes an f32 of a stored value.
#[inline(always)]
pub(crate) fn score_floats<K: Kernel, T: Copy>(
    rows: [&[T]; ROWS],
    user: &UserVector<'_>,
    wide: impl Fn(T) -> f32,
) -> [f32; ROWS] {
    let (chunks, rest) = user.values.as_chunks::<LANES>();
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..chunks.len()]);
    let mut sums = [[0.0f32; LANES]; ROWS];
    for (at, user) in chunks.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(row_chunks) {
            for lane in 0..LANES {
                let value = wide(row[at][lane]);
                sums[lane] = match K::FUSED {
                    true => value.mul_add(user[lane], sums[lane]),
                    false => value * user[lane] + sums[lane],
                };
            }
        }
    }
    let from = chunks.len() * LANES;
    std::array::from_fn(|i| {
        let tail = rows[i][from..].iter().zip(rest);
        let tail: f32 = tail.map(|(value, user)| wide(*value) * user).sum();
        add_up(sums[i]) + tail
    })
}

#[inline(always)]
fn add_up(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// The f32 of an f16's bits, exact for finite values, in operations that vectorise.
#[inline(always)]
pub(crate) fn wide_f16(value: half::f16) -> f32 {
    /// 2^112, the difference of the exponents' offsets.
    const REBIAS: f32 = f32::from_bits(0x7780_0000);
    let bits = u32::from(value.to_bits());
    let size = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
    f32::from_bits(size.to_bits() | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn every_finite_f16_widens_exactly() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            if value.is_finite() {
                assert_eq!(wide_f16(value).to_bits(), value.to_f32().to_bits());
            }
        }
    }

    /// The kernel of this processor against plain loops, at the ends of the range too.
    #[test]
    fn integer_dots_are_the_same_on_every_kernel() {
        struct Dots<'a>([&'a [i8]; ROWS], &'a [i16]);
        impl Work for Dots<'_> {
            type Output = [i32; ROWS];
            #[inline(always)]
            fn run<K: Kernel>(self, kernel: K) -> [i32; ROWS] {
                kernel.integer_dots(self.0, self.1)
            }
        }
        for dim in [1, 15, 16, 17, 128, MOST_IN_32_BITS] {
            let extreme = vec![i8::MIN; dim];
            let mixed: Vec<i8> = (0..dim).map(|i| (i * 37 % 251) as u8 as i8).collect();
            for user in [i16::MAX, -i16::MAX, 3] {
                let user: Vec<i16> = (0..dim)
                    .map(|i| user - user.signum() * (i % 3) as i16)
                    .collect();
                let rows: [&[i8]; ROWS] = [&extreme, &mixed, &extreme, &mixed];
                let plain = Portable.integer_dots(rows, &user);
                assert_eq!(dispatch(Dots(rows, &user)), plain);
                let exact = mixed.iter().zip(&user);
                let exact: i64 = exact.map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
                assert_eq!(i64::from(plain[1]), exact);
            }
        }
    }
}
