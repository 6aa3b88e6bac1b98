"""``python -m qsit_plugin.cli``: the ``qsit`` command where its script is not on the path."""

from . import main

main()
