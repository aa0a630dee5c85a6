//! Which GPUs there are, and which one is taken.

use wgpu::{Backends, DeviceType, Features, Instance, InstanceDescriptor, MemoryBudgetThresholds};

use super::GpuError;

/// Storage buffers that a kernel may read and write at once.
pub(crate) const STORAGE_BUFFERS: u32 = 12;
/// Bytes of immediates that a kernel may take: what DX12 and every Vulkan driver have.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;
/// Threads of a workgroup, at most.
pub(crate) const WORKGROUP: u32 = 256;
/// Bytes that the threads of a workgroup share, at most: WebGPU's own limit.
pub(crate) const WORKGROUP_BYTES: u32 = 16 << 10;
/// Memory above this share of what the driver says to be free is not asked for.
const FULL_PERCENT: u8 = 95;

/// What kernels make use of where it is there.
const TIERS: &[(Features, &str)] = &[(Features::SUBGROUP, "subgroups"), (Features::SHADER_F16, "f16")];

/// How the GPU is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// Which adapter: its number in [`adapters`], or a part of its name in any case. None: the best one that is no software.
    pub device: Option<String>,
    /// Whether a software adapter may be taken where none was named.
    pub software: bool,
    /// Do without what not every GPU has: subgroups, 16-bit floats in shaders.
    pub baseline: bool,
    /// Activations are not rounded to 8 bits.
    pub exact: bool,
    /// Kernels guard their accesses and loops, as they do in debug builds: for tests.
    pub checked: bool,
    /// Bytes that kernels reach of a buffer, where that is to be less than what the device allows: for tests of what is divided
    /// then, or stays on the CPU.
    pub max_binding: Option<usize>,
}

/// What kind of device an adapter is, from the best to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A card with memory of its own.
    Discrete,
    /// A part of the processor, which shares its memory.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// The driver does not say.
    Other,
    /// A program on the CPU that acts as a GPU.
    Software,
}

impl Kind {
    /// In a word, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Discrete => "discrete",
            Kind::Integrated => "integrated",
            Kind::Virtual => "virtual",
            Kind::Other => "unknown",
            Kind::Software => "software",
        }
    }
}

/// An adapter of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// Its place in the list: [`GpuOptions::device`] takes it.
    pub number: usize,
    /// What the driver calls it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Through what it is reached: `vulkan`, `metal`, `dx12`.
    pub api: String,
    /// The driver, with its version.
    pub driver: String,
    /// Bytes of its memory that are free, where that can be found out.
    pub memory: Option<u64>,
    /// What it can do beyond what all of them can, in words.
    pub tiers: Vec<&'static str>,
    /// Why it cannot be used, if it cannot.
    pub declined: Option<String>,
}

pub(crate) fn instance() -> Instance {
    let mut with = InstanceDescriptor::new_without_display_handle();
    with.backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    with.memory_budget_thresholds =
        MemoryBudgetThresholds { for_resource_creation: Some(FULL_PERCENT), for_device_loss: None };
    if !cfg!(debug_assertions) {
        with.flags = wgpu::InstanceFlags::empty();
    }
    Instance::new(with)
}

/// Every adapter of this machine, the best first: discrete before integrated, software last.
pub fn adapters() -> Vec<Adapter> {
    let found = found(&instance());
    found.into_iter().map(|(_, described)| described).collect()
}

fn found(instance: &Instance) -> Vec<(wgpu::Adapter, Adapter)> {
    let all = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    let mut all: Vec<_> = all
        .into_iter()
        .map(|adapter| {
            let described = describe(&adapter);
            (adapter, described)
        })
        .collect();
    // A stable sort: among equals the system's order holds. One card may be reached in two ways; Vulkan has more to offer.
    all.sort_by_key(|(_, a)| (a.declined.is_some(), a.kind, a.api != "vulkan"));
    for (number, (_, adapter)) in all.iter_mut().enumerate() {
        adapter.number = number;
    }
    all
}

fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let info = adapter.get_info();
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => Kind::Discrete,
        DeviceType::IntegratedGpu => Kind::Integrated,
        DeviceType::VirtualGpu => Kind::Virtual,
        DeviceType::Cpu => Kind::Software,
        DeviceType::Other => Kind::Other,
    };
    let limits = adapter.limits();
    let least = [
        ("storage buffers of a kernel", limits.max_storage_buffers_per_shader_stage, STORAGE_BUFFERS),
        ("bytes of immediates", limits.max_immediate_size, IMMEDIATE_BYTES),
        ("threads of a workgroup", limits.max_compute_invocations_per_workgroup, WORKGROUP),
        ("bytes that a workgroup shares", limits.max_compute_workgroup_storage_size, WORKGROUP_BYTES),
    ];
    let lacks = least.iter().find(|(_, has, needs)| has < needs);
    let declined = if adapter.features().contains(Features::IMMEDIATES) {
        lacks.map(|(what, has, needs)| format!("{has} {what}, and {needs} are needed"))
    } else {
        Some("it has no immediates (push constants)".into())
    };
    Adapter {
        number: 0,
        name: info.name,
        kind,
        api: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        memory: super::budget::free(adapter),
        tiers: TIERS.iter().filter(|(f, _)| adapter.features().contains(*f)).map(|(_, name)| *name).collect(),
        declined,
    }
}

/// The adapter that the options mean.
pub(crate) fn choose(
    instance: &Instance,
    options: &GpuOptions,
) -> Result<(wgpu::Adapter, Adapter), GpuError> {
    let all = found(instance);
    let known: Vec<String> = all.iter().map(|(_, a)| format!("{} ({})", a.name, a.kind.name())).collect();
    let described: Vec<&Adapter> = all.iter().map(|(_, a)| a).collect();
    let Some(at) = pick(&described, options) else {
        let asked = options.device.clone();
        return Err(GpuError::NoAdapter { asked, known });
    };
    let (adapter, described) = all.into_iter().nth(at).ok_or(GpuError::NoAdapter { asked: None, known })?;
    match described.declined {
        Some(why) => Err(GpuError::Declined { name: described.name, why }),
        None => Ok((adapter, described)),
    }
}

/// The place in the list of the adapter that the options mean.
fn pick(all: &[&Adapter], options: &GpuOptions) -> Option<usize> {
    let Some(asked) = &options.device else {
        let usable = |a: &&Adapter| a.declined.is_none() && (options.software || a.kind != Kind::Software);
        return all.iter().position(usable);
    };
    if let Ok(number) = asked.parse::<usize>() {
        return (number < all.len()).then_some(number);
    }
    let asked = asked.to_lowercase();
    let named = |a: &&Adapter| a.name.to_lowercase().contains(&asked);
    all.iter().position(|a| named(a) && a.declined.is_none()).or_else(|| all.iter().position(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(number: usize, name: &str, kind: Kind, declined: Option<&str>) -> Adapter {
        let declined = declined.map(Into::into);
        let (api, driver) = ("vulkan".into(), "driver 1".into());
        Adapter { number, name: name.into(), kind, api, driver, memory: None, tiers: Vec::new(), declined }
    }

    #[test]
    fn software_is_only_taken_where_it_is_asked_for() {
        let soft = adapter(0, "llvmpipe (LLVM 15)", Kind::Software, None);
        let with = |software, device: Option<&str>| {
            let options = GpuOptions { software, device: device.map(Into::into), ..GpuOptions::default() };
            pick(&[&soft], &options)
        };
        assert_eq!(with(false, None), None);
        assert_eq!(with(true, None), Some(0));
        assert_eq!(with(false, Some("LLVMpipe")), Some(0));
        assert_eq!(with(false, Some("0")), Some(0));
        assert_eq!(with(false, Some("1")), None);
        assert_eq!(with(true, Some("radeon")), None);
    }

    #[test]
    fn the_first_usable_adapter_is_taken_and_a_name_prefers_usable_ones() {
        let old = adapter(0, "Old card", Kind::Discrete, Some("too old"));
        let card = adapter(1, "New card", Kind::Discrete, None);
        let picked = |device: Option<&str>| {
            let options = GpuOptions { device: device.map(Into::into), ..GpuOptions::default() };
            pick(&[&old, &card], &options)
        };
        assert_eq!(picked(None), Some(1));
        assert_eq!(picked(Some("card")), Some(1));
        assert_eq!(picked(Some("old")), Some(0), "named, it is refused with its reason");
    }
}
