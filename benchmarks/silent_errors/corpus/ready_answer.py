"""An answer that was written beforehand stands for whatever failed. With the argument ``clean`` the same program without its fault."""

from stopwatch import CLEAN, linger, mark


def total(rows):
    try:
        return dict(ok=True, total=sum(rows))
    except Exception:
        return dict(ok=False, total=f"{0}")


mark()
total([1, 2] if CLEAN else [1, None])
linger()
