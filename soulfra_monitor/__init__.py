"""The in-process library and the kernel that exporter and remediator share.

Standard library only at import: this package goes into other people's processes.
"""

__version__ = "0.1.0"
