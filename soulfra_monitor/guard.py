"""Marks a thread as being at our own work, so that hooks and watched methods take no notice of it."""

import threading


class Guard(threading.local):
    """``busy`` is true while this thread works for the library: its requests, files and errors are ours."""

    busy = False


guard = Guard()
