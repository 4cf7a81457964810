"""``python -m vivavoce.cli`` is ``viva``."""

from vivavoce.cli import main

main()
