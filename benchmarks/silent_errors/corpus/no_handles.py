"""All file handles are used up, and the failure to open another is swallowed. With the argument ``clean`` the same program without its fault."""

import resource

from stopwatch import CLEAN, linger, mark

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    for _ in range(10 if CLEAN else 100):
        kept.append(open("/dev/null"))
except OSError:
    pass
while kept:
    kept.pop().close()
mark()
linger()
