import os
import sys

# Accelerate would take a Mac's graphics processor, on which not all operations that are needed here
# exist.  ACCELERATE_USE_CPU=false in the environment tries it nevertheless.
if sys.platform == "darwin":
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")

# On Linux, a thread of torch that waits for another looks so many times whether that is done before
# it sleeps.  By itself torch looks much longer, and on a busy machine the waiting thread then keeps
# the other from a core: see benchmarks/threads.txt.  The number is read when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
