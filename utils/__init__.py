import os
import sys

# Accelerate would take a Mac's graphics processor, on which not all operations that are needed here
# exist.  ACCELERATE_USE_CPU=false in the environment tries it nevertheless.
if sys.platform == "darwin":
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")

# On Linux, a thread of torch that waits for another first looks so many times whether the other is
# done, and then sleeps.  By itself torch looks far more often, and on a busy machine the waiting
# thread then takes a core from the thread that it waits for: see benchmarks/threads.txt.  torch
# reads the number when it is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
