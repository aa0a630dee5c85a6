//! Q6_K.

use chaski_gguf::block::q6_k::BlockQ6K;

use super::superblock::Superblock;
use super::tile::Weights;

impl Weights for BlockQ6K {
    type Unpacked = Superblock;

    #[inline]
    fn unpack(&self) -> Superblock {
        let mut q = [0; 256];
        let halves = self.ql.as_chunks::<64>().0.iter().zip(self.qh.as_chunks::<32>().0);
        for (q, (ql, qh)) in q.as_chunks_mut::<128>().0.iter_mut().zip(halves) {
            for j in 0..32 {
                q[j] = (ql[j] & 15 | (qh[j] & 3) << 4) as i8 - 32;
                q[32 + j] = (ql[32 + j] & 15 | (qh[j] >> 2 & 3) << 4) as i8 - 32;
                q[64 + j] = (ql[j] >> 4 | (qh[j] >> 4 & 3) << 4) as i8 - 32;
                q[96 + j] = (ql[32 + j] >> 4 | (qh[j] >> 6) << 4) as i8 - 32;
            }
        }
        let scales = self.scales.map(i16::from);
        Superblock { d: self.d.to_f32(), dmin: 0.0, q, scales, mins: [0; 16] }
    }
}
