"""The thin parent of a watched program: passes signals on, ends as the program does, tells how it ended.

It imports next to nothing until the program has ended. What it passes on is what was sent to it alone: those
of the terminal reach the program by themselves, since both are in one process group.
"""

import fcntl
import os
import signal
import sys

from soulfra_monitor import groups
from soulfra_monitor.descriptors import FIRST, move_up

TYPE_CHECKING = False  # typing's is true for type checkers as well, and costs most of a megabyte
if TYPE_CHECKING:
    from typing import NoReturn

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
_KERNEL = 0x80  # si_code of what no process sent
_FROM_TERMINAL = {
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGHUP,
    signal.SIGCONT,
}
_TERMINAL_STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_NOT_FOUND = 127
_MEANT = ("LISTEN_PID", "WATCHDOG_PID")
"""Variables by which a service manager says to which process the others are addressed."""


def run(kind: str, arguments: list[str], variables: dict[str, str]) -> int:
    """Run the program to its end, and end in the same way: does not come back."""
    os.environ.update(variables)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ours, theirs = map(move_up, os.pipe())  # through it the child says where the record of its life is
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        os.set_inheritable(theirs, True)
        _become([str(theirs), kind, *arguments], parent, before)
    os.close(theirs)
    stderr = _let_go(ours)
    program = Program(pid)
    status = program.wait()
    _tell(program, status, [kind, *arguments], _record(ours), stderr)
    _end(status)


def _let_go(pipe: int) -> int | None:
    """Leave what is open to the program alone, so that its other ends notice when it closes it.

    Returns what was standard error, for what we may have to say at the end; None where it was closed.
    """
    try:
        stderr = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, FIRST)
    except OSError:
        stderr = None
    for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
        if int(name) not in (0, 1, 2, pipe, stderr):
            _close(int(name))
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
    except OSError:  # there may be no devices here
        return stderr
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    if nothing > 2:  # noqa: PLR2004 - else it is one of them
        os.close(nothing)
    return stderr


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:  # it was that of the list itself
        return


def _record(pipe: int) -> str:
    """Return the path of the record; nothing if the program never came so far."""
    os.set_blocking(pipe, False)
    try:
        return os.fsdecode(os.read(pipe, 4096))
    except BlockingIOError:  # somebody still holds the other end
        return ""


def _become(arguments: list[str], parent: int, mask: set[int]) -> "NoReturn":
    """Become the program, in the forked process."""
    try:
        _die_with(parent)
        _readdress(parent)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored is inherited
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execv(sys.executable, [sys.executable, *_options(), CHILD, *arguments])  # noqa: S606
    except OSError as error:
        _say(2, f"cannot start {sys.executable}: {error.strerror}")
    finally:
        os._exit(_NOT_FOUND)


def _say(stderr: int | None, text: str) -> None:
    """Complain, where somebody may read it."""
    try:
        if stderr is not None:
            os.write(stderr, f"soulfra_monitor: {text}\n".encode())
    except OSError:  # nobody reads it
        return


def _readdress(parent: int) -> None:
    """Let the program take what a service manager has addressed to this process: it knows of no other."""
    for name in _MEANT:
        if os.environ.get(name) == str(parent):
            os.environ[name] = str(os.getpid())
            os.environ.pop(f"{name}FDID", None)  # names the process in another way, and need not be there


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, also if it has died already."""
    try:
        import ctypes  # noqa: PLC0415 - in the forked process only: the parent stays small

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (ImportError, OSError, AttributeError):  # no Linux, or a Python without ctypes
        return
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _options() -> list[str]:
    """Return the options of Python that stood before ``-m soulfra_monitor``."""
    for place, word in enumerate(sys.orig_argv[1:], 1):
        following = sys.orig_argv[place + 1 : place + 2]
        if word.endswith("m") and word.startswith("-") and following == ["soulfra_monitor"]:
            return [*sys.orig_argv[1:place], *([f"-{word[1:-1]}"] if word != "-m" else [])]
        if word == "-msoulfra_monitor":
            return sys.orig_argv[1:place]
    return []


class Program:
    """The running program."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.asked: set[int] = set()  # signals that somebody sent it by way of us, or of the terminal
        self._oom_kills = groups.oom_kills()
        self._was_stopped = False
        self._is_asked_to_stop = False  # by a terminal, since it last went on

    def wait(self) -> int:
        """Pass signals on until the program has ended; return its wait status."""
        while True:
            information = signal.sigwaitinfo(signal.valid_signals())
            if information.si_signo != signal.SIGCHLD:
                self._pass(information)
            elif (status := self._reap()) is not None:
                self._drain()
                return status

    def was_short_of_memory(self) -> bool:
        """Tell whether the kernel has killed in our control group since the program began."""
        return groups.oom_kills() > self._oom_kills

    def _pass(self, information: signal.struct_siginfo) -> None:
        number = information.si_signo
        self.asked.add(number)
        self._is_asked_to_stop |= number in _TERMINAL_STOPS
        if information.si_code == _KERNEL and not self._is_for_us(number):
            return
        if number == signal.SIGCONT and self._was_stopped and not self._is_stopped():
            return  # it went to the whole group
        os.kill(self.pid, number)

    @staticmethod
    def _is_for_us(number: int) -> bool:
        """Tell whether a signal of the kernel reached this process and not the program."""
        if number in (signal.SIGHUP, signal.SIGCONT):
            return os.getsid(0) == os.getpid()  # a hangup goes to the leader of the session
        return number not in _FROM_TERMINAL and number != signal.SIGXCPU

    def _reap(self) -> int | None:
        """Return the program's status when it has ended. Process 1 has other children, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid != self.pid:
                continue
            if os.WIFCONTINUED(status):
                self._is_asked_to_stop = False
            elif os.WIFSTOPPED(status):
                self._stop(os.WSTOPSIG(status))
            else:
                return status

    def _stop(self, number: int) -> None:
        """Stop as the program has, so that a shell sees it; go on when continued.

        Not if somebody has stopped the program alone: who lets it go on does not know of us.
        """
        if number not in _TERMINAL_STOPS:
            if not self._is_asked_to_stop:
                return
            number = signal.SIGSTOP  # its way to stop when the terminal asks
        self._was_stopped = True
        os.kill(os.getpid(), number)
        if number != signal.SIGSTOP:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})

    def _is_stopped(self) -> bool:
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] == b"T"
        except (OSError, IndexError):
            return True

    def _drain(self) -> None:
        """Note signals that came together with the end."""
        while (information := signal.sigtimedwait(signal.valid_signals(), 0)) is not None:
            self.asked.add(information.si_signo)


def _tell(program: Program, status: int, command: list[str], record: str, stderr: int | None) -> None:
    """Tell the remediator if the end was no good one."""
    try:
        if status == 0 and not _has_left_errors(record):
            _forget(record)
            return
        from soulfra_monitor import endings  # noqa: PLC0415 - the program has ended: memory matters no more

        code = os.waitstatus_to_exitcode(status)
        endings.tell(code, program.asked, command, record, oom=program.was_short_of_memory())
    except Exception as error:  # noqa: BLE001 - the exit status must come out whatever happens here
        _say(stderr, f"the end of the program is not told: {type(error).__name__}: {error}")


def _has_left_errors(record: str) -> bool:
    """Tell whether the program says so, in its last words (``crashes.LEFT``)."""
    if not record:
        return False
    try:
        with open(record, "rb") as file:
            return b"\nsoulfra: left\n" in file.read()
    except OSError:
        return False


def _forget(record: str) -> None:
    """Remove the record of a good end."""
    if record and os.path.exists(record):
        os.unlink(record)


def _end(status: int) -> "NoReturn":
    """End with the program's exit status, or of the signal that ended it."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        _leave_no_core()
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        code = 128 - code  # process 1 is not ended by signals
    os._exit(code)


def _leave_no_core() -> None:
    """Leave no second core: the program has left one, if any is wanted."""
    try:
        import ctypes  # noqa: PLC0415 - at the end only
        import resource  # noqa: PLC0415 - as above

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (ImportError, OSError, ValueError, AttributeError):
        return
