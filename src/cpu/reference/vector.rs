//! Functions of one or two vectors.

use half::{bf16, f16};

use super::exact::{accumulate, sum as sum_lanes};
use crate::cpu::hadamard::transform as hadamard;
use crate::cpu::math::exp;
use crate::cpu::vector::Vector;

/// What the table holds.
pub(super) static VECTOR: Vector =
    Vector { dot, dot_f16, dot_bf16, axpy, axpy_f16, axpy_bf16, scale, max, sum, exp_sum, hadamard };

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    accumulate(&mut lanes, a, b);
    sum_lanes(&lanes)
}

fn dot_as<T: Copy>(a: &[f32], b: &[T], value: impl Fn(T) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let mut values = [0.0; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (value_b, &b) in values.iter_mut().zip(b) {
            *value_b = value(b);
        }
        accumulate(&mut lanes, a, &values[..b.len()]);
    }
    sum_lanes(&lanes)
}

fn dot_f16(a: &[f32], b: &[f16]) -> f32 {
    dot_as(a, b, f16::to_f32)
}

fn dot_bf16(a: &[f32], b: &[bf16]) -> f32 {
    dot_as(a, b, bf16::to_f32)
}

fn axpy(acc: &mut [f32], a: f32, x: &[f32]) {
    for (acc, x) in acc.iter_mut().zip(x) {
        *acc += a * x;
    }
}

fn axpy_f16(acc: &mut [f32], a: f32, x: &[f16]) {
    for (acc, x) in acc.iter_mut().zip(x) {
        *acc += a * x.to_f32();
    }
}

fn axpy_bf16(acc: &mut [f32], a: f32, x: &[bf16]) {
    for (acc, x) in acc.iter_mut().zip(x) {
        *acc += a * x.to_f32();
    }
}

fn scale(x: &mut [f32], a: f32) {
    for x in x {
        *x *= a;
    }
}

fn max(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let (chunks, tail) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += x;
    }
    sum_lanes(&lanes)
}

fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    for x in x.iter_mut() {
        *x = exp(*x - max);
    }
    sum(x)
}
