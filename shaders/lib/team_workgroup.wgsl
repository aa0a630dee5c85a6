// Which thread this is, among teams of LANES neighbouring threads in a workgroup of WG; sums over a team, in shared memory.
struct At {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
}

// The number of the workgroup: a dispatch folds them over two dimensions, so there may be some too many.
fn group(at: At) -> u32 {
    return at.workgroup.y * at.workgroups.x + at.workgroup.x;
}

fn team(at: At) -> u32 { return at.local / LANES; }
fn lane(at: At) -> u32 { return at.local % LANES; }

var<workgroup> team_shares: array<f32, SLOTS * WG>;

// Every thread puts its share of a sum into its slot; when all have met, any thread reads the sum of its team.
fn team_put(slot: u32, value: f32, at: At) { team_shares[slot * WG + at.local] = value; }
fn team_meet() { workgroupBarrier(); }
fn team_sum(slot: u32, at: At) -> f32 {
    let first = slot * WG + team(at) * LANES;
    var sum = 0.0;
    for (var i = 0u; i < LANES; i += 1u) { sum += team_shares[first + i]; }
    return sum;
}
