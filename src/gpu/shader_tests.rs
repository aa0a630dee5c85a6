//! Every kernel of the ops in every form: valid, with the bindings that its pipeline has, and translatable to Metal and
//! Direct3D. No GPU is needed.

use naga::back::{hlsl, msl};
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

use super::cache::{CacheRow, CacheUse};
use super::device::Caps;
use super::pipeline;
use super::shader::{self, KernelKey};
use crate::kv::KvFormat;

fn keys() -> Vec<KernelKey> {
    let wg = |op| KernelKey::new(op).with("WG", 256);
    let mut keys: Vec<KernelKey> =
        ["add", "add_row", "copy_in", "rms_norm", "softmax", "sum_to_one", "top_k", "weighted_sum"]
            .map(wg)
            .into();
    keys.extend(["silu", "gelu_tanh"].map(|act| wg("glu").lib(act)));
    keys.extend(["rope_adjacent", "rope_halves"].map(|pairs| wg("rope").lib(pairs)));
    for ids in ["ids_inputs", "ids_arena"] {
        keys.extend(["gather", "get_computed_rows"].map(|op| wg(op).lib(ids)));
    }
    keys.extend([16, 64, 4096].map(|len| wg("hadamard").with("LEN", len)));
    for row in CacheRow::all() {
        let writes = CacheUse::Writes(row.format);
        for cache in ["cache_k", "cache_v"] {
            keys.push(wg("kv_write").lib("ids_inputs").lib(cache).cache(writes).with("DIM", 40));
        }
        for (pairs, norms, vectors) in
            [("rope_adjacent", 0, &["vectors_none"][..]), ("rope_halves", 1, &["vectors", "vectors_one"])]
        {
            let key = KernelKey::new("rope_write").with("WG", 64).with("DIM", 80).with("Q_HEADS", 6);
            let key = key.with("KV_HEADS", 2).with("NORM_Q", norms).with("NORM_K", norms);
            let key = key.lib("cache_both").cache(writes).lib(pairs);
            keys.push(vectors.iter().fold(key, |key, lib| key.lib(lib)));
        }
        for (heads, group, other) in [
            ("heads_1", 1, row.format),
            ("heads_2", 2, KvFormat::F16),
            ("heads_4", 7, KvFormat::Q8_0),
            ("heads_4", 4, KvFormat::Iq4Nl),
        ] {
            for (k, v) in [(row.format, other), (other, row.format)] {
                let key = KernelKey::new("attention").with("WG", 64).with("KV_HEADS", 2).with("GROUP", group);
                let key = key.with("CHUNKS", group.div_ceil(4)).with("DK", 192).with("DV", 260);
                keys.push(key.lib(heads).cache(CacheUse::Reads(k, v)));
            }
        }
    }
    let merge = wg("attention_merge").with("KV_HEADS", 2).with("GROUP", 7).with("CHUNKS", 2).with("HEADS", 4);
    keys.push(merge.with("DK", 64).with("DV", 64));
    keys
}

fn caps() -> [Caps; 2] {
    [Caps::default(), Caps { subgroups: true, ..Caps::default() }]
}

#[test]
fn every_kernel_is_valid_and_translates_to_metal_and_direct3d() {
    for key in keys() {
        for caps in caps() {
            let (text, _) = shader::assemble(&key, caps).unwrap();
            let module = naga::front::wgsl::parse_str(&text)
                .unwrap_or_else(|e| panic!("{key:?}\n{}", e.emit_to_string(&text)));
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
            validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
            let info = validator
                .validate(&module)
                .unwrap_or_else(|e| panic!("{key:?}\n{}", e.emit_to_string(&text)));
            let options = msl::Options { lang_version: (2, 4), ..msl::Options::default() };
            let metal = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
            assert!(metal.is_ok(), "{key:?}: {metal:?}");
            let options = hlsl::Options {
                shader_model: hlsl::ShaderModel::V6_6,
                immediates_target: Some(hlsl::BindTarget::default()),
                ..hlsl::Options::default()
            };
            let mut out = String::new();
            let pipeline = hlsl::PipelineOptions::default();
            let written = hlsl::Writer::new(&mut out, &options, &pipeline).write(&module, &info, None);
            assert!(written.is_ok(), "{key:?}: {:?}", written.err());
        }
    }
}

#[test]
fn every_kernel_binds_what_its_pipeline_has() {
    let (device, _) = wgpu::Device::noop(&wgpu::DeviceDescriptor {
        required_features: wgpu::Features::IMMEDIATES | wgpu::Features::SUBGROUP,
        required_limits: wgpu::Limits {
            max_immediate_size: super::adapter::IMMEDIATE_BYTES,
            max_storage_buffers_per_shader_stage: super::adapter::STORAGE_BUFFERS,
            ..wgpu::Limits::default()
        },
        ..wgpu::DeviceDescriptor::default()
    });
    for key in keys() {
        for caps in caps() {
            let (text, bindings) = shader::assemble(&key, caps).unwrap();
            let layout = pipeline::layout_for_tests(&device, bindings);
            let compiled = pipeline::compile(&device, &key, text, &layout, true);
            assert!(compiled.is_ok(), "{key:?}: {:?}", compiled.err());
        }
    }
}

#[test]
fn a_kernel_that_does_not_exist_is_an_error() {
    assert!(shader::assemble(&KernelKey::new("no_such_op"), Caps::default()).is_err());
    assert!(shader::assemble(&KernelKey::new("add").lib("no_such_lib"), Caps::default()).is_err());
}
