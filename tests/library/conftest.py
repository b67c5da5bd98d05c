"""What holds for all tests of the library."""

import signal


def _ignore(*_: object) -> None:
    """Go on, as before."""


# Under nohup a hangup is ignored, and what is ignored is inherited by the programs that the tests start. What
# is handled is not: they have the default then, and the tests themselves still survive a hangup.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, _ignore)
