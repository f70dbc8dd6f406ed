import errno
import json

import numpy as np
import pandas as pd
import pytest

from napari_flag import files
from napari_flag.errors import UserError


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        files.check_writable(tmp_path / "nowhere" / "out.h5ad")
    with pytest.raises(UserError, match="is a folder"):
        files.check_writable(tmp_path)
    files.check_writable(tmp_path / "out.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_known_before_the_work(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(UserError, match="permission denied"):
        files.check_writable(tmp_path / "out.h5ad")


def test_tables_and_json_are_read_by_anyone(tmp_path):
    table = pd.DataFrame({"gene": ["HLA-A", "µ"], "pcc": [0.123456789, np.nan]})
    files.write_table(table, tmp_path / "genes.csv")
    assert (tmp_path / "genes.csv").read_text(encoding="utf-8") == ("gene,pcc\nHLA-A,0.123457\nµ,\n")
    files.write_json({"PCC": None}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"PCC": None}
