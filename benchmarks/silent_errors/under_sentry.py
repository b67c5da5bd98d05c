"""Runs a program under sentry-sdk, as its documentation says: init first, then the program.

With more integrations the one for asyncio is enabled inside the running loop, as its documentation wants.
"""

import asyncio
import os
import runpy
import sys
from collections.abc import Coroutine
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.asyncio import AsyncioIntegration, enable_asyncio_integration
from sentry_sdk.integrations.unraisablehook import UnraisablehookIntegration

MORE = bool(os.environ.get("CORPUS_MORE"))
_RUN = asyncio.Runner.run


async def _enabled(main: Coroutine[Any, Any, Any]) -> Any:
    enable_asyncio_integration()
    return await main


def _run(runner: asyncio.Runner, coro: Coroutine[Any, Any, Any], **more: Any) -> Any:
    """Run *coro* with the integration on, as the first line of a program's main would turn it on."""
    return _RUN(runner, _enabled(coro), **more)


if MORE:
    asyncio.Runner.run = _run  # type: ignore[assignment,method-assign]
sentry_sdk.init(
    dsn=os.environ["CORPUS_DSN"],
    integrations=[AsyncioIntegration(), UnraisablehookIntegration()] if MORE else [],
)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
