"""The hooks there are, in the order in which they are installed."""

HOOKS: dict[str, str] = {
    "uncaught": "soulfra_monitor.hooks.uncaught:install",
    "threads": "soulfra_monitor.hooks.threads:install",
    "unraisable": "soulfra_monitor.hooks.unraisable:install",
    "futures": "soulfra_monitor.hooks.futures:install",
    "tasks": "soulfra_monitor.hooks.tasks:install",
    "coroutines": "soulfra_monitor.hooks.coroutines:install",
    "unclosed": "soulfra_monitor.hooks.unclosed:install",
    "logs": "soulfra_monitor.hooks.logs:install",
    "printed": "soulfra_monitor.hooks.printed:install",
    "http_stdlib": "soulfra_monitor.hooks.http_stdlib:install",
    "http_aiohttp": "soulfra_monitor.hooks.http_aiohttp:install",
    "http_httpx": "soulfra_monitor.hooks.http_httpx:install",
    "redis": "soulfra_monitor.hooks.redis_clients:install",
    "databases": "soulfra_monitor.hooks.databases:install",
    "sockets": "soulfra_monitor.hooks.sockets:install",
    "children": "soulfra_monitor.hooks.children:install",
    "statuses": "soulfra_monitor.hooks.statuses:install",
    "execs": "soulfra_monitor.hooks.execs:install",
    "processes": "soulfra_monitor.hooks.processes:install",
    "files": "soulfra_monitor.hooks.files:install",
    "swallowed": "soulfra_monitor.hooks.swallowed:install",
    "crashes": "soulfra_monitor.crashes:install",
    "watchdog": "soulfra_monitor.watchdog:install",
    "resources": "soulfra_monitor.resources:install",
}
"""Name to ``module:function``; a hook is imported when it is installed."""
