"""Where the rules and the example platform are: in a checkout, or inside the installed wheel."""

from importlib.resources import files
from pathlib import Path

_PACKAGE = Path(str(files("remediator")))
_CHECKOUT = _PACKAGE.parent


def shipped_rules() -> Path:
    """Return the folder with the rule files and the Prometheus and Alertmanager configurations."""
    return _either(_CHECKOUT / "rules", _PACKAGE / "shipped" / "rules")


def shipped_platform() -> Path:
    """Return the folder of the example platform."""
    return _either(_CHECKOUT / "examples" / "platform", _PACKAGE / "shipped" / "platform")


def _either(checkout: Path, installed: Path) -> Path:
    # A folder called rules beside an installed package may be anybody's; a checkout has the project file.
    return checkout if (_CHECKOUT / "pyproject.toml").is_file() and checkout.is_dir() else installed
