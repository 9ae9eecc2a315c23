"""How a command says that Ctrl-C ended it."""

from capacity.errors import CapacityError


class Interrupted(CapacityError):
    """Ctrl-C; complete runs are kept."""
