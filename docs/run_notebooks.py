"""Run the notebooks of the docs from top to bottom and keep their output, without times and progress.

python docs/run_notebooks.py [NOTEBOOK…]
"""

import sys
from pathlib import Path
from typing import Final

import nbformat
from nbclient import NotebookClient

NOTEBOOKS: Final = Path(__file__).parent / "notebooks"
CELL_S: Final = 600


def run(path: Path) -> nbformat.NotebookNode:
    """Return the notebook at `path`, run in a new kernel; raises `CellExecutionError` where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_S, record_timing=False, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # of stderr: progress, which is gone when the cell has run
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    """Run all notebooks, or those named."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        sys.stdout.write(f"{path.name}\n")
        nbformat.write(run(path), path)


if __name__ == "__main__":
    main()
