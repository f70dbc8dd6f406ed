"""``python -m napari_flag`` is the command line."""

import sys

from napari_flag.cli import main

if __name__ == "__main__":
    sys.exit(main())
