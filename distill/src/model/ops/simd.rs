//! The widest vector instructions of this processor, chosen at run time.

/// Runs `f` compiled for the widest vector instructions that are there, so that the compiler
/// vectorises its loops with them. What `f` calls must be inlined into it to gain anything:
/// `#[inline(always)]` on the closure and on the functions in its inner loops.
///
/// The compiler does not fuse multiplications and additions by itself, so an elementwise loop gives
/// the same bits whichever instructions are chosen.
#[inline]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = pulp::x86::V4::try_new() {
            return simd.vectorize(f);
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(f);
        }
    }
    f()
}

/// Values per step of the blocked loops: two registers of AVX-512, four of AVX2, eight of NEON.
pub(crate) const LANES: usize = 32;

/// Sum of products.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = (a_chunks.remainder().iter().zip(b_chunks.remainder()))
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = a.mul_add(*b, *lane);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Sum of values.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `y += scale * x`.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], x: &[f32], scale: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = scale.mul_add(*x, *y);
    }
}

/// `y [columns] += x [k] · m [k, stride]` (the first `columns` of each row of `m`).
#[inline(always)]
pub(crate) fn add_product(y: &mut [f32], x: &[f32], m: &[f32], stride: usize) {
    let columns = y.len();
    let mut blocks = y.chunks_exact_mut(LANES);
    let mut column = 0;
    for block in &mut blocks {
        let mut sums = [0f32; LANES];
        for (x, row) in x.iter().zip(m.chunks(stride)) {
            if let Some(row) = row.get(column..column + LANES) {
                for (sum, m) in sums.iter_mut().zip(row) {
                    *sum = x.mul_add(*m, *sum);
                }
            }
        }
        for (y, sum) in block.iter_mut().zip(sums) {
            *y += sum;
        }
        column += LANES;
    }
    let rest = blocks.into_remainder();
    for (x, row) in x.iter().zip(m.chunks(stride)) {
        if let Some(row) = row.get(column..columns) {
            add_scaled(rest, row, *x);
        }
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    (1.0 + super::exp::exp(-x)).recip()
}
