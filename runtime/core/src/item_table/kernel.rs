//! Dot products of four item rows at a time with a user vector, in the widest instructions of this
//! processor.
//!
//! int8 rows meet a user vector of 16 bits ([`UserVector`]): products and sums are integers, so
//! neither their order nor the machine changes a score. f32 and f16 rows are summed in a fixed
//! number of partial sums; there the machine's fused multiplication can change the last bits.
//! A row's score never depends on which rows it is computed with.

use half::f16;

/// Rows that are computed together.
pub(crate) const ROWS: usize = 4;
/// Partial sums of a row of floats.
const LANES: usize = 16;
/// Values after which integer sums could leave 32 bits: `512 * 128 * 32767 < 2^31`.
const MOST_IN_32_BITS: usize = 512;

/// How far ahead memory is asked for, in bytes: a page, where the processor's own reading ahead
/// ends.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;
const CACHE_LINE: usize = 64;

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
    /// [`LANES`] floats.
    type Lanes: Copy;

    /// Four sums of products; at most [`MOST_IN_32_BITS`] values a row.
    fn integer_dots(self, rows: [&[i8]; ROWS], user: &[i16]) -> [i32; ROWS];

    /// Asks for the cache line a page behind this place, where the processor knows how.
    fn read_ahead<T>(self, place: &T);

    /// The floats as they are computed with.
    fn load(self, values: &[f32; LANES]) -> Self::Lanes;

    /// The floats of half floats, as [`wide_f16`] has them.
    fn load_half(self, values: &[f16; LANES]) -> Self::Lanes;

    /// `sum + a * b`, lane by lane.
    fn add_product(self, sum: Self::Lanes, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// The floats as an array.
    fn store(self, lanes: Self::Lanes) -> [f32; LANES];
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
    #[cfg(target_arch = "aarch64")]
    if let Some(kernel) = pulp::aarch64::Neon::try_new() {
        return work.run(kernel);
    }
    work.run(Portable)
}

/// Plain loops.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    type Lanes = [f32; LANES];

    #[inline(always)]
    fn integer_dots(self, rows: [&[i8]; ROWS], user: &[i16]) -> [i32; ROWS] {
        rows.map(|row| integer_dot(row, user))
    }

    #[inline(always)]
    fn read_ahead<T>(self, _place: &T) {}

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [f32; LANES] {
        *values
    }

    #[inline(always)]
    fn load_half(self, values: &[f16; LANES]) -> [f32; LANES] {
        values.map(wide_f16)
    }

    #[inline(always)]
    fn add_product(self, mut sum: [f32; LANES], a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        for lane in 0..LANES {
            sum[lane] += a[lane] * b[lane];
        }
        sum
    }

    #[inline(always)]
    fn store(self, lanes: [f32; LANES]) -> [f32; LANES] {
        lanes
    }
}

/// NEON is part of every aarch64, and the compiler finds its integers by itself.
#[cfg(target_arch = "aarch64")]
impl Kernel for pulp::aarch64::Neon {
    /// The compiler leaves loops over arrays of floats scalar here.
    type Lanes = [std::arch::aarch64::float32x4_t; 4];

    #[inline(always)]
    fn integer_dots(self, rows: [&[i8]; ROWS], user: &[i16]) -> [i32; ROWS] {
        rows.map(|row| integer_dot(row, user))
    }

    /// Nothing is asked for: what it would gain on ARM was never measured.
    #[inline(always)]
    fn read_ahead<T>(self, _place: &T) {}

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Lanes {
        pulp::cast(*values)
    }

    #[inline(always)]
    fn load_half(self, values: &[f16; LANES]) -> Self::Lanes {
        pulp::cast(values.map(wide_f16))
    }

    #[inline(always)]
    fn add_product(self, sum: Self::Lanes, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| self.neon.vfmaq_f32(sum[i], a[i], b[i]))
    }

    #[inline(always)]
    fn store(self, lanes: Self::Lanes) -> [f32; LANES] {
        pulp::cast(lanes)
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
    /// The compiler leaves loops over arrays of floats scalar here.
    type Lanes = [std::arch::x86_64::__m256; 2];

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
            let line_begins = at.is_multiple_of(CACHE_LINE / 16);
            for (sum, row) in sums.iter_mut().zip(row_chunks) {
                if line_begins {
                    self.read_ahead(&row[at]);
                }
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

    #[inline(always)]
    fn read_ahead<T>(self, place: &T) {
        // An address past the end is only asked for, never read.
        let ahead = std::ptr::from_ref(place).cast::<i8>().wrapping_add(AHEAD);
        (self.sse)._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ahead);
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Lanes {
        pulp::cast(*values)
    }

    #[inline(always)]
    fn load_half(self, values: &[f16; LANES]) -> Self::Lanes {
        let [front, back]: [std::arch::x86_64::__m128i; 2] = pulp::cast(*values);
        [wide_halves(self, front), wide_halves(self, back)]
    }

    #[inline(always)]
    fn add_product(self, sum: Self::Lanes, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        let fma = self.fma;
        [
            fma._mm256_fmadd_ps(a[0], b[0], sum[0]),
            fma._mm256_fmadd_ps(a[1], b[1], sum[1]),
        ]
    }

    #[inline(always)]
    fn store(self, lanes: Self::Lanes) -> [f32; LANES] {
        pulp::cast(lanes)
    }
}

/// [`wide_f16`] of eight.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn wide_halves(
    kernel: pulp::x86::V3,
    bits: std::arch::x86_64::__m128i,
) -> std::arch::x86_64::__m256 {
    let (avx, avx2) = (kernel.avx, kernel.avx2);
    let bits = avx2._mm256_cvtepu16_epi32(bits);
    let size = avx2._mm256_and_si256(bits, pulp::cast([0x7fff_u32; 8]));
    let size = pulp::cast(avx2._mm256_slli_epi32::<13>(size));
    let size = avx._mm256_mul_ps(size, pulp::cast([REBIAS; 8]));
    let sign = avx2._mm256_and_si256(bits, pulp::cast([0x8000_u32; 8]));
    let sign = pulp::cast(avx2._mm256_slli_epi32::<16>(sign));
    avx._mm256_or_ps(size, sign)
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

/// How floats are stored.
pub(crate) trait Stored: Copy {
    /// The f32 of a value.
    fn wide(self) -> f32;

    /// Those of some values, in the kernel's form.
    fn load<K: Kernel>(kernel: K, values: &[Self; LANES]) -> K::Lanes;
}

impl Stored for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn load<K: Kernel>(kernel: K, values: &[Self; LANES]) -> K::Lanes {
        kernel.load(values)
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        wide_f16(self)
    }

    #[inline(always)]
    fn load<K: Kernel>(kernel: K, values: &[Self; LANES]) -> K::Lanes {
        kernel.load_half(values)
    }
}

/// Scores of four rows of floats.
#[inline(always)]
pub(crate) fn score_floats<K: Kernel, T: Stored>(
    kernel: K,
    rows: [&[T]; ROWS],
    user: &UserVector<'_>,
) -> [f32; ROWS] {
    let (chunks, rest) = user.values.as_chunks::<LANES>();
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..chunks.len()]);
    let mut sums = [kernel.load(&[0.0; LANES]); ROWS];
    for (at, user) in chunks.iter().enumerate() {
        let user = kernel.load(user);
        let line_begins = (at * size_of::<[T; LANES]>()).is_multiple_of(CACHE_LINE);
        for (sum, row) in sums.iter_mut().zip(row_chunks) {
            if line_begins {
                kernel.read_ahead(&row[at]);
            }
            *sum = kernel.add_product(*sum, T::load(kernel, &row[at]), user);
        }
    }
    let from = chunks.len() * LANES;
    std::array::from_fn(|i| {
        let tail = rows[i][from..].iter().zip(rest);
        let tail: f32 = tail.map(|(value, user)| value.wide() * user).sum();
        add_up(kernel.store(sums[i])) + tail
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

/// 2^112, the difference of the exponents' offsets.
const REBIAS: f32 = f32::from_bits(0x7780_0000);

/// The f32 of an f16's bits, exact for finite values, in operations that vectorise.
#[inline(always)]
fn wide_f16(value: f16) -> f32 {
    let bits = u32::from(value.to_bits());
    let size = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
    f32::from_bits(size.to_bits() | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Half floats are widened by the kernel; products and sums differ by fused roundings alone.
    #[test]
    fn float_scores_are_the_same_on_every_kernel() {
        struct Scores<'a, T>([&'a [T]; ROWS], UserVector<'a>);
        impl<T: Stored> Work for Scores<'_, T> {
            type Output = [f32; ROWS];
            #[inline(always)]
            fn run<K: Kernel>(self, kernel: K) -> [f32; ROWS] {
                score_floats(kernel, self.0, &self.1)
            }
        }
        fn check<T: Stored>(rows: [&[T]; ROWS], user: &[f32]) {
            let of = || Scores(rows, UserVector::floats(user));
            let (plain, dispatched) = (of().run(Portable), dispatch(of()));
            for ((row, plain), dispatched) in rows.into_iter().zip(plain).zip(dispatched) {
                let products = row.iter().zip(user);
                let products = products.map(|(a, b)| f64::from(a.wide()) * f64::from(*b));
                let (exact, size) = products.fold((0.0, 0.0), |(sum, size), product| {
                    (sum + product, size + product.abs())
                });
                for score in [plain, dispatched] {
                    assert!(
                        (f64::from(score) - exact).abs() <= 1e-6 * size,
                        "{score} {exact}"
                    );
                }
            }
        }
        for dim in [1, 15, 16, 17, 128, 500] {
            let value = |i: usize| (i * 37 % 251) as f32 / 251.0 - 0.5;
            let values: Vec<f32> = (0..ROWS * dim).map(value).collect();
            // From the smallest subnormal half float up.
            let tiny = |(i, v): (usize, &f32)| f16::from_f32(v * 0.5f32.powi(i as i32 % 26));
            let halves: Vec<f16> = values.iter().enumerate().map(tiny).collect();
            let user: Vec<f32> = (0..dim).map(|i| value(i * 7 + 3)).collect();
            check(std::array::from_fn(|i| &values[i * dim..][..dim]), &user);
            check(std::array::from_fn(|i| &halves[i * dim..][..dim]), &user);
        }
    }
}
