//! The executor: places the nodes of a graph, lowers it for its devices, gives every value its
//! memory, and runs the segments in order.

mod lower;
mod memory;
mod place;
mod profile;
mod run;
mod steps;

pub use lower::{Lowered, lower};
pub use memory::{Layout, layout};
pub use place::{Homes, Placement, place};
pub use profile::{Profile, ProfileRow};
pub use run::{Device, Prepared, prepare};
