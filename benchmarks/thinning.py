"""Diffusing the counts themselves, by thinning, against a latent and counts drawn from it.

The other way to draw counts (Chen & Zhou 2023, "Learning to Jump"): molecules of a spot are taken away at
random, and a network learns from those that are left, and from the image, at which rate the others come.
Sampling starts from none and adds molecules in small steps.  Gene–gene attention has its natural task there:
the molecules seen of other genes.  Here it starts from what is known in closed form (the rates that FLAG
expects, a gamma-distributed depth, a gamma-distributed rate of each gene) and learns what these miss, with
FLAG's own transformer and context.  FLAG and this are trained on the same cross-fitted expectations, and
draws of a section that neither saw are scored.

    python -m benchmarks.thinning --data DATA --run runs/her2st --unseen B4 C2 --section C4 \
        --out docs/results/thinning.json
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.special import gammaln
from torch import Tensor

from flag_training.cohort import fingerprint, load_cohort
from flag_training.config import read_config
from flag_training.evaluate import CROSSFIT, DRAWS, SILENCED, judge, keep
from flag_training.methods.rivals import NOISES, draws_around
from flag_training.run_folders import states_folder
from flag_training.scoring import COMPARED, SCORED, Judged, Section
from flag_training.stages.denoising import counts_of
from flag_training.stages.fit import fit, tile_encoder
from napari_flag.cli.terminal import watch
from napari_flag.files import write_json
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.gene_dit import GeneDiT
from napari_flag.model.observation import Observation

CONFIG: Final = Path(__file__).parents[1] / "training" / "configs" / "her2st.toml"
BATCH: Final = 64
JUMPS: Final = 48
"""Steps of a draw; shares of the molecules seen grow evenly on a square-root scale."""
SMALLEST: Final = 1e-4
"""Share of the molecules from which the network is asked."""


@dataclass(frozen=True)
class Rates:
    """What is known in closed form of the rate of the molecules that have not been seen.

    Parameters
    ----------
    depth
        Shape of the gamma distribution of a spot's depth, mean 1.
    gene
        (G,) shapes of the gamma distributions of each gene's rate, mean 1.
    """

    depth: float
    gene: Tensor

    def factor(self, seen: Tensor, expected: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (b, G) factor on the (b, G) `expected` rates given molecules `seen`, and of the depth.

        `share` is the (b, 1) share of all molecules that could have been seen.
        """
        total = expected.sum(1, keepdim=True)
        deep = (self.depth + seen.sum(1, keepdim=True)) / (self.depth + share * total)  # (b, 1)
        return deep * (self.gene + seen) / (self.gene + share * deep * expected), deep

    @classmethod
    def of(cls, counts: Tensor, expected: Tensor) -> "Rates":
        """Fit the shapes to (N, G) counts and their expected rates, by likelihood."""
        total, wanted = counts.sum(1).numpy(), expected.sum(1).numpy()
        depth = _shape(total, wanted)
        deep = torch.from_numpy((depth + total) / (depth + wanted))[:, None]
        around = (deep * expected).numpy()
        gene = [_shape(counts[:, g].numpy(), around[:, g]) for g in range(counts.shape[1])]
        return cls(depth, torch.tensor(gene))


def _shape(counts: npt.NDArray[np.float64], rates: npt.NDArray[np.float64]) -> float:
    """Return the shape of the negative binomial of mean `rates` that is likeliest for `counts`."""

    def loss(log_shape: float) -> float:
        a = np.exp(log_shape)
        chosen = gammaln(counts + a) - gammaln(a) + a * np.log(a / (a + rates))
        return -float((chosen + counts * np.log(rates / (a + rates))).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 8.0), method="bounded").x))


def asked(
    net: GeneDiT, seen: Tensor, expected: Tensor, share: Tensor, spatial: Tensor, rates: Rates
) -> Tensor:
    """Return the (b, G) log-rate of all molecules of a spot, given those `seen` of a `share` of them."""
    factor, deep = rates.factor(seen, expected, share)
    rate = factor * expected
    surprise = (seen - share * expected * deep) / (share * expected * deep + 0.1).sqrt()
    condition = net.condition(spatial, deep[:, 0].log().float())
    missed, _ = net(surprise.float(), share[:, 0].log().float() / 4, condition, rate.log().float())
    return rate.log().float() + missed


def train(
    counts: Tensor, expected: Tensor, spatial: Tensor, rates: Rates, net: GeneDiT, steps: int, seed: int
) -> None:
    """Learn what the closed form misses, by the Poisson likelihood of the molecules that were not seen."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-4, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-4, total_steps=steps)
    averaged = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    net.train()
    for step in range(steps):
        rows = torch.randint(len(counts), (BATCH,), generator=generator)
        even = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        share = even[:, None].double().square().clamp(SMALLEST, 0.98)
        seen = torch.binomial(counts[rows], share.expand(-1, counts.shape[1]), generator=generator)
        guess = asked(net, seen, expected[rows], share, spatial[rows], rates)
        left = ((counts[rows] - seen) / (1 - share)).float()
        loss = (((1 - share).float()) * (guess.exp() - left * guess)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        rate.step()
        averaged.update_parameters(net)
        if step % 100 == 0:
            sys.stderr.write(f"thinning {step} {loss.item():.4f}\n")
    net.load_state_dict(averaged.module.state_dict())
    net.eval()


@torch.no_grad()
def draws(
    net: GeneDiT | None, expected: Tensor, spatial: Tensor, rates: Rates, number: int, seed: int
) -> npt.NDArray[np.float32]:
    """Draw (number, n, G) log2(count + 1); without a network from the closed form alone.

    Draws of all numbers are independent.
    """
    generator = torch.Generator().manual_seed(seed)
    shares = torch.linspace(0, 1, JUMPS + 1, dtype=torch.float64).square()
    found = []
    for _ in range(number):
        seen = torch.zeros_like(expected)
        for here, there in pairwise(shares):
            share = here.clamp_min(SMALLEST).expand(len(expected), 1)
            if net is None:
                rate = rates.factor(seen, expected, share)[0] * expected
            else:
                rate = asked(net, seen, expected, share, spatial, rates).exp().double()
            seen = seen + torch.poisson((there - here) * rate, generator=generator)
        found.append(np.log2(seen.numpy() + 1).astype(np.float32))
    return np.stack(found)


def main() -> None:
    """Score both on one section, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument(
        "--unseen",
        nargs="*",
        default=[],
        help="sections that nothing sees; of B4 the tile encoder has the image",
    )
    parser.add_argument("--section", required=True, help="the section scored; only the tile encoder saw it")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = read_config(CONFIG)
    images = config.without(tuple(name for name in args.unseen if name != "B4"))
    net = watch(tile_encoder(images, args.data, args.run))
    cohort = watch(load_cohort(config, args.data, args.run, net))
    names = [slide.entry.name for slide in cohort.slides]
    absent = {*args.unseen, args.section}
    rest = keep(cohort, [name for name in names if name not in absent])
    without = config.without(tuple(name for name in names if name in absent))
    folder = states_folder(args.run, without, fingerprint(rest))
    network = watch(fit(rest, without, folder))
    predictor, residuals = FlagPredictor(network, cohort.genes), np.load(folder / CROSSFIT)
    place = names.index(args.section)
    slide, features = cohort.slides[place], cohort.features[place][0].numpy()
    section = Section.of(slide)
    encoded = predictor.encode(features, slide.graph(features))
    seen, ours = watch(judge(predictor, encoded, section, 0))
    found: dict[str, Judged] = {DRAWS: ours}
    found[SILENCED] = watch(judge(predictor, encoded.silenced(), section, 0))[1]
    counting = NOISES[-1]
    found[counting] = section.draws(draws_around(seen.mean, residuals, slide.spots.ids, SCORED, 0)[counting])

    alone = Observation.of(np.zeros(1), np.zeros(1))
    measured = np.concatenate([each.expression for each in rest.slides])

    def rates_of(expression: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.exp(alone.latent(expression.reshape(-1, 1)).reshape(expression.shape)))

    expected = rates_of(np.maximum(measured - residuals, 1e-3).astype(np.float64))
    here = rates_of(np.maximum(seen.mean, 1e-3).astype(np.float64))
    counts = torch.cat([counts_of(each.expression) for each in rest.slides])
    rates = Rates.of(counts, expected)
    spatial = torch.cat(
        [
            predictor.encode(views[0].numpy(), each.graph(views[0].numpy())).context.spatial
            for each, views in zip(rest.slides, rest.features, strict=True)
        ]
    ).clone()
    torch.manual_seed(0)
    sizes = network.config
    jumping = GeneDiT(
        sizes.genes, sizes.context_width, sizes.width, sizes.heads, sizes.blocks, sizes.mlp_ratio, 0.1
    )
    started = time.perf_counter()
    train(counts, expected, spatial, rates, jumping, args.steps, 0)
    seconds = time.perf_counter() - started
    number = len(SCORED)
    found["thinning"] = section.draws(draws(jumping, here, encoded.context.spatial, rates, number, 0))
    found["thinning, closed form alone"] = section.draws(
        draws(None, here, encoded.context.spatial, rates, number, 0)
    )
    result = {
        "command": f"python -m benchmarks.thinning --data DATA --run {args.run} "
        f"--unseen {' '.join(args.unseen)} --section {args.section} --steps {args.steps} --out {args.out}",
        "trained_on": [each.entry.name for each in rest.slides],
        "section": args.section,
        "seconds_of_training": round(seconds),
        "scores": {name: {k: judged.scores[k] for k in COMPARED} for name, judged in found.items()},
        "flag_less_thinning": section.difference(ours, found["thinning"]),
    }
    write_json(result, args.out)
    sys.stdout.write(json.dumps(result["scores"], indent=1) + "\n")


if __name__ == "__main__":
    main()
