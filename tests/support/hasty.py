"""Run `dagfs` with short deadlines: python hasty.py STALL PATIENCE WORDS..., both in seconds.

The commands have no option for this: what a user would set here is decided in the code.
"""

import functools
import sys

STALL, PATIENCE = float(sys.argv[1]), float(sys.argv[2])
del sys.argv[1:3]

from dagfs.daemon import resolving  # noqa: E402
from dagfs.fetch import fetcher  # noqa: E402
from dagfs.hub.api import HubSource  # noqa: E402
from dagfs.repository import core  # noqa: E402

fetcher.PATIENCE = PATIENCE
HubSource.__init__.__defaults__ = (PATIENCE,)
core.connect = resolving.connect = functools.partial(core.connect, stall_after=STALL)

from dagfs.cli.main import main  # noqa: E402

main()
