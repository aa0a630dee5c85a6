//! Where the time of batches went: summed over the nodes of one op that are computed in the same way.

use std::time::Duration;

use crate::backend::NodeTime;

/// The nodes of one op that are computed in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileRow {
    /// The op's name; `waiting` for what devices do not account for to any node: threads that wait for each other, copies.
    pub op: &'static str,
    /// With what it is computed: format and kernel of a matrix product.
    pub how: String,
    /// How often a node ran.
    pub calls: u64,
    /// Bytes of weights that were read, each node's once a batch.
    pub weight_bytes: u64,
    /// The time taken.
    pub time: Duration,
}

/// Times of some batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    rows: Vec<ProfileRow>,
    total: Duration,
}

impl Profile {
    /// A batch that took `total`; its nodes follow.
    pub fn begin_batch(&mut self, total: Duration) {
        self.total += total;
    }

    /// Account for a node.
    pub fn add(&mut self, node: &NodeTime) {
        // A model has a dozen ops and a few formats: a search is as fast as a map.
        let at = self.rows.iter().position(|r| r.op == node.op && r.how == node.how).unwrap_or_else(|| {
            let how = node.how.to_owned();
            let row = ProfileRow { op: node.op, how, calls: 0, weight_bytes: 0, time: Duration::ZERO };
            self.rows.push(row);
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.calls += 1;
        row.weight_bytes += node.weight_bytes;
        row.time += node.time;
    }

    /// The time of all batches.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The rows, the longest first; what no node accounts for is one of them.
    pub fn rows(&self) -> Vec<ProfileRow> {
        let mut rows = self.rows.clone();
        let of_nodes: Duration = rows.iter().map(|r| r.time).sum();
        let waiting = self.total.saturating_sub(of_nodes);
        rows.push(ProfileRow { op: "waiting", how: String::new(), calls: 0, weight_bytes: 0, time: waiting });
        rows.sort_by_key(|r| std::cmp::Reverse(r.time));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_computed_in_the_same_way_are_one_row_and_the_rest_is_waiting() {
        let ms = Duration::from_millis;
        let mut profile = Profile::default();
        let node = |op, how, time| NodeTime { op, how, weight_bytes: 10, time: ms(time) };
        for _ in 0..2 {
            profile.begin_batch(ms(100));
            profile.add(&node("matmul", "Q4_K", 30));
            profile.add(&node("matmul", "Q6_K", 15));
            profile.add(&node("matmul", "Q4_K", 15));
        }
        let rows = profile.rows();
        let told: Vec<_> =
            rows.iter().map(|r| (r.op, r.how.as_str(), r.calls, r.weight_bytes, r.time)).collect();
        assert_eq!(
            told,
            [
                ("matmul", "Q4_K", 4, 40, ms(90)),
                ("waiting", "", 0, 0, ms(80)),
                ("matmul", "Q6_K", 2, 20, ms(30))
            ]
        );
        assert_eq!(profile.total(), ms(200));
    }
}
