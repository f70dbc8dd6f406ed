import dataclasses

import numpy as np
import pytest
from tests.gene_model_files import IDS, MEDIANS, SPECIAL_V1, SPECIAL_V2, SYMBOLS, tokens_of

from flag_training.gene_targets.geneformer import RankValueEncoder, Vocabulary

GENES = [*SYMBOLS, "NOVEL"]
COUNTS = np.array([10, 0, 8, 1, 9, 0, 4, 0, 68.0])
"""Counts over the medians 2, 1, 4, 0.5, 3, 2.5, 1.5, 1: 5, 0, 2, 2, 3, 0, 2.67, 0; the last is not known."""


def vocabulary(special=SPECIAL_V2, length=16):
    ids = dict(zip(SYMBOLS, IDS, strict=True))
    tokens = {name: int(token) for name, token in tokens_of(special).items()}
    return Vocabulary(tokens, dict(zip(IDS, MEDIANS, strict=True)), ids, {}, length)


def test_genes_stand_in_the_order_of_counts_over_medians_between_cls_and_eos():
    encoder = RankValueEncoder.of(vocabulary(), GENES)
    # ERBB2 5, ACTB 3, C1orf43 2.67, then COL1A1 and CD74, both 2, as their columns stand
    assert encoder.encode(COUNTS).tolist() == [2, 4, 8, 10, 6, 7, 3]


def test_version_1_has_no_special_tokens():
    encoder = RankValueEncoder.of(vocabulary(SPECIAL_V1), GENES)
    assert encoder.encode(COUNTS).tolist() == [2, 6, 8, 4, 5]


@pytest.mark.parametrize(("special", "expected"), [(SPECIAL_V2, [2, 4, 8, 3]), (SPECIAL_V1, [2, 6, 8, 4])])
def test_long_spots_are_cut_special_tokens_included(special, expected):
    encoder = RankValueEncoder.of(vocabulary(special, length=4), GENES)
    assert encoder.encode(COUNTS).tolist() == expected


def test_columns_of_one_gene_are_summed():
    genes = ["KRT8", "VIM", f"{IDS[1]}.3"]  # KRT8 twice, under both names
    encoder = RankValueEncoder.of(vocabulary(), genes)
    assert encoder.encode(np.array([2, 3, 2.0])).tolist() == [2, 5, 11, 3]
    assert encoder.encode(np.array([2, 3, 0.0])).tolist() == [2, 11, 5, 3]


def test_a_spot_without_counts_has_special_tokens_only():
    assert RankValueEncoder.of(vocabulary(), GENES).encode(np.zeros(9)).tolist() == [2, 3]


def test_a_gene_without_median_is_not_ranked():
    medians = dict(zip(IDS[:4], MEDIANS, strict=False))
    encoder = RankValueEncoder.of(dataclasses.replace(vocabulary(), medians=medians), GENES)
    assert encoder.encode(COUNTS).tolist() == [2, 4, 6, 7, 3]
