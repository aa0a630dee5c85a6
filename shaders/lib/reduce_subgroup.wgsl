// Which thread this is; sums and maxima over a workgroup of WG threads: first of each subgroup, whatever its size, then of
// the subgroups in shared memory.
struct At {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

// The number of the workgroup: a dispatch folds them over two dimensions, so there may be some too many.
fn group(at: At) -> u32 {
    return at.workgroup.y * at.workgroups.x + at.workgroup.x;
}

// A subgroup has at least four threads.
var<workgroup> reduced: array<f32, WG / 4u>;

// The sum of all threads' values, for all of them; every thread of the workgroup must come here.
fn reduce_add(value: f32, at: At) -> f32 {
    let of_subgroup = subgroupAdd(value);
    workgroupBarrier();
    if (at.lane == 0u) {
        reduced[at.subgroup] = of_subgroup;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < at.subgroups; i += 1u) {
        sum += reduced[i];
    }
    return sum;
}

// The largest of all threads' values, for all of them; every thread of the workgroup must come here.
fn reduce_max(value: f32, at: At) -> f32 {
    let of_subgroup = subgroupMax(value);
    workgroupBarrier();
    if (at.lane == 0u) {
        reduced[at.subgroup] = of_subgroup;
    }
    workgroupBarrier();
    var largest = reduced[0];
    for (var i = 1u; i < at.subgroups; i += 1u) {
        largest = max(largest, reduced[i]);
    }
    return largest;
}
