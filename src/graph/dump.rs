//! A graph as text, a node a line.

use std::fmt;

use super::Graph;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.iter() {
            write!(
                f,
                "{:4} {:<20} {:<15} {:<8} {}",
                id.0,
                node.label(),
                node.op.name(),
                node.dtype,
                node.shape
            )?;
            for (i, input) in node.inputs.iter().enumerate() {
                write!(f, "{}{}", if i == 0 { "  <- " } else { ", " }, input.0)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
