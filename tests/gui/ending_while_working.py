"""Ends Python while work runs in a thread, in a process of its own."""

import sys
import time

from qtpy.QtWidgets import QApplication

from napari_flag.gui.jobs import Job
from napari_flag.progress import Step


def slow():
    for done in range(100):
        time.sleep(0.4)
        yield Step("Working", done, 100)


app = QApplication([])
job = Job(slow(), "Work").start()
time.sleep(0.1)
sys.stdout.write("ending\n")
