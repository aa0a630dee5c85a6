//! Q3_K.

use chaski_gguf::block::q3_k::{BlockQ3K, unpack_scales};

use super::superblock::Superblock;
use super::tile::Weights;

impl Weights for BlockQ3K {
    type Unpacked = Superblock;

    #[inline]
    fn unpack(&self) -> Superblock {
        let mut q = [0; 256];
        for (h, (q, qs)) in q.as_chunks_mut::<128>().0.iter_mut().zip(self.qs.as_chunks::<32>().0).enumerate()
        {
            for j in 0..32 {
                for pair in 0..4 {
                    let third = self.hmask[j] >> (4 * h + pair) & 1;
                    q[32 * pair + j] = (qs[j] >> (2 * pair) & 3 | third << 2) as i8 - 4;
                }
            }
        }
        let scales = unpack_scales(&self.scales).map(i16::from);
        Superblock { d: self.d.to_f32(), dmin: 0.0, q, scales, mins: [0; 16] }
    }
}
