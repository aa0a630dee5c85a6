"""Which arithmetic the matrix products of training use: bfloat16 where the CPU has it and it pays, f32 elsewhere.

It is tried in a process of its own: where a virtual machine hides the tiles' properties (CPUID leaf 1D), torch's kernels
for AMX end the process by an illegal instruction.
"""

import subprocess
import sys

TRIAL = """
import sys, time, torch
import torch.nn.functional as F
torch.set_num_threads(int(sys.argv[1]))
kinds = torch.float, torch.bfloat16
sets = [[torch.randn(*s, dtype=kind) for s in ((2048, 256), (768, 256), (2048, 768))] for kind in kinds]
best = [9e9, 9e9]
# In turn, so that what else runs on the machine slows both; the best of each, since it slows some.
for _ in range(40):
    for i, (x, w, g) in enumerate(sets):
        x.requires_grad_(), w.requires_grad_()
        begin = time.perf_counter()
        F.linear(x, w).backward(g)
        best[i] = min(best[i], time.perf_counter() - begin)
print(best[0] / best[1])
"""


def gain(threads):
    """How many times as fast as f32 a product in bfloat16 is; 0 where it cannot be had."""
    trial = subprocess.run([sys.executable, "-c", TRIAL, str(threads)], capture_output=True, text=True)
    return float(trial.stdout) if trial.returncode == 0 else 0.0
