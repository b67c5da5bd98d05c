"""A file cannot be written, and the handler does nothing. With the argument ``clean`` the same program without its fault."""

import os
import tempfile

from stopwatch import CLEAN, linger, mark

with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o777 if CLEAN else 0o555)
    mark()
    if os.getuid() == 0:
        os.seteuid(65534)
    try:
        with open(os.path.join(folder, "orders.csv"), "w") as file:
            file.write("1\n")
    except PermissionError:
        pass
    os.seteuid(os.getuid())
    linger()
