//! IQ4_XS.

use chaski_gguf::block::iq4_xs::BlockIq4Xs;

use super::block32::nibbles;
use super::superblock::{Superblock, twice};
use super::tile::Weights;
use chaski_gguf::block::iq4_nl::CODEBOOK;

impl Weights for BlockIq4Xs {
    type Unpacked = Superblock;

    #[inline]
    fn unpack(&self) -> Superblock {
        let mut q = [0; 256];
        for (q, qs) in q.as_chunks_mut::<32>().0.iter_mut().zip(self.qs.as_chunks::<16>().0) {
            *q = nibbles(qs).map(|q| CODEBOOK[usize::from(q)]);
        }
        Superblock { d: self.d.to_f32(), dmin: 0.0, q, scales: twice(self.scales()), mins: [0; 16] }
    }
}
