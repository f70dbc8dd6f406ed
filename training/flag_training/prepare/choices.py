"""What is chosen once for a cohort and written down in its store: the splits and the genes."""

from dataclasses import asdict
from typing import Any

import numpy as np

from flag_training.prepare.panels import PanelRule, select_panel
from flag_training.prepare.plan import StorePlan
from flag_training.prepare.records import PREPARE, read_record, replacing, write_record
from flag_training.prepare.splits import split_patients, split_slides
from flag_training.prepare.store import SPLITS_RECORD, Store
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.slides.expression import GENE_IDS


def write_splits(plan: StorePlan, store: Store) -> None:
    """Write both splits down, or refuse those of another seed: a split that moves is a leak."""
    rule = plan.split
    unknown = set(rule.for_test) - set(store.names)
    if unknown:
        raise UserError(f"The cohort holds {', '.join(sorted(unknown))} for testing but has no such slide.")
    patients = {name: store.slide(name).patient for name in store.names}
    splits = {
        "slides": split_slides(
            store.names, rule.shares, np.random.default_rng([rule.seed, 0]), rule.for_test
        ),
        "patients": split_patients(
            patients, rule.shares, np.random.default_rng([rule.seed, 1]), rule.for_test
        ),
    }
    told = {
        "shares": list(rule.shares),
        "seed": rule.seed,
        "for_test": list(rule.for_test),
        "patients": patients,
        "splits": {
            by: {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(split).items()}
            for by, split in splits.items()
        },
    }
    path = store.path / SPLITS_RECORD
    if path.exists():
        if read_record(path, f"delete it and {PREPARE}.") != told:
            raise UserError(
                f"{path} splits these slides otherwise than asked for now; keep its seed and shares, or "
                "delete it to split anew, and train everything anew with it."
            )
        return
    write_record(path, told)


def write_panel(plan: StorePlan, rule: PanelRule, store: Store) -> Steps[None]:
    """Choose the genes on training slides (all slides where there is no split or it was asked for)."""
    split = store.split()
    alone = bool(split.unmade) or plan.panel_sees_all
    seen = [name for name in (store.names if alone else split.train) if name not in plan.split.for_test]
    told: dict[str, Any] = {
        "rule": asdict(rule),
        "seen": sorted(seen),
        "seen_beyond_training": sorted(set(seen) - set(split.train)) if not split.unmade else [],
        "names_from": sorted(set(store.names) - set(plan.split.for_test)),
    }
    path = store.path / "panels" / f"{rule.name}.json"
    if path.exists():
        record = read_record(path, f"delete it and {PREPARE}.")
        if any(record[key] != value for key, value in told.items()):
            raise UserError(
                f"The panel {rule.name} of {store.path} was chosen otherwise than asked for now; give the "
                "panel another name in the cohort file, or delete it."
            )
        return
    counts, known, ids = {}, [], {}
    for number, name in enumerate(told["names_from"]):
        yield Step("Choosing genes", number, len(told["names_from"]), "slides")
        slide = store.slide(name).counts()
        known.append(set(slide.var_names))
        ids.update({symbol: i for symbol, i in zip(slide.var_names, slide.var[GENE_IDS], strict=True) if i})
        if name in seen:
            counts[name] = slide
    genes = select_panel(counts, rule, set.intersection(*known))
    told["genes"] = [{"symbol": gene, "ensembl": ids.get(gene, "")} for gene in genes]
    with replacing(path.with_suffix(".txt")) as partial:
        partial.write_text("".join(f"{gene}\n" for gene in genes), "utf-8")
    write_record(path, told)
