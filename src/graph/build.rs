//! Builds a graph node by node; every node's shapes are checked as it is added.

use super::{Activation, Graph, GraphError, Input, Node, NodeId, Op, RopePairs, RopeParams, WeightId};
use crate::kv::KvFormat;
use crate::tensor::{DType, Format, Shape};

type Result<T, E = GraphError> = std::result::Result<T, E>;

/// Builds a [`Graph`] for a batch of `n` tokens of which `n_out` rows go to the output.
pub struct Builder {
    graph: Graph,
    layer: Option<usize>,
    inputs: Vec<(Input, NodeId)>,
    weights: Vec<(WeightId, NodeId)>,
    n: usize,
    n_out: usize,
}

impl Builder {
    /// An empty graph for `n` tokens and `n_out` wanted rows.
    pub fn new(n: usize, n_out: usize) -> Builder {
        Builder { graph: Graph::default(), layer: None, inputs: Vec::new(), weights: Vec::new(), n, n_out }
    }
    /// Tokens of the batch.
    pub fn n_tokens(&self) -> usize {
        self.n
    }
    /// The nodes that follow belong to this layer.
    pub fn set_layer(&mut self, layer: Option<usize>) {
        self.layer = layer;
    }
    /// The graph, with `output` as its answer.
    pub fn finish(mut self, output: NodeId) -> Graph {
        self.graph.set_output(output);
        self.graph
    }
    /// The shape of a node.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.graph.node(id).shape
    }

    fn leaf(&mut self, op: Op, name: String, shape: Shape, dtype: DType, layer: Option<usize>) -> NodeId {
        self.graph.push(Node { op, inputs: Vec::new(), shape, dtype, name, layer })
    }

    /// What a batch brings; the same node each time it is asked for.
    pub fn input(&mut self, input: Input) -> NodeId {
        if let Some((_, id)) = self.inputs.iter().find(|(i, _)| *i == input) {
            return *id;
        }
        let (name, len) = match input {
            Input::Tokens => ("tokens", self.n),
            Input::Positions => ("positions", self.n),
            Input::Cells => ("cells", self.n),
            Input::OutRows => ("out_rows", self.n_out),
            Input::Visible { .. } => ("visible", 0),
        };
        let id = self.leaf(Op::Input(input), name.into(), Shape([len, 1, 1, 1]), DType::I32, None);
        self.inputs.push((input, id));
        id
    }

    /// A weight of the model; the same node each time it is asked for.
    pub fn weight(&mut self, id: WeightId, name: &str, shape: Shape, format: Format) -> NodeId {
        if let Some((_, node)) = self.weights.iter().find(|(w, _)| *w == id) {
            return *node;
        }
        let layer = self.layer;
        let node = self.leaf(Op::Weight(id), name.into(), shape, DType::Block(format), layer);
        self.weights.push((id, node));
        node
    }

    /// One layer's cache.
    pub fn kv(
        &mut self,
        layer: usize,
        k: KvFormat,
        v: KvFormat,
        n_head_kv: usize,
        d_k: usize,
        d_v: usize,
    ) -> NodeId {
        let op = Op::Kv { layer, k, v, n_head_kv, d_k, d_v };
        let at = self.layer;
        self.leaf(op, "kv".into(), Shape([0, 1, 1, 1]), DType::I32, at)
    }

    /// Add an op whose shape follows from its inputs.
    ///
    /// # Errors
    /// The inputs break the op's shape rule.
    pub fn add_op(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        let nodes: Vec<&Node> = inputs
            .iter()
            .map(|id| match op {
                // The rule looks at the cache itself, also where its write comes between.
                Op::Attention { .. } => self.graph.kv_leaf(*id).unwrap_or(*id),
                _ => *id,
            })
            .map(|id| self.graph.node(id))
            .collect();
        let (shape, dtype) = op.infer(&nodes).map_err(|why| GraphError { node: self.label(name), why })?;
        let node = Node { op, inputs: inputs.to_vec(), shape, dtype, name: name.into(), layer: self.layer };
        Ok(self.graph.push(node))
    }

    fn label(&self, name: &str) -> String {
        self.layer.map_or_else(|| name.into(), |l| format!("{name}-{l}"))
    }

    /// Rows of `table` by number. See [`Op::GetRows`].
    ///
    /// # Errors
    /// The ids are no integers.
    pub fn get_rows(&mut self, name: &str, table: NodeId, ids: NodeId) -> Result<NodeId> {
        self.add_op(name, Op::GetRows, &[table, ids])
    }
    /// See [`Op::MatMul`].
    ///
    /// # Errors
    /// The row lengths differ.
    pub fn matmul(&mut self, name: &str, w: NodeId, x: NodeId) -> Result<NodeId> {
        self.add_op(name, Op::MatMul, &[w, x])
    }
    /// See [`Op::RmsNorm`].
    ///
    /// # Errors
    /// The weight is not as long as a row.
    pub fn rms_norm(&mut self, name: &str, x: NodeId, weight: NodeId, eps: f32) -> Result<NodeId> {
        self.add_op(name, Op::RmsNorm { eps }, &[x, weight])
    }
    /// See [`Op::Add`].
    ///
    /// # Errors
    /// The shapes do not match.
    pub fn add(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.add_op(name, Op::Add, &[a, b])
    }
    /// See [`Op::Glu`].
    ///
    /// # Errors
    /// The shapes differ.
    pub fn glu(&mut self, name: &str, act: Activation, gate: NodeId, up: NodeId) -> Result<NodeId> {
        self.add_op(name, Op::Glu(act), &[gate, up])
    }
    /// The angles of every position of the batch. See [`Op::RopeTable`].
    ///
    /// # Errors
    /// An odd number of values, or a factor table of another length.
    pub fn rope_table(&mut self, params: RopeParams, factors: Option<NodeId>) -> Result<NodeId> {
        let positions = self.input(Input::Positions);
        let inputs: Vec<NodeId> = std::iter::once(positions).chain(factors).collect();
        self.add_op("rope_table", Op::RopeTable(params), &inputs)
    }
    /// See [`Op::Rope`].
    ///
    /// # Errors
    /// More values are turned than a head has.
    pub fn rope(&mut self, name: &str, pairs: RopePairs, x: NodeId, table: NodeId) -> Result<NodeId> {
        self.add_op(name, Op::Rope(pairs), &[x, table])
    }
    /// The same bytes as `shape`.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn view(&mut self, name: &str, x: NodeId, shape: &[usize]) -> Result<NodeId> {
        let (from, to) = (self.shape(x), Shape::new(shape));
        if from.len() != to.len() {
            return Err(GraphError { node: self.label(name), why: format!("{from} cannot be seen as {to}") });
        }
        let dtype = self.graph.node(x).dtype;
        let node =
            Node { op: Op::View, inputs: vec![x], shape: to, dtype, name: name.into(), layer: self.layer };
        Ok(self.graph.push(node))
    }
}
