//! What a batch brings, as the words that kernels read: `inputs` in the shaders.

use crate::backend::Inputs;
use crate::graph::{Graph, Input, NodeId, Op, RopeParams};

/// Words of what a token sees: the first position, the one after the last, and its spans from one number to another.
pub(crate) const VIEW_WORDS: usize = 4;

/// The angles of a batch's positions, computed by the host in double precision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Angles {
    /// The node that they are the result of.
    pub(crate) node: NodeId,
    frequencies: Vec<f64>,
    magnitude: f64,
}

impl Angles {
    pub(crate) fn new(node: NodeId, params: &RopeParams, factors: Option<&[f32]>) -> Angles {
        let (frequencies, magnitude) = params.frequencies(factors);
        Angles { node, frequencies, magnitude }
    }
}

/// Where everything lies that a plan's kernels read of a batch, in words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct InputsLayout {
    ids: Vec<(Input, usize, usize)>,
    angles: Vec<(Angles, usize)>,
    windows: Vec<(Option<u32>, usize)>,
    spans: usize,
}

impl InputsLayout {
    /// For a graph of `n` tokens; `angles` are those that the plan's nodes want.
    pub(crate) fn new(graph: &Graph, n: usize, angles: Vec<Angles>) -> InputsLayout {
        let mut layout = InputsLayout::default();
        let mut end = 0;
        let mut take = |words: usize| {
            let at = end;
            // Aligned, so that a kernel may read vectors.
            end += words.next_multiple_of(4);
            at
        };
        for node in graph.nodes() {
            match node.op {
                Op::Input(Input::Visible { window }) if layout.windows.iter().all(|(w, _)| *w != window) => {
                    layout.windows.push((window, take(n * VIEW_WORDS)));
                }
                Op::Input(Input::Visible { .. }) => {}
                Op::Input(input) => layout.ids.push((input, take(node.shape.len()), node.shape.len())),
                _ => {}
            }
        }
        for angles in angles {
            let words = n * angles.frequencies.len() * 2;
            layout.angles.push((angles, take(words)));
        }
        layout.spans = end;
        layout
    }

    /// Where integers of the batch lie.
    pub(crate) fn ids(&self, input: Input) -> Option<usize> {
        self.ids.iter().find(|(i, ..)| *i == input).map(|(_, at, _)| *at)
    }
    /// Where it lies what each token sees.
    pub(crate) fn views(&self, window: Option<u32>) -> Option<usize> {
        self.windows.iter().find(|(w, _)| *w == window).map(|(_, at)| *at)
    }
    /// Where the angles of a node lie.
    pub(crate) fn angles(&self, node: NodeId) -> Option<usize> {
        self.angles.iter().find(|(angles, _)| angles.node == node).map(|(_, at)| *at)
    }
    /// Where spans lie, numbered over all windows and lists: three words each, the first cell, how many, and the position that
    /// the first one holds.
    pub(crate) fn spans(&self) -> usize {
        self.spans
    }

    /// The words of a batch.
    pub(crate) fn fill(&self, batch: &Inputs, words: &mut Vec<u32>) {
        words.clear();
        words.resize(self.spans, 0);
        for (input, at, len) in &self.ids {
            let ids = match input {
                Input::Tokens => &batch.tokens,
                Input::Positions => &batch.positions,
                Input::Cells => &batch.cells,
                Input::OutRows => &batch.out_rows,
                Input::Visible { .. } => continue,
            };
            for (word, id) in words[*at..*at + *len].iter_mut().zip(ids) {
                *word = *id as u32;
            }
        }
        for (angles, at) in &self.angles {
            let row = angles.frequencies.len() * 2;
            for (words, position) in words[*at..].chunks_exact_mut(row.max(1)).zip(&batch.positions) {
                for (pair, freq) in words.as_chunks_mut::<2>().0.iter_mut().zip(&angles.frequencies) {
                    let (sin, cos) = (f64::from(*position) * freq).sin_cos();
                    *pair = [cos, sin].map(|x| ((x * angles.magnitude) as f32).to_bits());
                }
            }
        }
        let mut first = 0;
        for (window, at) in &self.windows {
            let Some((_, visible)) = batch.visible.iter().find(|(w, _)| w == window) else { continue };
            for (words, view) in words[*at..].as_chunks_mut::<VIEW_WORDS>().0.iter_mut().zip(&visible.tokens)
            {
                let list = view.list as usize;
                let bound = |i: usize| visible.lists.get(i).copied().unwrap_or(0);
                *words = [view.from, view.to, first + bound(list), first + bound(list + 1)];
            }
            words.extend(visible.spans.iter().flat_map(|span| [span.start, span.len, span.pos]));
            first += visible.spans.len() as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Builder;
    use crate::kv::{Span, View, Visible};

    #[test]
    fn a_batch_is_laid_out_as_the_shaders_read_it() {
        let mut b = Builder::new(2, 1);
        let tokens = b.input(Input::Tokens);
        b.input(Input::OutRows);
        b.input(Input::Visible { window: None });
        let graph = b.finish(tokens);
        let layout = InputsLayout::new(&graph, 2, Vec::new());
        assert_eq!((layout.ids(Input::Tokens), layout.ids(Input::OutRows)), (Some(0), Some(4)));
        assert_eq!(
            (layout.ids(Input::Cells), layout.views(None), layout.views(Some(4))),
            (None, Some(8), None)
        );
        let visible = Visible {
            spans: vec![Span { start: 64, len: 5, pos: 0 }, Span { start: 0, len: 9, pos: 3 }],
            lists: vec![0, 1, 2],
            tokens: vec![View { list: 1, from: 2, to: 12 }, View { list: 0, from: 0, to: 5 }],
        };
        let batch = Inputs {
            tokens: vec![7, 8],
            out_rows: vec![1],
            visible: vec![(None, visible)],
            ..Inputs::default()
        };
        let mut words = Vec::new();
        layout.fill(&batch, &mut words);
        assert_eq!(words, [7, 8, 0, 0, 1, 0, 0, 0, 2, 12, 1, 2, 0, 5, 0, 1, 64, 5, 0, 0, 9, 3]);
    }
}
