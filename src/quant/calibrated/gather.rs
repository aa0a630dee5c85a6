//! What meets the matrices of a layer, summed up.

use std::collections::HashMap;

use super::moments::Moments;
use crate::engine::Observed;
use crate::quant::QuantError;

/// The moments of a layer: a matrix of them for each distinct input and expert, and whose they are.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) moments: Vec<Vec<Moments>>,
    pub(super) of: HashMap<String, usize>,
    /// The graph's value that each of the moments is of; none for experts.
    inputs: Vec<Option<usize>>,
    /// The matrix by which each is told: others of the same input see the same.
    leaders: Vec<String>,
}

impl Gathered {
    /// Take in what meets a matrix, unless another matrix of the same input has.
    pub(super) fn add(
        &mut self,
        seen: &Observed<'_>,
        other: Option<&[f32]>,
        cross: bool,
    ) -> Result<(), QuantError> {
        let experts = seen.experts.as_ref().map_or(1, |e| e.count);
        let at = if let Some(at) = self.of.get(seen.weight) {
            *at
        } else {
            let shared =
                self.inputs.iter().position(|input| seen.experts.is_none() && *input == Some(seen.input));
            let at = shared.unwrap_or_else(|| {
                self.inputs.push(seen.experts.is_none().then_some(seen.input));
                self.moments.push((0..experts).map(|_| Moments::new(seen.row, cross)).collect());
                self.leaders.push(seen.weight.to_owned());
                self.moments.len() - 1
            });
            self.of.insert(seen.weight.to_owned(), at);
            at
        };
        if self.leaders.get(at).is_none_or(|leader| leader != seen.weight) {
            return Ok(());
        }
        let Some(moments) = self.moments.get_mut(at) else { return Ok(()) };
        match &seen.experts {
            None => moments.iter_mut().for_each(|m| m.add(seen.x, other)),
            Some(chosen) => {
                let mut of: Vec<Vec<f32>> = vec![Vec::new(); experts];
                for (t, ids) in chosen.ids.chunks_exact(chosen.slots.max(1)).enumerate() {
                    for (slot, id) in ids.iter().enumerate() {
                        let at = t * chosen.rows + slot % chosen.rows.max(1);
                        let row = seen.x.get(at * seen.row..(at + 1) * seen.row);
                        if let (Some(row), Some(of)) =
                            (row, usize::try_from(*id).ok().and_then(|id| of.get_mut(id)))
                        {
                            of.extend_from_slice(row);
                        }
                    }
                }
                moments.iter_mut().zip(&of).for_each(|(m, x)| m.add(x, None));
            }
        }
        if moments.iter().any(|m| m.not_finite) {
            let why = format!("what meets tensor {} in the calibration text is not finite", seen.weight);
            return Err(QuantError::Calibration { why });
        }
        Ok(())
    }
}
