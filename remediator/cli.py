"""The ``soulfra`` command. A sub-command is imported when it is used, and pays for its own imports only."""

from importlib import import_module

import click

from soulfra_monitor import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("remediator.cli_run:up", "Run everything from one configuration, in the foreground."),
    "exporter": ("exporter.cli:exporter", "Run the exporter alone: it observes."),
    "remediator": ("remediator.cli_run:remediator", "Run the remediator alone: it acts."),
    "probe": ("exporter.cli_probe:probe", "Look at one service now, from here, and show every step."),
    "check": ("remediator.cli_check:check", "Check a configuration and what it refers to."),
    "health": ("remediator.cli_ask:health", "Show the health of all services."),
    "errors": ("remediator.cli_ask:errors", "List errors and what became of them."),
    "recoveries": ("remediator.cli_ask:recoveries", "List runs and their outcomes."),
    "heartbeats": ("remediator.cli_ask:heartbeats", "Show the jobs that must report."),
    "explain": ("remediator.cli_ask:explain", "Tell the story of one error or run."),
    "recover": ("remediator.cli_act:recover", "Ask for a recovery now."),
    "approve": ("remediator.cli_act:approve", "Let a held recovery run."),
    "reject": ("remediator.cli_act:reject", "Refuse a held recovery."),
    "pause": ("remediator.cli_act:pause", "Hold automatic recoveries back."),
    "resume": ("remediator.cli_act:resume", "Let automatic recoveries run again."),
}
"""Name -> where the command is, and its line in the help."""


class LazyGroup(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # click would import every command for its line.
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="soulfra")
def main() -> None:
    """Notice when a service fails silently, repair it, and prove the repair."""


if __name__ == "__main__":
    main(prog_name="soulfra")
