import json
import uuid

import numpy as np
import pytest
import shapely
from tests.fakes import MPP, PITCH_UM

from napari_flag import keys
from napari_flag.exports.qupath import domain_annotations, spot_features, write_geojson
from napari_flag.progress import finish
from napari_flag.slides.formats.geojson import read_annotations


@pytest.fixture
def features(prediction, tmp_path):
    finish(write_geojson(prediction, tmp_path / "fake.geojson"))
    content = json.loads((tmp_path / "fake.geojson").read_text("utf-8"))
    assert content["type"] == "FeatureCollection"
    return content["features"]


def test_every_spot_is_a_detection_with_a_measurement_per_gene(features, prediction):
    spots = [feature for feature in features if feature["properties"]["objectType"] == "detection"]
    assert [spot["properties"]["name"] for spot in spots] == list(prediction.obs_names)
    gene = prediction.var_names[2]
    found = [spot["properties"]["measurements"][gene] for spot in spots]
    np.testing.assert_allclose(found, prediction.X[:, 2], atol=1e-4)
    assert f"{gene} sd" in spots[0]["properties"]["measurements"]
    assert all(uuid.UUID(spot["id"]) for spot in spots)


def test_outlines_are_closed_ellipses_whose_box_is_that_of_the_circle(features, prediction):
    spots = [feature for feature in features if feature["properties"]["objectType"] == "detection"]
    for spot, centre in zip(spots, prediction.obsm["spatial"], strict=True):
        assert spot["geometry"]["isEllipse"] is True
        ring = spot["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        np.testing.assert_allclose(
            shapely.Polygon(ring).bounds, [*(centre - 100), *(centre + 100)], atol=0.01
        )


def test_domains_are_annotations_around_their_spots(features, prediction, tmp_path):
    kinds = [feature["properties"]["objectType"] for feature in features]
    assert kinds.count("annotation") == 2
    upper = read_annotations(tmp_path / "fake.geojson")[0]
    assert upper.name == upper.classification == "domain 1"
    inside = shapely.contains_xy(shapely.union_all(upper.polygons), *prediction.obsm["spatial"].T)
    np.testing.assert_array_equal(inside, prediction.obs[keys.DOMAIN] == "0")
    assert features[-1]["properties"]["classification"]["name"] == "domain 2"


def test_the_outline_of_neighbours_that_jitter_is_one_and_as_large_as_their_area(prediction):
    places = prediction.obsm[keys.SPATIAL]
    places += np.random.default_rng(0).normal(0, PITCH_UM / MPP / 12, places.shape)
    for annotation in finish(domain_annotations(prediction)):
        (outline,) = annotation.polygons
        assert not outline.interiors
        assert outline.area * MPP**2 * 1e-6 == pytest.approx(annotation.measurements["Area mm^2"], rel=0.08)


def test_the_same_spot_keeps_its_id(prediction):
    ids = [feature["id"] for feature in spot_features(prediction)]
    assert ids == [feature["id"] for feature in spot_features(prediction[:, :1].copy())]
    assert len(set(ids)) == 36


def test_what_was_not_measured_is_left_out(prediction):
    prediction.layers[keys.MEASURED][0, 0] = np.nan
    gene = f"{prediction.var_names[0]} measured"
    first, second, *_ = spot_features(prediction)
    assert gene not in first["properties"]["measurements"]
    assert gene in second["properties"]["measurements"]


def test_a_spot_in_no_domain_has_no_class(prediction):
    prediction.obs.loc[prediction.obs_names[0], keys.DOMAIN] = np.nan
    first, second, *_ = spot_features(prediction)
    assert "classification" not in first["properties"]
    assert second["properties"]["classification"]["name"] == "domain 1"
