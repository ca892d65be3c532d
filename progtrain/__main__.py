"""`python -m progtrain`."""

from __future__ import annotations

from progtrain.cli import main

if __name__ == "__main__":
    main()
