//! Q4_K.

use chaski_gguf::block::q4_k::BlockQ4K;

use super::superblock::{Superblock, twice};
use super::tile::Weights;
use chaski_gguf::block::scales;

impl Weights for BlockQ4K {
    type Unpacked = Superblock;

    #[inline]
    fn unpack(&self) -> Superblock {
        let mut q = [0; 256];
        for (q, qs) in q.as_chunks_mut::<64>().0.iter_mut().zip(self.qs.as_chunks::<32>().0) {
            for j in 0..32 {
                q[j] = (qs[j] & 15) as i8;
                q[32 + j] = (qs[j] >> 4) as i8;
            }
        }
        let (scales, mins) = scales::unpack(&self.scales);
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        Superblock { d, dmin, q, scales: twice(scales), mins: twice(mins) }
    }
}
