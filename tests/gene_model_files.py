"""Makers of small gene foundation models, laid out as the published ones are."""

import json
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SYMBOLS = ["ERBB2", "KRT8", "COL1A1", "CD74", "ACTB", "GAPDH", "C1orf43", "VIM"]
IDS = [f"ENSG{i:011d}" for i in range(1, len(SYMBOLS) + 1)]
MEDIANS = [2.0, 1.0, 4.0, 0.5, 3.0, 2.5, 1.5, 1.0]
WIDTH = 12
SPECIAL_V2 = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}
SPECIAL_V1 = {"<pad>": 0, "<mask>": 1}


def tokens_of(special=SPECIAL_V2):
    """Ensembl id → token, after the special ones, as numpy numbers as published."""
    return special | {name: np.int64(len(special) + i) for i, name in enumerate(IDS)}


def write_dictionaries(folder: Path, corpus="_gc104M", special=SPECIAL_V2) -> Path:
    """The three dictionaries as pickles of numpy numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "token_dictionary": tokens_of(special),
        "gene_median_dictionary": dict(zip(IDS, np.array(MEDIANS), strict=True)),
        "gene_name_id_dict": dict(zip(SYMBOLS, IDS, strict=True)),
    }
    for name, values in found.items():
        (folder / f"{name}{corpus}.pkl").write_bytes(pickle.dumps(values, protocol=4))
    return folder


def write_geneformer(root: Path, special=SPECIAL_V2, corpus="_gc104M", length=16) -> Path:
    """A random BERT with a masked-language head, dictionaries in ``geneformer/`` beside it."""
    from transformers import BertConfig, BertForMaskedLM

    size = len(special) + len(IDS)
    config = BertConfig(
        vocab_size=size,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=length,
        hidden_act="relu",
    )
    torch.manual_seed(0)
    folder = root / "Geneformer-tiny"
    BertForMaskedLM(config).save_pretrained(folder)
    write_dictionaries(root / "geneformer", corpus, special)
    return folder


def write_scgpt(folder: Path) -> Path:
    """scGPT's two files; among the weights those of a value encoder, which must not matter."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {symbol: i for i, symbol in enumerate([*SYMBOLS, "<pad>", "<cls>", "<eoc>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    generator = torch.Generator().manual_seed(0)
    state = {
        "encoder.embedding.weight": torch.randn(len(vocabulary), WIDTH, generator=generator),
        "encoder.enc_norm.weight": torch.rand(WIDTH, generator=generator) + 0.5,
        "encoder.enc_norm.bias": torch.randn(WIDTH, generator=generator),
        "value_encoder.linear1.weight": torch.randn(WIDTH, 1, generator=generator),
    }
    torch.save(state, folder / "best_model.pt")
    return folder


def write_cellplm(folder: Path) -> Path:
    """CellPLM's config with its gene list, and its checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.config.json").write_text(json.dumps({"enc_hid": WIDTH, "gene_list": IDS}))
    embedding = torch.randn(len(IDS), WIDTH, generator=torch.Generator().manual_seed(0))
    saved = {"model_state_dict": {"embedder.feat_enc.emb": embedding}, "epoch": 3}
    torch.save(saved, folder / "tiny.best.ckpt")
    return folder


def write_word_embedding(folder: Path, rows: int) -> None:
    """A Geneformer weights file that holds the word embedding alone."""
    save_file({"bert.embeddings.word_embeddings.weight": torch.zeros(rows, 4)}, folder / "model.safetensors")
