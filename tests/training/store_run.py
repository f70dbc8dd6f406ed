"""A run over a small store: slides, features and all, ready in a second."""

from dataclasses import replace

from tests.cohort_files import TinyEncoder, hest_folder
from tests.training.conftest import make_config

from flag_training.cohort import with_store
from flag_training.config import StoreConfig
from flag_training.store.building import Encoding, build_store
from flag_training.store.hest import find_metadata, hest_sources, read_metadata
from flag_training.store.panels import PanelRule
from flag_training.store.plan import StorePlan
from flag_training.store.sources import HUMAN
from napari_flag.progress import finish


def make_store_run(folder, slides=4):
    """Return a run over TST1, TST2, … and the data folder its store is in."""
    hest = hest_folder(folder / "hest", samples=slides)
    names = [f"TST{i}" for i in range(1, slides + 1)]
    sources = hest_sources(names, read_metadata(find_metadata(hest)), hest, HUMAN)
    rule = PanelRule("top8", 8, exact=True, variable_genes=0)
    plan = StorePlan("tiny", HUMAN, sources, hest, panel=rule)
    finish(build_store(plan, folder / "tiny", Encoding(TinyEncoder(), views=2)))
    config = replace(make_config(views=2), store=StoreConfig("tiny", "tiny", "top8", split=""))
    return with_store(config, folder), folder
