//! The weights of a model: declared by name and shape, checked against the file.

use std::collections::HashMap;

use chaski_gguf::Gguf;

use super::{ModelError, Result};
use crate::graph::WeightId;
use crate::tensor::{Format, Shape};

/// A weight that the graph may use.
#[derive(Debug, Clone)]
pub struct WeightDecl {
    /// The tensor's name.
    pub name: String,
    /// Its shape, the row length first.
    pub shape: Shape,
    /// Its format.
    pub format: Format,
    /// Its index in the file.
    pub index: usize,
    /// The layer it belongs to; none for the embedding and the output.
    pub layer: Option<usize>,
    /// Its size in the file.
    pub bytes: u64,
}

/// A weight that an architecture asks for, whether a file holds it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedWeight {
    /// The tensor's name.
    pub name: String,
    /// The shape that it must have, the row length first.
    pub shape: Shape,
    /// Whether the model cannot run without it.
    pub required: bool,
}

/// Every declared weight that the file holds.
#[derive(Debug, Default)]
pub struct Weights {
    list: Vec<WeightDecl>,
    by_name: HashMap<String, WeightId>,
}

impl Weights {
    /// In the order of their ids.
    pub fn list(&self) -> &[WeightDecl] {
        &self.list
    }
    /// By name.
    pub fn get(&self, name: &str) -> Option<(WeightId, &WeightDecl)> {
        let id = *self.by_name.get(name)?;
        Some((id, &self.list[id.0 as usize]))
    }
}

/// Declares weights against a file.
pub struct Declare<'a> {
    file: &'a Gguf,
    index: HashMap<&'a str, usize>,
    layer: Option<usize>,
    weights: Weights,
    /// Where nothing is looked for in the file: what was asked for.
    wanted: Option<Vec<WantedWeight>>,
}

impl<'a> Declare<'a> {
    /// Nothing declared yet.
    pub fn new(file: &'a Gguf) -> Declare<'a> {
        let index = file.tensors().iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        Declare { file, index, layer: None, weights: Weights::default(), wanted: None }
    }
    /// As [`Declare::new`], but what is declared is only listed: every weight counts as present.
    pub(super) fn listing(file: &'a Gguf) -> Declare<'a> {
        Declare { wanted: Some(Vec::new()), ..Declare::new(file) }
    }
    /// The names that follow are of this layer: `attn_q.weight` means `blk.3.attn_q.weight`.
    pub fn set_layer(&mut self, layer: Option<usize>) {
        self.layer = layer;
    }
    /// A weight that must be there.
    ///
    /// # Errors
    /// The file does not hold it, or in another shape or an unusable format.
    pub fn need(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        if self.look_for(name, shape, true)? {
            return Ok(());
        }
        Err(ModelError::Tensor { name: full_name(self.layer, name), why: "is missing".into() })
    }
    /// A weight that may be there; whether it is.
    ///
    /// # Errors
    /// The file holds it in another shape or an unusable format.
    pub fn optional(&mut self, name: &str, shape: &[usize]) -> Result<bool> {
        self.look_for(name, shape, false)
    }

    fn look_for(&mut self, name: &str, shape: &[usize], required: bool) -> Result<bool> {
        let name = full_name(self.layer, name);
        if let Some(wanted) = &mut self.wanted {
            wanted.push(WantedWeight { name, shape: Shape::new(shape), required });
            return Ok(true);
        }
        let Some(&index) = self.index.get(name.as_str()) else { return Ok(false) };
        let info = &self.file.tensors()[index];
        let shape = Shape::new(shape);
        let found = info.shape.map(|d| usize::try_from(d).unwrap_or(usize::MAX));
        if found != shape.0 {
            let why = format!("has shape {}, the metadata asks for {shape}", Shape(found));
            return Err(ModelError::Tensor { name, why });
        }
        if matches!(info.format, Format::I8 | Format::I16 | Format::I32 | Format::I64) {
            let why = format!("holds integers ({}), which are no weights", info.format);
            return Err(ModelError::Tensor { name, why });
        }
        let id = WeightId(self.weights.list.len() as u32);
        let decl = WeightDecl {
            name: name.clone(),
            shape,
            format: info.format,
            index,
            layer: self.layer,
            bytes: info.bytes,
        };
        self.weights.list.push(decl);
        self.weights.by_name.insert(name, id);
        Ok(true)
    }
    /// What was asked for, if it was only listed.
    pub(super) fn into_wanted(self) -> Vec<WantedWeight> {
        self.wanted.unwrap_or_default()
    }
    /// What was declared.
    pub fn finish(self) -> Weights {
        self.weights
    }
}

/// A weight's name in the file: `blk.3.attn_q.weight`, or as it is outside of the layers.
pub fn full_name(layer: Option<usize>, name: &str) -> String {
    layer.map_or_else(|| name.into(), |l| format!("blk.{l}.{name}"))
}
