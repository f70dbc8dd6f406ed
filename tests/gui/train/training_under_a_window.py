"""Loads the training package after a window was drawn, in a process of its own, which it must not end."""

import sys

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_flag.fitting import load_training


def main():
    viewer = napari.Viewer(show=True)
    viewer.add_image(np.zeros((50, 60, 3), np.uint8), rgb=True)
    QApplication.processEvents()
    viewer.screenshot(canvas_only=True, flash=False)
    load_training()
    viewer.screenshot(canvas_only=True, flash=False)
    viewer.close()
    sys.stdout.write("still there\n")


if __name__ == "__main__":
    main()
