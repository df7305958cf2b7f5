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
