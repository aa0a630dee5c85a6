// Unpacked weights in shared memory: as 16-bit floats, which hold every weight but not every activation.
alias Tile = vec4<f16>;
