"""Weights of a compared method: trained on a run's sections, written with the run's card."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flag_training.cohort import Cohort, load_cohort, stored_encoder
from flag_training.config import RunConfig
from flag_training.methods.method import Fitted, Method
from flag_training.stages.denoising import split_validation
from flag_training.stages.fit import make_card, tile_encoder
from flag_training.stages.training_tissue import fit_familiarity
from napari_flag import keys
from napari_flag.formatting import counted
from napari_flag.model.checkpoint import save_checkpoint
from napari_flag.progress import Step, Steps


def train_method(
    config: RunConfig, data: Path, run: Path, out: Path, name: str, method: Method
) -> Steps[Path]:
    """Train `method` on the sections of a run, and write its weights.

    Parameters
    ----------
    config, data, run
        As for `stages.fit.train`; sections of the config's validation are left out of everything.
    out
        The weights file to write.
    name, method
        What the method is called, and its values; one that returns `Fitted`.
    """
    config = replace(config, prior=None)  # levels of further patients, which FLAG's frames alone read
    if config.store is None:
        net = yield from tile_encoder(config, data, run)
        cohort = yield from load_cohort(config, data, run, net)
        encoder, tensors = "embedded", net.state_dict()
    else:
        cohort = yield from load_cohort(config, data, run, None)
        encoder, tensors = stored_encoder(config.store, data)
    training = split_validation(cohort, config.fit)[0]
    fitted = yield from method.fit(training, config.fit.seed)
    if not isinstance(fitted, Fitted):
        raise TypeError(f"{name} cannot be written as weights")
    yield Step("Describing the training tissue", 0, 1, "cohorts")
    save_checkpoint(
        out,
        fitted.network,
        tensors,
        encoder=encoder,
        genes=cohort.genes,
        card=describe(config, cohort, data, name, method, fitted),
        out_of_distribution=fit_familiarity(training),
        method=fitted.method,
    )
    return out


def describe(
    config: RunConfig, cohort: Cohort, data: Path, name: str, method: Any, fitted: Fitted
) -> dict[str, Any]:
    """Return the card of the weights of `method`, the run's with what differs from FLAG's."""
    card = make_card(config, cohort, data)
    del card["sampler"]
    if (sampler := fitted.predictor.sampler) is not None:
        card["sampler"] = {"solver": sampler.name, "steps": sampler.steps}
    held = fitted.network.state_dict().get("bank_expression")
    if held is not None:
        card[keys.CARD_BANK] = (
            f"the expression measured on {counted(len(held), 'training spot')}, so pass these weights on "
            "only as those data may be"
        )
    return card | {keys.CARD_METHOD: name, "values": {"method": asdict(method), "panel": config.panel}}
