//! Sums and updates of vectors: the inner loops of this folder. Sixteen partial sums and no fused operations, so that the
//! bits are the same whatever instructions the machine has.

const LANES: usize = 16;

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a16, a_rest) = a.as_chunks::<LANES>();
    let (b16, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a16.iter().zip(b16) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let mut half = [0f32; LANES / 2];
    for lane in 0..LANES / 2 {
        half[lane] = sums[lane] + sums[lane + LANES / 2];
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    half.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_scaled_body(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

#[inline(always)]
fn dots_body(a: &[f32], rows: &[f32], out: &mut [f32]) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(a.len().max(1))) {
        *out += dot_body(a, row);
    }
}

/// A function with forms for wider vectors, all with the same bits.
macro_rules! widest {
    ($(#[$doc:meta])* $name:ident = $body:ident, $wide:ident ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        #[cfg(target_arch = "x86_64")]
        mod $wide {
            #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
            pub(super) fn avx512($($arg: $ty),*) $(-> $ret)? {
                super::$body($($arg),*)
            }
            #[target_feature(enable = "avx2")]
            pub(super) fn avx2($($arg: $ty),*) $(-> $ret)? {
                super::$body($($arg),*)
            }
        }

        $(#[$doc])*
        #[inline]
        pub(super) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                let wide = std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl");
                if wide {
                    // SAFETY: the machine has the instructions, as just asked.
                    return unsafe { $wide::avx512($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { $wide::avx2($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

widest! {
    /// `sum a b`.
    dot = dot_body, dot_wide (a: &[f32], b: &[f32]) -> f32
}
widest! {
    /// `y += factor * x`.
    add_scaled = add_scaled_body, add_scaled_wide (y: &mut [f32], factor: f32, x: &[f32])
}
widest! {
    /// Add to each of `out` the product of `a` with one of the `rows`, which lie one behind the other.
    dots = dots_body, dots_wide (a: &[f32], rows: &[f32], out: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_forms_have_the_bits_of_the_plain_ones() {
        for n in [0, 1, 15, 16, 17, 100, 256] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..3 * n).map(|i| (i as f32 * 0.71).cos()).collect();
            assert_eq!(dot(&a, &b[..n]).to_bits(), dot_body(&a, &b[..n]).to_bits());
            let (mut y, mut z) = (b[..n].to_vec(), b[..n].to_vec());
            add_scaled(&mut y, 1.5, &a);
            add_scaled_body(&mut z, 1.5, &a);
            assert_eq!(y, z);
            let (mut y, mut z) = ([1.0; 3], [1.0; 3]);
            dots(&a, &b, &mut y);
            dots_body(&a, &b, &mut z);
            assert_eq!(y, z);
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b[..n])) - exact).abs() < 1e-4);
        }
    }
}
