//! Q2_K.

use chaski_gguf::block::q2_k::BlockQ2K;

use super::superblock::Superblock;
use super::tile::Weights;

impl Weights for BlockQ2K {
    type Unpacked = Superblock;

    #[inline]
    fn unpack(&self) -> Superblock {
        let mut q = [0; 256];
        for (q, qs) in q.as_chunks_mut::<128>().0.iter_mut().zip(self.qs.as_chunks::<32>().0) {
            for j in 0..32 {
                for pair in 0..4 {
                    q[32 * pair + j] = (qs[j] >> (2 * pair) & 3) as i8;
                }
            }
        }
        let scales = self.scales.map(|s| i16::from(s & 15));
        let mins = self.scales.map(|s| i16::from(s >> 4));
        Superblock { d: self.d.to_f32(), dmin: self.dmin.to_f32(), q, scales, mins }
    }
}
