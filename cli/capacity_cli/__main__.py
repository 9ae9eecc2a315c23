"""The command `capacity`, also as `python -m capacity_cli`. Ctrl-C is handled before anything else is imported."""

from capacity_cli.interrupts import Interrupts


def main() -> None:
    """Runs the command line."""
    interrupts = Interrupts()
    interrupts.watch()
    from capacity_cli.app import main as run

    run(interrupts)


if __name__ == "__main__":
    main()
