//! Attention.

mod columns;
mod floats;
mod rows;
mod softmax;

use chaski_gguf::block::bf16::Bf16Le;
use chaski_gguf::block::f16::F16Le;
use chaski_gguf::block::iq4_nl::BlockIq4Nl;
use chaski_gguf::block::plain::F32Le;
use chaski_gguf::block::q4_0::BlockQ4_0;
use chaski_gguf::block::q4_1::BlockQ4_1;
use chaski_gguf::block::q5_0::BlockQ5_0;
use chaski_gguf::block::q5_1::BlockQ5_1;
use chaski_gguf::block::q8_0::BlockQ8_0;

use crate::cpu::attention::kernels::{Kernels, Keys, Values};
use crate::kv::KvFormat;

/// What the table holds.
pub(super) static KERNELS: Kernels = Kernels { keys, values, weigh: softmax::weigh, add: floats::add };

fn keys(format: KvFormat) -> &'static Keys {
    match format {
        KvFormat::F32 => const { &floats::keys::<F32Le>() },
        KvFormat::F16 => const { &floats::keys::<F16Le>() },
        KvFormat::BF16 => const { &floats::keys::<Bf16Le>() },
        KvFormat::Q8_0 => const { &floats::keys::<BlockQ8_0>() },
        KvFormat::Q4_0 => const { &floats::keys::<BlockQ4_0>() },
        KvFormat::Q4_1 => const { &floats::keys::<BlockQ4_1>() },
        KvFormat::Q5_0 => const { &floats::keys::<BlockQ5_0>() },
        KvFormat::Q5_1 => const { &floats::keys::<BlockQ5_1>() },
        KvFormat::Iq4Nl => const { &floats::keys::<BlockIq4Nl>() },
        KvFormat::F8E4M3 => const { &floats::keys::<rows::F8E4M3>() },
    }
}

fn values(format: KvFormat) -> &'static Values {
    match format {
        KvFormat::F32 => const { &floats::values::<F32Le>() },
        KvFormat::F16 => const { &floats::values::<F16Le>() },
        KvFormat::BF16 => const { &floats::values::<Bf16Le>() },
        KvFormat::Q8_0 => const { &floats::values::<BlockQ8_0>() },
        KvFormat::Q4_0 => const { &floats::values::<BlockQ4_0>() },
        KvFormat::Q4_1 => const { &floats::values::<BlockQ4_1>() },
        KvFormat::Q5_0 => const { &floats::values::<BlockQ5_0>() },
        KvFormat::Q5_1 => const { &floats::values::<BlockQ5_1>() },
        KvFormat::Iq4Nl => const { &floats::values::<BlockIq4Nl>() },
        KvFormat::F8E4M3 => const { &floats::values::<rows::F8E4M3>() },
    }
}
