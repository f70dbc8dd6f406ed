import numpy as np
import pytest

from napari_flag.gui.controls.linked_canvas import LinkedCanvas

MIDDLE_A, MIDDLE_B = (100.0, 200.0), (1100.0, 700.0)
"""Of the two pictures, (y, x) in µm."""


def picture(viewer, middle, name):
    corner = np.asarray(middle) - (100.0, 200.0) + 1.0  # pixels are 2 µm, and napari counts from their middle
    pixels = np.zeros((100, 200, 3), np.uint8)
    return viewer.add_image(
        pixels, rgb=True, name=name, scale=(2.0, 2.0), translate=corner, units=("um", "um")
    )


@pytest.fixture
def here(viewer):
    return picture(viewer, MIDDLE_A, "A")


@pytest.fixture
def there(viewer):
    layer = picture(viewer, MIDDLE_B, "B")
    layer.visible = False
    return layer


@pytest.fixture
def canvas(viewer, qtbot):
    look_at(viewer, MIDDLE_A, 1.0)
    canvas = LinkedCanvas(viewer)
    qtbot.addWidget(canvas)
    yield canvas
    canvas.close_canvas()


def look_at(model, place, zoom):
    model.scene.camera.center, model.scene.camera.zoom = (0.0, *place), zoom


def seen(model):
    return tuple(model.scene.camera.center)[-2:], model.scene.camera.zoom


def test_pictures_share_their_pixels_and_follow_those_of_the_viewer(canvas, here):
    canvas.show_pictures([here], same=True)
    (copy,) = canvas.model.layers
    assert np.shares_memory(np.asarray(copy.data), here.data)
    here.opacity, here.translate = 0.5, (7.0, 9.0)
    assert copy.opacity == 0.5
    assert tuple(copy.translate) == (7.0, 9.0)
    here.visible = False
    assert not copy.visible


def test_on_the_same_slide_both_show_one_place_whichever_is_moved(canvas, here, viewer):
    canvas.show_pictures([here], same=True)
    look_at(viewer, (50.0, 60.0), 3.0)
    assert seen(canvas.model) == ((50.0, 60.0), 3.0)
    look_at(canvas.model, (10.0, 20.0), 4.0)
    assert seen(viewer) == ((10.0, 20.0), 4.0)


@pytest.mark.parametrize("same", [True, False])
def test_pictures_that_come_leave_the_viewer_where_it_is(canvas, here, there, viewer, same):
    look_at(viewer, (50.0, 60.0), 3.0)
    canvas.show_pictures([here if same else there], same=same)
    assert seen(viewer) == ((50.0, 60.0), 3.0)
    assert canvas.model.scene.camera.zoom == 3.0


def test_another_slide_shows_its_middle_where_the_viewer_shows_its_own_and_moves_with_it(
    canvas, here, there, viewer
):
    canvas.show_pictures([there], same=False)
    (copy,) = canvas.model.layers
    assert copy.visible
    place, zoom = seen(canvas.model)
    np.testing.assert_allclose(place, MIDDLE_B, atol=2.0)
    assert zoom == viewer.scene.camera.zoom
    look_at(viewer, (MIDDLE_A[0] + 30, MIDDLE_A[1] - 40), 5.0)
    after, zoom = seen(canvas.model)
    np.testing.assert_allclose(np.subtract(after, place), (30, -40))
    assert zoom == 5.0
    there.visible = True
    there.visible = False
    assert copy.visible


def test_lined_up_by_hand_it_moves_alone_and_keeps_what_it_shows_beside_what_after(
    canvas, here, there, viewer
):
    canvas.show_pictures([there], same=False)
    canvas.linked = False
    before, _ = seen(viewer)
    place, _ = seen(canvas.model)
    look_at(canvas.model, np.add(place, (15.0, 25.0)), 2.0)
    np.testing.assert_allclose(seen(viewer)[0], before)
    assert seen(viewer)[1] == 2.0
    canvas.linked = True
    look_at(viewer, np.add(before, (100.0, 0.0)), 2.0)
    np.testing.assert_allclose(np.subtract(seen(canvas.model)[0], place), (115.0, 25.0))


def test_showing_the_slide_of_the_viewer_again_shows_its_place_again(canvas, here, there, viewer):
    canvas.show_pictures([there], same=False)
    canvas.show_pictures([here], same=True)
    assert [layer.name for layer in canvas.model.layers if layer.visible] == ["A"]
    assert seen(canvas.model) == seen(viewer)


def test_a_closed_canvas_follows_no_longer(canvas, here, viewer):
    canvas.show_pictures([here], same=True)
    (copy,) = canvas.model.layers
    canvas.close_canvas()
    before = seen(canvas.model)
    look_at(viewer, (1.0, 2.0), 9.0)
    here.opacity = 0.25
    here.visible = False
    assert seen(canvas.model) == before
    assert copy.opacity == 1.0
    assert copy.visible


def test_the_copy_of_a_picture_is_kept_until_the_picture_is_gone(canvas, here, there, viewer):
    canvas.show_pictures([there], same=False)
    (copy,) = canvas.model.layers
    canvas.show_pictures([here], same=True)
    there.scale = (3.0, 3.0)
    canvas.show_pictures([there], same=False)
    assert [layer for layer in canvas.model.layers if layer.visible] == [copy]
    assert list(copy.scale) == [3.0, 3.0]
    viewer.layers.remove(there)
    canvas.show_pictures([here], same=True)
    assert copy not in canvas.model.layers
