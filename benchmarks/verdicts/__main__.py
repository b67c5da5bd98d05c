"""``python -m benchmarks.verdicts [PROGRAM]``: print the table of verdicts."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.verdicts.table import BLACKBOX, Row, run_table

_WORDS = {True: "up", False: "down", None: "no answer"}


def main() -> int:
    """Run the table against the named blackbox_exporter, or the installed one."""
    program = sys.argv[1] if len(sys.argv) > 1 else shutil.which(BLACKBOX)
    if program is None:
        print(f"{BLACKBOX} is not installed", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(run_table(program, Path(folder)))
    print("| case | server | blackbox_exporter | ours | why |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(_line(row))
    wrong = [row for row in rows if row.mistakes]
    different = [row for row in rows if row.case.ours is not None]
    values = [row for row in rows if row.case.different]
    print(
        f"\n{len(rows)} cases, {len(different)} deliberately different, {len(values)} with other values,"
        f" {len(wrong)} not as the table says"
    )
    for row in wrong:
        print(f"  {row.case.name}: {'; '.join(row.mistakes)}")
    return 1 if wrong else 0


def _line(row: Row) -> str:
    case, there, here = row.case, row.blackbox, row.ours
    said = _WORDS[here.success] + (f" ({here.note})" if here.note else "")
    why = "; ".join(dict.fromkeys(reason for reason in (case.why, *case.different.values()) if reason))
    return f"| {case.name} | {case.server} | {_WORDS[there.success]} | {said} | {why} |"


if __name__ == "__main__":
    sys.exit(main())
