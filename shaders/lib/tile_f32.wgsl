// Unpacked weights in shared memory: as they are.
alias Tile = vec4<f32>;
