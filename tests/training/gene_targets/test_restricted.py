import json
import os
import pickle

import numpy as np
import pytest

from flag_training.gene_targets.restricted import read_dictionary
from napari_flag.errors import UserError


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint32, np.float32, np.float64, float, int])
def test_dictionaries_of_numbers_are_read_as_published(tmp_path, protocol, kind):
    path = tmp_path / "d.pkl"
    path.write_bytes(pickle.dumps({"a": kind(3), "b": kind(251)}, protocol=protocol))
    found = read_dictionary(path)
    assert found == {"a": 3, "b": 251}
    assert {type(value) for value in found.values()} <= {int, float}


def test_numbers_of_the_other_byte_order_are_read(tmp_path):
    path = tmp_path / "d.pkl"
    path.write_bytes(pickle.dumps({"a": np.array([1.5], ">f8")[0], "b": np.dtype(">f8").type(2)}))
    assert read_dictionary(path) == {"a": 1.5, "b": 2.0}


def test_numbers_pickled_under_numpy_1_are_read(tmp_path):
    path = tmp_path / "d.pkl"
    content = pickle.dumps({"a": np.float64(2.5)}, protocol=2)
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_dictionary(path) == {"a": 2.5}


def test_json_is_read(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"a": 1, "b": 2.5, "c": "x"}))
    assert read_dictionary(path) == {"a": 1, "b": 2.5, "c": "x"}


class Harmful:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "argument"),
    [(os.system, "touch {}"), (eval, "open('{}', 'w')"), (np.dtype, "O"), (np.dtype, "V8")],
)
def test_a_pickle_that_asks_for_anything_but_numbers_is_refused_and_runs_nothing(tmp_path, call, argument):
    touched = tmp_path / "touched"
    path = tmp_path / "d.pkl"
    path.write_bytes(pickle.dumps({"a": Harmful(call, argument.format(touched))}))
    with pytest.raises(UserError, match="was not loaded because it loads"):
        read_dictionary(path)
    assert not touched.exists()


def test_arrays_are_refused(tmp_path):
    path = tmp_path / "d.pkl"
    path.write_bytes(pickle.dumps({"a": np.arange(3)}))
    with pytest.raises(UserError, match="because it loads"):
        read_dictionary(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps({"a": np.float64(1)})[:-9]])
def test_a_damaged_pickle_says_so(tmp_path, content):
    path = tmp_path / "d.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_dictionary(path)


@pytest.mark.parametrize("values", [["a"], {"a": [1]}, {1: "a"}, {"a": None}])
def test_a_file_that_holds_no_dictionary_of_genes_says_so(tmp_path, values):
    path = tmp_path / "d.pkl"
    path.write_bytes(pickle.dumps(values))
    with pytest.raises(UserError, match="holds no dictionary"):
        read_dictionary(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_dictionary(tmp_path / "none.pkl")
