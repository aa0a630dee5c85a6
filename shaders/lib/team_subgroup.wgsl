// Which thread this is, among teams of LANES neighbouring threads in a workgroup of WG; sums over a team, by subgroups. LANES is a
// multiple of every subgroup size that the device may choose.
struct At {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) in_subgroup: u32,
}

// The number of the workgroup: a dispatch folds them over two dimensions, so there may be some too many.
fn group(at: At) -> u32 {
    return at.workgroup.y * at.workgroups.x + at.workgroup.x;
}

// Threads are counted along subgroups: how these lie among the local indices is the driver's choice.
fn team(at: At) -> u32 { return (at.subgroup * at.size + at.in_subgroup) / LANES; }
fn lane(at: At) -> u32 { return (at.subgroup * at.size + at.in_subgroup) % LANES; }

// A subgroup has at least four threads.
const SHARES: u32 = WG / 4u;
var<workgroup> team_shares: array<f32, SLOTS * SHARES>;

// Every thread puts its share of a sum into its slot; when all have met, any thread reads the sum of its team.
fn team_put(slot: u32, value: f32, at: At) {
    let of_subgroup = subgroupAdd(value);
    if (at.in_subgroup == 0u) { team_shares[slot * SHARES + at.subgroup] = of_subgroup; }
}
fn team_meet() { workgroupBarrier(); }
fn team_sum(slot: u32, at: At) -> f32 {
    let subgroups = LANES / at.size;
    let first = slot * SHARES + team(at) * subgroups;
    var sum = 0.0;
    for (var i = 0u; i < subgroups; i += 1u) { sum += team_shares[first + i]; }
    return sum;
}
