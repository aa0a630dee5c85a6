//! How much memory of a device is free.

/// Bytes of the adapter's own memory that are free for this process; none where the system does not tell.
pub(crate) fn free(adapter: &wgpu::Adapter) -> Option<u64> {
    vulkan(adapter)
}

#[cfg(target_vendor = "apple")]
fn vulkan(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// By `VK_EXT_memory_budget`: the budget of the largest heap that is local to the device, without what is in use of it.
#[cfg(not(target_vendor = "apple"))]
fn vulkan(adapter: &wgpu::Adapter) -> Option<u64> {
    use ash::vk;
    // SAFETY: the adapter is only asked, and nothing of it is kept or destroyed.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let extension = ash::ext::memory_budget::NAME;
    if !hal.physical_device_capabilities().supports_extension(extension) {
        return None;
    }
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    let instance = hal.shared_instance().raw_instance();
    // SAFETY: the physical device is the instance's, and the chain holds one structure that the device knows, as just
    // checked.
    unsafe {
        instance.get_physical_device_memory_properties2(hal.raw_physical_device(), &mut properties);
    }
    let memory = properties.memory_properties;
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize).enumerate();
    let local = heaps.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let (largest, _) = local.max_by_key(|(_, heap)| heap.size)?;
    let (budget, used) = (budget.heap_budget.get(largest)?, budget.heap_usage.get(largest)?);
    Some(budget.saturating_sub(*used))
}
