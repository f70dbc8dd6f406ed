"""Do what docs/first-steps.md says, word for word, on a clean home folder, and take the page's pictures.

    xvfb-run -a -s "-screen 0 1920x1080x24" python docs/follow_first_steps.py [--out docs/images]

Buttons are clicked, files dropped and dialogs answered as by hand.  Each numbered step of the page has a
function here, found by its title; every name that a step sets in *italics* or as `code` must have been
pressed, typed, dropped or seen by then, so page and plugin cannot drift apart.  Each start of napari is a
process of its own.  ``--install`` first clones what is committed here, and installs it as step 1 says.
"""

import argparse
import ctypes
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "first-steps.md"
SIZE: Final = (1280, 800)
PREDICTING_S: Final = 900.0
SETTLE_S: Final = 1.5
COLOURS: Final = 256
"""Of a picture: so that it takes a third of the room."""
FOLDER: Final = "two_slides"


def say(text: str) -> None:
    """Write a line of what is done."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class PageStep:
    """A numbered step of the page: its title, its words, its commands and the file of its picture."""

    title: str
    text: str
    commands: tuple[str, ...]
    picture: str | None

    @property
    def names(self) -> frozenset[str]:
        """What the step sets in italics or as code."""
        plain = self.text.replace("**", "")
        return frozenset(re.findall(r"\*([^*]+)\*", plain)) | frozenset(re.findall(r"`([^`]+)`", plain))


def read_page(page: Path = PAGE) -> tuple[PageStep, ...]:
    """Return the numbered steps of the page."""
    steps = []
    for item in re.split(r"^\d+\. ", page.read_text("utf-8").split("\n## ")[1], flags=re.M)[1:]:
        title, text = re.match(r"\*\*(.+?)\.\*\*(.*)", item, re.S).groups()  # type: ignore[union-attr]
        commands = re.findall(r"```sh\n(.*?)```", text, re.S)
        pictures = re.findall(r"!\[.*?\]\(images/(.*?)\)", text)
        words = re.sub(r"```sh\n.*?```|!\[.*?\]\(.*?\)", "", text, flags=re.S)
        steps.append(
            PageStep(
                title,
                " ".join(words.split()),
                tuple(line.strip() for block in commands for line in block.strip().splitlines()),
                pictures[0] if pictures else None,
            )
        )
    return tuple(steps)


@dataclass
class Hand:
    """What a person does in one napari: looks for words, presses, types, drops."""

    out: Path
    viewer: Any = None
    area: Any = None
    used: set[str] = field(default_factory=set)

    # --- time ------------------------------------------------------------------------------------
    def spend(self, seconds: float) -> None:
        """Let napari work for a while."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def wait(self, what: str, ready: Callable[[], Any], patience_s: float = 300.0) -> None:
        """Let napari work until `ready`."""
        end = time.monotonic() + patience_s
        while not ready():
            if time.monotonic() > end:
                raise SystemExit(f"Waited in vain for: {what}. The area says: {self.said}")
            self.spend(0.02)

    def rest(self) -> None:
        """Wait until no page computes any more."""
        self.wait("rest", lambda: not any(page.jobs.active for page in self.area.pages.values()))
        self.spend(SETTLE_S)

    @property
    def said(self) -> list[str]:
        """All messages of the Predict page."""
        page = self.area.predict
        parts = (page.slide_step, page.spots_step, page.model_step, page.run_panel)
        return [text for part in parts for text in part.messages.texts]

    # --- looking ---------------------------------------------------------------------------------
    @property
    def window(self) -> Any:
        """The window of napari."""
        return self.viewer.window._qt_window

    def find(self, kind: Any, fits: Callable[[Any], bool], what: str) -> Any:
        """Return the one widget in sight that fits."""
        found = [w for w in self.window.findChildren(kind) if w.isVisible() and fits(w)]
        assert len(found) == 1, f"{len(found)} in sight: {what}"
        self.used.add(what)
        return found[0]

    def see(self, what: str, ready: Callable[[], Any]) -> None:
        """Wait for words that the page promises."""
        self.wait(what, ready, 20)
        self.used.add(what)

    def take(self, name: str) -> None:
        """Take a picture of the window."""
        from PIL import Image

        self.spend(SETTLE_S)
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(pixels[..., :3]).quantize(
            COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
        )
        picture.save(self.out / name, optimize=True)

    # --- doing -----------------------------------------------------------------------------------
    def click(self, widget: Any, at: Any = None) -> None:
        """Click a widget, which must be in sight."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        place = widget.rect().center() if at is None else at
        assert widget.isEnabled(), f"{widget} cannot be clicked: {widget.toolTip()}"
        assert not widget.visibleRegion().isEmpty(), f"{widget} is covered"
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
        self.spend(0.1)

    def press(self, text: str) -> None:
        """Press the button with `text`."""
        from qtpy.QtCore import QPoint
        from qtpy.QtWidgets import QPushButton

        found = [b for b in self.window.findChildren(QPushButton) if b.isVisible() and b.text() == text]
        assert found, f"There is no button {text}"
        self.click(min(found, key=lambda b: b.mapToGlobal(QPoint(0, 0)).y()))
        self.used.add(text)

    def choose(self, where: str, text: str) -> None:
        """Choose an entry of the list called `where`, with the mouse."""
        from qtpy.QtWidgets import QComboBox

        box = self.find(QComboBox, lambda b: b.accessibleName() == where, where)
        row = box.findText(text)
        assert row >= 0, f"{text} is not offered in {where}: {[box.itemText(i) for i in range(box.count())]}"
        self.click(box)
        self.spend(0.6)  # Qt takes a release right after opening for that of the click that opened
        view = box.view()
        view.scrollTo(box.model().index(row, 0))
        self.click(view.viewport(), view.visualRect(box.model().index(row, 0)).center())
        assert box.currentText() == text
        self.used.add(text)

    def click_row(self, name: str, row_of: str) -> None:
        """Click the line that begins with `name` in the list called `row_of`."""
        from qtpy.QtCore import Qt
        from qtpy.QtWidgets import QTreeWidget

        tree = self.find(QTreeWidget, lambda t: t.accessibleName() == row_of, row_of)
        (item,) = tree.findItems(name, Qt.MatchFlag.MatchExactly)
        self.click(tree.viewport(), tree.visualItemRect(item).center())
        self.used.add(name)

    def type_into(self, placeholder: str, text: str) -> None:
        """Type into the field that shows `placeholder`, and press Enter."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QLineEdit

        line = self.find(QLineEdit, lambda e: e.placeholderText().startswith(placeholder), placeholder)
        self.click(line)
        QTest.keyClicks(line, text)
        self.spend(0.3)
        QTest.keyClick(line, Qt.Key.Key_Return)
        self.used.add(text)

    def choose_in_menu(self, *path: str) -> None:
        """Go through the menu bar to an entry."""
        menu = self.window.menuBar()
        for place, name in enumerate(path):
            if place:
                menu.aboutToShow.emit()
            texts = {a: a.text().replace("&", "").partition(" (")[0] for a in menu.actions()}
            found = [a for a, text in texts.items() if text == name]  # napari adds the plugin's name
            assert len(found) == 1, f"{name} is not in the menu: {[a.text() for a in menu.actions()]}"
            action, menu = found[0], found[0].menu()
        assert action.isEnabled()
        action.trigger()
        self.used.add(" › ".join(path))

    def press_with_menu(self, text: str, entry: str) -> None:
        """Press a button, and choose an entry of the menu it opens."""
        from qtpy.QtWidgets import QPushButton

        button = self.find(QPushButton, lambda b: b.text() == text and b.menu() is not None, text)
        (action,) = [a for a in button.menu().actions() if a.text() == entry]
        action.trigger()
        self.used.add(entry)

    def drop(self, path: Path) -> None:
        """Drag a file or folder onto the picture."""
        from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
        from qtpy.QtGui import QDragEnterEvent, QDropEvent
        from qtpy.QtWidgets import QApplication

        canvas, data = self.viewer.window._qt_viewer, QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        how = (Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
        entering = QDragEnterEvent(QPoint(200, 200), *how)
        QApplication.sendEvent(canvas, entering)
        assert entering.isAccepted()
        QApplication.sendEvent(canvas, QDropEvent(QPointF(200, 200), *how))
        self.used.add(path.name)

    def on_picture(self, *corners: tuple[float, float]) -> None:
        """Click corners on the picture, given as shares of its width and height; the last one twice."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        canvas = self.viewer.window._qt_viewer.canvas.native
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        for x, y in corners:
            place = QPoint(round(x * canvas.width()), round(y * canvas.height()))
            QTest.mouseMove(canvas, place)
            self.spend(0.3)
            QTest.mouseClick(canvas, left, none, place)
            self.spend(0.6)
        QTest.mouseDClick(canvas, left, none, place)
        self.spend(0.3)

    @contextmanager
    def answering(self, *answers: Callable[[Any], bool]) -> Iterator[None]:
        """Answer each dialog that opens meanwhile with the next of `answers`."""
        from qtpy.QtCore import QTimer
        from qtpy.QtWidgets import QApplication

        left = list(answers)
        clock = QTimer()

        def look() -> None:
            dialog = QApplication.activeModalWidget()
            if dialog is not None and dialog.isVisible() and left:
                answer = left.pop(0)
                if not answer(dialog):
                    left.insert(0, answer)

        clock.timeout.connect(look)
        clock.start(300)
        yield
        self.wait("a question", lambda: not left, 60)
        clock.stop()

    def named(self, path: Path) -> Callable[[Any], bool]:
        """Return what types a path into a file dialog and accepts."""

        def answer(dialog: Any) -> bool:
            from qtpy.QtWidgets import QDialogButtonBox, QLineEdit

            dialog.findChild(QLineEdit, "fileNameEdit").setText(str(path))
            self.spend(0.3)
            buttons = dialog.findChild(QDialogButtonBox).buttons()
            next(b for b in buttons if b.text().replace("&", "") in ("Save", "Open", "Choose")).click()
            return True

        return answer

    def pressing(self, text: str) -> Callable[[Any], bool]:
        """Return what presses a button of a question."""

        def answer(dialog: Any) -> bool:
            from qtpy.QtWidgets import QMessageBox

            if not isinstance(dialog, QMessageBox):
                return False
            self.used.add(text)
            say(f"   asked: {dialog.text()} {dialog.informativeText()}")
            next(b for b in dialog.buttons() if b.text().replace("&", "") == text).click()
            return True

        return answer


# --- the steps, by their titles -----------------------------------------------------------------------


def start_napari(hand: Hand, step: PageStep) -> None:
    """Start napari as the command does, and open the area from the menu."""
    import napari

    hand.viewer = napari.Viewer(show=True)
    hand.viewer.theme = os.environ.get("FIRST_STEPS_THEME", "dark")
    hand.window.resize(*SIZE)
    hand.spend(1)
    hand.used.add("napari")
    hand.choose_in_menu("Plugins", "napari-flag", "Predict expression")
    from napari_flag.gui.area import FlagArea

    hand.spend(0.5)
    hand.area = hand.find(FlagArea, lambda _: True, "the area")
    hand.rest()
    assert hand.area.page == "Predict"
    hand.used.add("Predict")


def state(hand: Hand, name: str) -> Any:
    """Return a slide of the workspace by its name."""
    return next(state for state in hand.area.session.workspace.slides if state.name == name)


def names(hand: Hand) -> list[str]:
    """Return the slides of the list."""
    return [state.name for state in hand.area.session.workspace.slides]


def line_of(hand: Hand, name: str) -> str:
    """Return what the list says beside a slide's name."""
    from qtpy.QtCore import Qt

    (item,) = hand.area.slides.list.findItems(name, Qt.MatchFlag.MatchExactly)
    return str(item.text(1))


def visible_slides(hand: Hand) -> set[str]:
    """Return the slides of which any layer is visible."""
    workspace = hand.area.session.workspace
    owners = (workspace.of_layer(layer) for layer in hand.viewer.layers if layer.visible)
    return {owner.name for owner in owners if owner is not None}


def open_the_folder(hand: Hand, step: PageStep) -> None:
    """Both ways: the dialog is opened and answered, then the folder dropped finds its slides open."""
    folder = Path(FOLDER).absolute()
    hand.drop(folder)
    hand.wait("two slides", lambda: names(hand) == ["sim1", "sim2"])
    hand.rest()
    with hand.answering(hand.named(folder)):
        hand.press_with_menu("Open…", "Folder…")
    hand.rest()
    assert names(hand) == ["sim1", "sim2"], f"the folder opened again gives {names(hand)}"
    assert hand.area.session.state.name == "sim1"
    (promised,) = [name for name in step.names if name.endswith("spots")]
    hand.see(promised, lambda: line_of(hand, "sim1") == promised)
    assert visible_slides(hand) == {"sim1"}


def choose_the_model(hand: Hand, step: PageStep) -> None:
    """Choose the demo's weights."""
    hand.choose("Model", "demo")
    hand.rest()
    assert not hand.area.predict.model_step.messages.texts
    hand.used.add("demo")


def predict_all(hand: Hand, step: PageStep) -> None:
    """Predict both, and look at the first while the second runs."""
    from qtpy.QtWidgets import QPushButton

    hand.find(QPushButton, lambda b: b.text() == "Predict expression" and b.isEnabled(), "Predict expression")
    hand.press("Predict all")
    hand.wait("progress", lambda: "%" in line_of(hand, "sim1"))
    assert line_of(hand, "sim2") == "queued"
    hand.wait("a preview", lambda: hand.area.session.genes_shown, PREDICTING_S)
    hand.take(step.picture or "")
    hand.wait("the first", lambda: state(hand, "sim1").results, PREDICTING_S)
    assert not state(hand, "sim2").results
    assert hand.area.session.adata is state(hand, "sim1").adata
    hand.wait("both", lambda: state(hand, "sim2").results, PREDICTING_S)
    hand.rest()
    assert hand.area.session.state.name == "sim1"
    assert all(line_of(hand, name).startswith("1 prediction, not saved") for name in names(hand))


def look_at_genes(hand: Hand, step: PageStep) -> None:
    """Find a gene, and show its spread and its prediction."""
    hand.press("Genes")
    hand.type_into("Search a gene", "ERBB2")
    hand.wait("the gene", lambda: hand.area.session.gene == "ERBB2")
    for quantity in ("Spread", "Predicted"):
        hand.choose("Show", quantity)
        hand.used.add("Show")
        hand.spend(SETTLE_S)
        shown = hand.area.session.gene_map.quantity
        assert shown.value == quantity.lower(), shown
    hand.rest()


def switch_slides(hand: Hand, step: PageStep) -> None:
    """Show the second slide, then the first again."""
    for name in ("sim2", "sim1"):
        hand.click_row(name, "Slides")
        hand.rest()
        assert visible_slides(hand) == {name}
        assert hand.area.session.gene == "ERBB2"
        assert hand.area.session.adata is state(hand, name).adata


def side_by_side(hand: Hand, step: PageStep) -> None:
    """Show the measurement, then the other slide, in a second canvas."""
    from napari_flag.gui.side_by_side_dock import SideBySideDock

    hand.press("Side by side")
    hand.spend(2)
    second = hand.find(SideBySideDock, lambda _: True, "the second canvas")
    hand.wait("scores", lambda: not second.jobs.active)
    assert second.canvas.gene_map.quantity.value == "measured"
    hand.choose("Slide here", "sim2")
    hand.used.add("Here:")
    hand.spend(2)
    (other,) = second.others
    assert other.canvas.gene_map.genes == ["ERBB2"], other.canvas.gene_map.genes
    hand.rest()


def draw_a_region(hand: Hand, step: PageStep) -> None:
    """Draw a polygon with the mouse."""
    hand.press("Regions")
    hand.press("Polygon")
    hand.spend(0.5)
    hand.on_picture((0.2, 0.46), (0.55, 0.41), (0.7, 0.55), (0.3, 0.61))
    hand.wait("the region", lambda: len(regions(hand)) == 1, 20)
    region = regions(hand)[0].region
    say(f"   drawn: {region.name}, {region.spots} spots")
    assert region.spots > 5
    hand.see(region.name, lambda: hand.area.pages["Regions"].regions.current is regions(hand)[0])
    hand.used.add("Regions")
    hand.rest()
    assert hand.area.pages["Regions"].numbers is not None


def regions(hand: Hand) -> Any:
    """Return the regions that are listed."""
    return hand.area.pages["Regions"].regions.entries


def undo(hand: Hand, step: PageStep) -> None:
    """Take the region back, and do it again."""
    hand.press("Undo")
    hand.wait("no region", lambda: not regions(hand), 20)
    hand.press("Redo")
    hand.wait("the region again", lambda: len(regions(hand)) == 1, 20)
    hand.rest()


class CloseRequest(ctypes.Structure):
    """What an X11 window manager sends when the window's close button is pressed."""

    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("sent", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 24),
    ]


def close_by_its_button(window: Any) -> None:
    """Press the close button of a window, which a virtual display does not draw."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    protocols, delete = (x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    number, client_message = ctypes.c_ulong(int(window.winId())), 33
    request = CloseRequest(type=client_message, window=number, message=protocols, format=32)
    request.data[0] = delete
    x11.XSendEvent(display, number, 0, 0, ctypes.byref(request))
    x11.XFlush(display)


def close(hand: Hand, step: PageStep) -> None:
    """Close the window as its button does, and answer the question."""
    window, gone = hand.window, []
    window.destroyed.connect(lambda: gone.append(True))
    with hand.answering(hand.pressing("Close")):
        close_by_its_button(window)
        hand.wait("the end", lambda: gone, 60)


def restore(hand: Hand, step: PageStep) -> None:
    """Start napari again, and bring back what was open."""
    start_napari(hand, step)
    hand.press("Restore last workspace")
    hand.wait("both slides", lambda: names(hand) == ["sim1", "sim2"])
    hand.rest()
    assert hand.area.session.state.name == "sim1"
    assert all(len(state(hand, name).results) == 1 for name in names(hand))
    assert all(len(state(hand, name).table.spots) > 200 for name in names(hand))
    hand.press("Regions")
    hand.rest()
    assert len(regions(hand)) == 1, f"{len(regions(hand))} regions came back"
    hand.area.session.select_gene("ERBB2")
    hand.used -= {"Regions"}


def save(hand: Hand, step: PageStep) -> None:
    """Save the workspace, and open it in a fresh list by a drop."""
    file = Path(FOLDER).absolute() / "both.json"
    with hand.answering(hand.named(file)):
        hand.press("Save workspace…")
    hand.wait("the file", file.exists, 60)
    hand.rest()
    assert not hand.area.session.workspace.unsaved
    for name in names(hand):
        hand.area.session.workspace.remove(state(hand, name))
    hand.spend(1)
    assert not hand.area.session.workspace.slides
    hand.drop(file)
    hand.wait("both slides", lambda: names(hand) == ["sim1", "sim2"])
    hand.rest()
    assert all(len(state(hand, name).results) == 1 for name in names(hand))
    assert not hand.area.session.workspace.unsaved
    hand.viewer.close()


SHELL: Final = ("Install", "Make two slides")
WITH_HAND: Final[dict[str, Callable[[Hand, PageStep], None]]] = {
    "Start napari": start_napari,
    "Open the folder": open_the_folder,
    "Choose the model": choose_the_model,
    "Predict all": predict_all,
    "Look at genes": look_at_genes,
    "Switch slides": switch_slides,
    "Side by side": side_by_side,
    "Draw a region": draw_a_region,
    "Undo": undo,
    "Close": close,
    "Restore": restore,
    "Save": save,
}
SESSIONS: Final = (tuple(WITH_HAND)[:10], tuple(WITH_HAND)[10:])
"""The steps of each start of napari."""


def follow(titles: tuple[str, ...], out: Path) -> None:
    """Do the steps of one start of napari."""
    hand = Hand(out)
    steps = {step.title: step for step in read_page()}
    for title in titles:
        step = steps[title]
        say(f"-- {title}")
        hand.used.clear()
        WITH_HAND[title](hand, step)
        left = {name for name in step.names if name not in hand.used}
        assert not left, f"Step “{title}” names {sorted(left)}, which nothing was done with."
        if step.picture and title != "Predict all":  # that one is taken while it runs
            hand.take(step.picture)


def main() -> None:
    """Follow the page from its first command to its last click."""
    parser = argparse.ArgumentParser(description="Follow docs/first-steps.md and take its pictures.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    parser.add_argument("--install", action="store_true", help="also do step 1, in a fresh environment")
    parser.add_argument("--home", type=Path, help="clean home folder to work in (default: a temporary one)")
    parser.add_argument("--session", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if given.session is not None:
        follow(SESSIONS[given.session], out)
        sys.stdout.flush()
        os._exit(0)
    steps = read_page()
    assert [step.title for step in steps] == [*SHELL, *WITH_HAND], "the page has other steps than this script"
    with tempfile.TemporaryDirectory() as temporary:
        home = given.home or Path(temporary)
        python = _install(steps[0], home) if given.install else Path(sys.executable)
        environment = _clean(home, installed=given.install)
        for command in steps[1].commands:
            if not (home / FOLDER).exists():
                _run([str(python), *command.split()[1:]], home, environment)
        for number in range(len(SESSIONS)):
            _run(
                [str(python), str(Path(__file__).resolve()), "--session", str(number), "--out", str(out)],
                home,
                environment,
            )


def _install(step: PageStep, home: Path) -> Path:
    """Do what the page says, in a clone of what is committed here; return the Python that it leads to."""
    clone, found = home / "napari-flag", home / "python.txt"
    environment = _clean(home, installed=True)
    _run(["git", "clone", "--quiet", str(ROOT), str(clone)], home, environment)
    tell = f"command -v python > {shlex.quote(str(found))}"
    _run(["bash", "-euc", "\n".join([*step.commands, tell])], clone, environment)
    return Path(found.read_text("utf-8").strip())


def _clean(home: Path, *, installed: bool) -> dict[str, str]:
    """Return an environment in which no earlier session left anything; `installed`: nor another package."""
    others = ("XDG_", "PYTHONPATH") if installed else ("XDG_",)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "NAPARI_CONFIG": str(home / "napari.yaml")}


def _run(command: list[str], where: Path, environment: dict[str, str]) -> None:
    say(f"$ {shlex.join(command)}")
    subprocess.run(command, cwd=where, env=environment, check=True)


if __name__ == "__main__":
    main()
