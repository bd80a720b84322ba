"""The entry: `selfinstruct` and `python -m selfinstruct`."""

import signal


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # From here on Ctrl-C ends the process with no traceback, in the middle of an import too. A run has
        # its own handler; whatever else writes is safe from a kill.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from selfinstruct import cli

    cli.main()


if __name__ == "__main__":
    main()
