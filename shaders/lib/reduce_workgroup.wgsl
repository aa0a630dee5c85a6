// Which thread this is; sums and maxima over a workgroup of WG threads, a power of two, by a tree in shared memory.
struct At {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
}

// The number of the workgroup: a dispatch folds them over two dimensions, so there may be some too many.
fn group(at: At) -> u32 {
    return at.workgroup.y * at.workgroups.x + at.workgroup.x;
}

var<workgroup> reduced: array<f32, WG>;

// The sum of all threads' values, for all of them; every thread of the workgroup must come here.
fn reduce_add(value: f32, at: At) -> f32 {
    workgroupBarrier();
    reduced[at.local] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if (at.local < half) {
            reduced[at.local] += reduced[at.local + half];
        }
        workgroupBarrier();
    }
    return reduced[0];
}

// The largest of all threads' values, for all of them; every thread of the workgroup must come here.
fn reduce_max(value: f32, at: At) -> f32 {
    workgroupBarrier();
    reduced[at.local] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if (at.local < half) {
            reduced[at.local] = max(reduced[at.local], reduced[at.local + half]);
        }
        workgroupBarrier();
    }
    return reduced[0];
}
