"""A program that was started fails, and nobody looks at its status. With the argument ``clean`` the same program without its fault."""

import subprocess
import sys

from stopwatch import CLEAN, linger, mark

subprocess.run([sys.executable, "-c", f"raise SystemExit({0 if CLEAN else 7})"])
mark()
linger()
