import os
import sys

# Accelerate would take a Mac's graphics processor, on which not all operations that are needed here
# exist.  ACCELERATE_USE_CPU=false in the environment tries it nevertheless.
if sys.platform == "darwin":
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
