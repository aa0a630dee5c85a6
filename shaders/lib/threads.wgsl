// Which thread this is.
struct At {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
}

// The number of the workgroup: a dispatch folds them over two dimensions, so there may be some too many.
fn group(at: At) -> u32 {
    return at.workgroup.y * at.workgroups.x + at.workgroup.x;
}
