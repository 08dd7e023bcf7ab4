"""`mbench`, and `python -m mbench`."""

import os
import signal
import sys


def main() -> None:
    """Run the command line, with signals heeded from the first moment on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the command line is loaded, Ctrl-C ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mbench.cli import main as command_line
    from mbench.core.interruption import interrupted

    try:
        command_line()
    except SystemExit as end:
        if interrupted() and isinstance(end.code, int):
            # Without waiting for threads that still fetch something.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise


if __name__ == "__main__":
    main()
