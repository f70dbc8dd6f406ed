"""Commands of the training package, added to ``napari-flag``.  Heavy imports wait for the command."""

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flag_training.gene_targets import commands as gene_targets
from flag_training.store import command as prepare
from napari_flag.cli.terminal import (
    Commands,
    add_command,
    add_device,
    add_genes,
    add_json,
    add_keep_names,
    add_overwrite,
    at_least,
    fingerprint,
    path,
    positive,
)
from napari_flag.files import ending
from napari_flag.formatting import score
from napari_flag.keys import DEFAULT_WEIGHTS
from napari_flag.slides.colours import COLOURS

TRAIN: Final = """\
Train weights: tile encoder, mean head, gene transformer. Every stage is kept in the run folder; a
killed run resumes from there. With --method, the weights of another method on the same sections.
"""
FIT: Final = """\
Fit weights to measured sections: expectation and residuals, and the gene transformer on request.
Sections (at most eight; of more, every n-th) are left out in turn and scored beside floors and
controls; the scores are on a page beside the weights and on their card.
"""
EVALUATE: Final = """\
Leave each section (or its whole patient) out in turn, train on the rest and score it: FLAG's X, and
8 draws by proper scores, as they are, with the gene transformer silenced, around one factor, and
with the tiles shuffled between spots; draws that need no network around the same X and around ridge;
floors on the same features, methods blind to the image, and published methods where requested.
FLAG's draws are held against all others spot by spot. No image left out is seen by the tile encoder.
"""
TABLES: Final = """\
Tabulate the scores of several files of `napari-flag evaluate`: other sections, other methods, or the
runs of an ablation. A page of Markdown has all tables; CSV and LaTeX hold the paper's table, which
reads PCC, MSE, GSC and SSC from one array.
"""
SWEEP: Final = """\
Train at every combination of values and score X and draws on validation sections, each left out in
turn. Test sections are kept out of everything. A killed sweep is resumed.
"""
FIGURES: Final = """\
Draw from run folders whatever is in them: training-dynamics curves from their logs, and, from
held-out predictions that carry their truth (as evaluate leaves them), Moran's I predicted over
measured, co-expression heat maps, and the calibration of the intervals. A file that cannot be read is
named and left out, and the rest is drawn; the exit code is then 2.
"""

NO_NUMBERS: Final = {"run", "out", "predictions", "overwrite", "json", "debug", "use_previous"}
"""Arguments that no number depends on: what runs the command, and what becomes of its results."""
UNORDERED: Final = {
    "leave_out", "test", "unseen", "train_without", "methods", "baselines", "reseed", "only",
}  # fmt: skip
"""Arguments whose names may stand in any order; of seeds the first counts, of scores the order of tables."""

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flag_training.config import RunConfig
    from flag_training.evaluate import Plan
    from flag_training.figures import Found
    from flag_training.methods import Method


def add_commands(commands: Commands) -> None:
    """Add every command of this package."""
    prepare.add_commands(commands)
    gene_targets.add_commands(commands)
    parser = add_command(
        commands, "train", run_train, summary="train weights from a config", description=TRAIN
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--out", type=path, metavar="FILE.safetensors",
        help="weights file to write (default: RUN/NAME.safetensors, or with --method "
        "RUN/NAME_METHOD.safetensors)",
    )  # fmt: skip
    add_overwrite(parser, "the weights")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="SECTION", help="sections not to train on"
    )
    parser.add_argument(
        "--method", metavar="NAME|FILE.toml",
        help="train another method than FLAG: a published one, e.g. training/configs/baselines/bleep.toml, "
        'or a floor by its name, e.g. "ridge"',
    )  # fmt: skip
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        type=path,
        metavar="FILE.json",
        help="held-out scores to state on the data card",
    )
    add_fit(commands)
    add_evaluate(commands)
    add_sweep(commands)
    add_figures(commands)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every run takes: config, data, run folder, seed, and what to do with damaged states."""
    parser.add_argument("config", type=path, metavar="CONFIG.toml", help="values of the run")
    parser.add_argument(
        "--data", type=path, required=True, metavar="DIR", help="folder the config's files are in"
    )
    parser.add_argument(
        "--run", type=path, dest="folder", metavar="DIR", help="run folder (default: runs/NAME)"
    )
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="seed (default: the config's)")
    parser.add_argument(
        "--use-previous",
        action="store_true",
        help="where a training state is damaged, resume from the one saved before it",
    )


def run_train(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag train``."""
    from napari_flag.fitting import require_training

    require_training()
    from dataclasses import replace

    from flag_training.cohort import held_out, with_store
    from flag_training.engine.devices import is_first_process
    from flag_training.methods.published import read_method
    from flag_training.methods.weights import train_method
    from flag_training.result_tables import metrics_of, read_several
    from flag_training.stages.fit import train
    from napari_flag import keys
    from napari_flag.cli.terminal import ProgressLine, cancelled_as, kept_in
    from napari_flag.errors import UserError
    from napari_flag.exports.replacing import check_place, repeats
    from napari_flag.model.checkpoint import check_name
    from napari_flag.progress import finish

    if arguments.method and arguments.metrics:
        raise UserError(
            "--metrics states scores of FLAG, and --method trains another method; leave one of them out."
        )
    method = read_method(arguments.method) if arguments.method else None
    config = with_store(config_of(arguments), arguments.data)
    config = config.without((*arguments.leave_out, *held_out(config, arguments.data)))
    run = arguments.folder or Path("runs") / config.name
    identity = identity_of("train", arguments, run)
    card = config.card | {keys.COMMAND: command_of(arguments), keys.COMMAND_HASH: identity}
    if arguments.metrics:
        card[keys.CARD_HELD_OUT] = metrics_of(read_several(arguments.metrics))
    config = replace(config, card=card)
    out = arguments.out or run / f"{_weights_name(config, method)}.safetensors"
    check_name(out)
    if is_first_process():  # of several, the others would see what it writes
        check_place(out, arguments.overwrite, lambda: repeats(out, identity))
    with cancelled_as(lambda: kept_in(run)), ProgressLine() as line:
        if method is None:
            work = train(config, arguments.data, run, out, use_previous=arguments.use_previous)
        else:
            work = train_method(config, arguments.data, run, out, *method)
        finish(work, line if is_first_process() else None)
    if is_first_process():
        sys.stdout.write(f"Wrote {out}.\n")
    return 0


def _weights_name(config: "RunConfig", method: "tuple[str, Method] | None") -> str:
    """Return the run's name, with that of another method than FLAG."""
    if method is None:
        return config.name
    words = "".join(letter if letter.isalnum() else " " for letter in method[0].lower()).split()
    return "_".join([config.name, *words])


def command_of(arguments: argparse.Namespace) -> str:
    """Return the command as another machine would give it, without folders of this one, for people to read.

    The data folder is DATA; paths within the working folder stay, of others the name does.  ``--overwrite``
    is left out: with and without it the same is made.  A repetition is known by `identity_of`.
    """
    data = str(getattr(arguments, "data", None))
    typed = [word for word in sys.argv[1:] if word != "--overwrite"]
    words = ["DATA" if word == data else _without_folder(word) for word in typed]
    return shlex.join(["napari-flag", *words])


def identity_of(command: str, arguments: argparse.Namespace, run: Path | None = None) -> str:
    """Return the hash by which a repetition of a command is known (`terminal.fingerprint`).

    It is of all arguments that the numbers depend on, with whole paths, however they were typed and, where
    it means nothing, in whatever order; `run` is the folder of its states, where it has one.
    """
    given = vars(arguments) | {"folder": run}
    method = given.get("method")
    if method is not None and ending(method) == ".toml":
        given["method"] = path(method)
    words: list[str | Path] = ["napari-flag", command]
    for name in sorted(given.keys() - NO_NUMBERS):
        value = given[name]
        if value is None or value is False or value == []:
            continue
        several = value if isinstance(value, list) else [value]
        several = sorted(several) if name in UNORDERED else several
        words += [f"--{name}", *(each if isinstance(each, Path) else str(each) for each in several)]
    return fingerprint(words)


def _without_folder(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    elsewhere = path.is_absolute() or ".." in path.parts or value.startswith("~")
    return f"{option}{equals}{path.name}" if elsewhere else word


def add_fit(commands: Commands) -> None:
    """Add ``fit``."""
    parser = add_command(
        commands, "fit", run_fit, description=FIT,
        summary="fit weights to your own measured sections, without a config",
    )  # fmt: skip
    parser.add_argument(
        "sections", type=path, metavar="FOLDER|LIST.csv",
        help="folder with slides, spots and counts, or a CSV with the columns name, patient, image, spots, "
        "counts, mpp",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=path, required=True, metavar="FILE.safetensors",
        help="weights to write, in a folder that is made if needed",
    )  # fmt: skip
    add_overwrite(parser, "the weights")
    parser.add_argument(
        "--mpp",
        type=positive,
        metavar="UM",
        help="µm per pixel of the full-resolution slides, where a list does not state it (default: as their "
        "files say)",
    )
    add_genes(parser, "200 with high mean and high variance", "genes to predict: symbols")
    parser.add_argument(
        "--encoder", default=DEFAULT_WEIGHTS, metavar="NAME",
        help="an encoder of `napari-flag encoders list`, weights whose encoder to take, or new: one trained "
        "on these sections, and from scratch for each left out, which takes hours "
        f"(default: {DEFAULT_WEIGHTS})",
    )  # fmt: skip
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="SECTION", help="sections not to use at all"
    )
    parser.add_argument(
        "--diffusion", action="store_true",
        help="train the gene transformer too; its worth on few sections is small",
    )  # fmt: skip
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="seed (default: 0)")
    parser.add_argument(
        "--colours", choices=COLOURS,
        help="scanned: pixels as stored; srgb: converted by each slide's colour profile, as slides predicted "
        "with the weights will be (default: as the encoder's weights were trained, else scanned)",
    )  # fmt: skip
    add_device(parser, "where tiles are encoded: ")
    parser.add_argument(
        "--run", type=path, dest="folder", metavar="DIR",
        help="folder of states and scores; a killed fit goes on there (default: beside --out)",
    )  # fmt: skip
    add_keep_names(parser)


def run_fit(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag fit``."""
    from napari_flag.cli.terminal import ProgressLine, cancelled_as, kept_in
    from napari_flag.exports.replacing import check_place, repeats
    from napari_flag.fitting import FitSettings, find_sections, load_training, verdict
    from napari_flag.formatting import counted
    from napari_flag.model.checkpoint import check_name
    from napari_flag.progress import finish

    training = load_training()
    run = arguments.folder or training.run_folder(arguments.out)
    settings = FitSettings(
        encoder=arguments.encoder,
        genes=arguments.genes,
        diffusion=arguments.diffusion,
        seed=arguments.seed,
        device=arguments.device,
        colours=arguments.colours,
        keep_names=arguments.keep_names,
    )
    check_name(arguments.out)
    sections, notices = find_sections(arguments.sections, arguments.mpp)
    out, asked = arguments.out, (sections, settings, arguments.leave_out)
    check_place(out, arguments.overwrite, lambda: repeats(out, training.identity_of(*asked)))
    with cancelled_as(lambda: kept_in(run)), ProgressLine() as line:
        for notice in notices:
            line.notice(notice)
        work = training.fit_sections(
            sections,
            arguments.out,
            settings,
            leave_out=arguments.leave_out,
            run=run,
            source=_named(arguments),
        )
        fitted = finish(work, line)
    sys.stdout.write(
        f"{verdict(fitted.scores)[1]}\nWrote {fitted.weights}: {counted(len(fitted.genes), 'gene')}, "
        f"{counted(len(fitted.sections), 'section')}; all scores are in {fitted.page}.\n"
    )
    return 0


def _named(arguments: argparse.Namespace) -> str | None:
    """Return what the card's command names as sections; with µm/px stated, the list beside the page."""
    from napari_flag.slides.file_identity import name_of

    return name_of(arguments.sections.resolve(), arguments.keep_names) if arguments.mpp is None else None


def run_folder(arguments: argparse.Namespace, name: str) -> Path:
    """Return the folder of the run `name`, its damaged states replaced if requested."""
    from flag_training.engine.checkpointing import use_previous

    run: Path = arguments.folder or Path("runs") / name
    for state in use_previous(run) if arguments.use_previous else ():
        sys.stderr.write(f"Note: {state} was damaged; resuming from the state before it.\n")
    return run


def config_of(arguments: argparse.Namespace) -> "RunConfig":
    """Return the run that the command line names, under its seed."""
    from dataclasses import replace

    from flag_training.config import read_config
    from napari_flag.errors import UserError

    config = read_config(arguments.config)
    if arguments.seed is None:
        return config
    if getattr(arguments, "seeds", None):
        raise UserError("--seed and --seeds both say with which seeds to train; leave one of them out.")
    return replace(config, fit=replace(config.fit, seed=arguments.seed))


def add_evaluate(commands: Commands) -> None:
    """Add ``evaluate`` and ``tables``."""
    parser = add_command(
        commands, "evaluate", run_evaluate, description=EVALUATE,
        summary="score sections that were not trained on, with every simple method",
    )  # fmt: skip
    add_run_arguments(parser)
    parser.add_argument(
        "--test", nargs="+", metavar="SECTION",
        help="sections to score, each left out in turn (default: the test part of a store's split, at once)",
    )  # fmt: skip
    parser.add_argument(
        "--unseen", nargs="+", default=[], metavar="SECTION", help="sections kept out of everything"
    )
    parser.add_argument(
        "--leave-patient-out", action="store_true", help="leave out all sections of a section's patient"
    )
    parser.add_argument("--together", action="store_true", help="leave all of --test out at once")
    parser.add_argument(
        "--train-without", nargs="+", default=[], metavar="SECTION",
        help="train a second time without these, so that every method has its better training set",
    )  # fmt: skip
    parser.add_argument(
        "--once", action="store_true", help="train without the sections of --train-without only"
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME",
        help='what to score: FLAG and its rivals, "floors", "image-blind", or names of floors (default: all)',
    )  # fmt: skip
    parser.add_argument(
        "--baselines", nargs="+", type=path, default=[], metavar="FILE.toml",
        help="published methods to train too, e.g. training/configs/baselines/*.toml",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", nargs="+", type=at_least(0), metavar="N", help="FLAG's seeds (default: the config's)"
    )
    parser.add_argument(
        "--reseed", nargs="+", default=[], metavar="NAME",
        help="methods that are run with every seed too, such as FLAG's nearest rival",
    )  # fmt: skip
    parser.add_argument(
        "--predictions", type=path, metavar="DIR",
        help="where to keep held-out predictions with their truth, of FLAG and of every method that can be "
        "written as weights (default: RUN/held_out/NAME/seed_N, of the config's name and the first seed)",
    )  # fmt: skip
    parser.add_argument("--out", type=path, required=True, metavar="FILE.json", help="scores to write")
    add_overwrite(parser, "the scores and held-out predictions")
    add_json(parser)
    parser = add_command(
        commands, "tables", run_tables, summary="turn files of scores into one page of tables",
        description=TABLES,
    )  # fmt: skip
    parser.add_argument("scores", nargs="+", type=path, metavar="FILE.json", help="files of evaluate")
    parser.add_argument(
        "--title",
        default="Held-out scores",
        metavar="TEXT",
        help="heading of the page (default: %(default)s)",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="methods to show (default: all)"
    )
    parser.add_argument(
        "--authors", choices=("HER2ST", "KIDNEY", "PRAD"),
        help="put the numbers that FLAG's authors state for this cohort beside ours in the paper's table, "
        "marked as theirs",
    )  # fmt: skip
    add_overwrite(parser, "the page")
    parser.add_argument(
        "--out", type=path, metavar="FILE",
        help="page of Markdown (.md), or the paper's table as .csv or LaTeX (.tex) (default: print the page)",
    )  # fmt: skip


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag evaluate``."""
    from napari_flag.fitting import require_training

    require_training()
    from dataclasses import replace

    from flag_training.cohort import held_out, with_store
    from flag_training.evaluate import evaluate, held_out_files
    from flag_training.result_tables import markdown, read_results, results_of
    from napari_flag import keys
    from napari_flag.cli.terminal import ProgressLine, cancelled_as, kept_in
    from napari_flag.exports.replacing import check_place, repeats
    from napari_flag.files import make_folder, write_json
    from napari_flag.progress import finish

    config = with_store(config_of(arguments), arguments.data)
    part = held_out(config, arguments.data)
    plan = plan_of(arguments, config.fit.seed, part)
    run = run_folder(arguments, config.name)
    command, identity = command_of(arguments), identity_of("evaluate", arguments, run)
    config = replace(config, card=config.card | {keys.COMMAND: command, keys.COMMAND_HASH: identity})
    check_place(arguments.out, arguments.overwrite, lambda: repeats(arguments.out, identity))
    kept = arguments.predictions or run / "held_out" / config.name / f"seed_{plan.seeds[0]}"
    for file in held_out_files(config, plan, kept):
        is_same = partial(repeats, file, identity)
        check_place(file, arguments.overwrite, is_same, elsewhere="another --predictions")
    with cancelled_as(lambda: kept_in(run)), ProgressLine() as line:
        outcome = finish(evaluate(config, arguments.data, run, plan, kept), line)
    results = results_of(outcome, plan, command) | {keys.COMMAND_HASH: identity}
    make_folder(arguments.out.parent)
    write_json(results, arguments.out)
    shown = (
        json.dumps(results, indent=2)
        if arguments.json
        else markdown([read_results(arguments.out)], config.name)
    )
    sys.stdout.write(shown + "\n")
    return 0


def plan_of(arguments: argparse.Namespace, seed: int, part: tuple[str, ...] = ()) -> "Plan":
    """Return the plan that the command line describes.

    Parameters
    ----------
    arguments
        Of ``evaluate``.
    seed
        FLAG's, where none is asked for.
    part
        What is scored where no section is named: the test part of the store's split.

    Raises
    ------
    UserError
        When it names no section, or a method that there is not.
    """
    from flag_training.evaluate import Plan
    from flag_training.methods.published import read_baseline
    from napari_flag.errors import UserError

    known = known_methods()
    asked = arguments.methods or ["FLAG", "floors", "image-blind"]
    groups = {"floors": "floor", "image-blind": "image-blind"}
    unknown = [name for name in asked if name != "FLAG" and name not in groups and name not in known]
    if unknown:
        raise UserError(
            f"There is no method called {', '.join(unknown)}; choose FLAG, floors, image-blind, or of "
            f"{'; '.join(known)}."
        )
    wanted = {groups.get(name, name) for name in asked}
    methods = {name: (kind, m) for name, (kind, m) in known.items() if wanted & {name, kind}}
    for file in arguments.baselines:
        name, method = read_baseline(file)
        if name in methods:
            raise UserError(f"{file} is of {name}, which is scored already; give each method once.")
        methods[name] = ("published", method)
    absent = [name for name in arguments.reseed if name not in methods]
    if absent:
        raise UserError(
            f"{', '.join(absent)} is not among the methods scored, so it cannot be reseeded; name it with "
            "--methods or --baselines too, or leave it out of --reseed."
        )
    if arguments.once and not arguments.train_without:
        raise UserError(
            "--once trains without the sections of --train-without only; name them there, or leave it out."
        )
    if not arguments.test and not part:
        raise UserError(
            "There is nothing to score: name sections with --test; this run has no split of a store."
        )
    return Plan(
        test=tuple(arguments.test or part),
        unseen=tuple(arguments.unseen),
        by_patient=arguments.leave_patient_out,
        together=arguments.together or not arguments.test,
        train_without=tuple(sorted(arguments.train_without)),
        once=arguments.once,
        methods=methods,
        flag="FLAG" in asked,
        seeds=tuple(arguments.seeds or [seed]),
        reseeded=tuple(arguments.reseed),
    )


def known_methods() -> "dict[str, tuple[str, Method]]":
    """Return the floors and the image-blind methods: name → (kind, method)."""
    from flag_training.methods.controls import IMAGE_BLIND
    from flag_training.methods.floors import LEARNED_FLOORS

    floors = {name: ("floor", method) for name, method in LEARNED_FLOORS.items()}
    return floors | {name: ("image-blind", method) for name, method in IMAGE_BLIND.items()}


def run_tables(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag tables``."""
    from dataclasses import replace

    from flag_training.paper_table import FORMATS, PaperTable, check_ending
    from flag_training.result_tables import is_same_table, markdown, read_several
    from napari_flag.errors import UserError
    from napari_flag.exports.replacing import SEALED_LINE, check_place, last_line, repeats
    from napari_flag.files import make_folder, write_text

    if arguments.out is not None:
        check_ending(arguments.out)
    elif arguments.overwrite:
        raise UserError("--overwrite replaces the file of --out; give --out too, or leave it out.")
    results = read_several(arguments.scores)
    table = PaperTable.of(results, arguments.title, arguments.only, arguments.authors)
    wanted = "" if arguments.out is None else ending(arguments.out)
    if wanted in FORMATS:
        page = FORMATS[wanted](table)
    else:
        page = markdown(results, arguments.title, arguments.only, command_of(arguments))
        beside = replace(table, title="Beside the authors' numbers").markdown()
        page += f"\n{beside}\n" if arguments.authors else ""
    if arguments.out is None:
        sys.stdout.write(page)
        return 0
    if wanted in FORMATS:
        is_same = partial(is_same_table, arguments.out, page)
    else:
        identity = identity_of("tables", arguments)
        page += SEALED_LINE + last_line(identity)
        is_same = partial(repeats, arguments.out, identity)
    check_place(arguments.out, arguments.overwrite, is_same)
    make_folder(arguments.out.parent)
    write_text(page, arguments.out)
    sys.stdout.write(f"Wrote {arguments.out}.\n")
    return 0


def add_sweep(commands: Commands) -> None:
    """Add ``sweep``."""
    parser = add_command(
        commands, "sweep", run_sweep, summary="try values on inner validation sections", description=SWEEP
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--vary", nargs="+", required=True, metavar="KEY=V1,V2",
        help="values to try, e.g. fit.score_steps=100,300 network.width=64,96",
    )  # fmt: skip
    parser.add_argument(
        "--validate", nargs="+", required=True, metavar="SECTION", help="sections to choose values on"
    )
    parser.add_argument(
        "--unseen", nargs="+", default=[], metavar="SECTION",
        help="test sections, kept out of everything (a store's split names its own)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", nargs="+", type=at_least(0), metavar="N", help="seeds (default: the config's)"
    )
    parser.add_argument("--out", type=path, metavar="FILE.csv", help="results (default: RUN/sweep.csv)")


def run_sweep(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag sweep``."""
    from napari_flag.fitting import require_training

    require_training()
    from flag_training.cohort import held_out, with_store
    from flag_training.evaluate import Plan
    from flag_training.scoring import called
    from flag_training.sweep import REPORTED, best_first, check_sections, read_grid, sweep
    from napari_flag.cli.terminal import ProgressLine, cancelled_as, kept_in
    from napari_flag.files import check_writable
    from napari_flag.progress import finish

    config = with_store(config_of(arguments), arguments.data)
    unseen = (*arguments.unseen, *held_out(config, arguments.data))
    check_sections(arguments.validate, unseen)
    grid = read_grid(arguments.vary)
    seeds = tuple(arguments.seeds or [config.fit.seed])
    plan = Plan(tuple(arguments.validate), unseen=unseen, seeds=seeds)
    run = run_folder(arguments, config.name)
    table = arguments.out or run / "sweep.csv"
    check_writable(table, folder_is_made=True)
    with cancelled_as(lambda: kept_in(run)), ProgressLine() as line:
        rows = finish(sweep(config, arguments.data, run, plan, grid, table), line)
    sys.stdout.write("  ".join(f"{called(name):>9}" for name in REPORTED) + "\n")
    for values, scores in best_first(rows, grid):
        merged = ", ".join(f"{key} = {value}" for key, value in values.items())
        sys.stdout.write("  ".join(f"{score(scores[name], name):>9}" for name in REPORTED) + f"  {merged}\n")
    sys.stdout.write(f"Every row is in {table}.\n")
    return 0


def add_figures(commands: Commands) -> None:
    """Add ``figures``."""
    parser = add_command(
        commands, "figures", run_figures, description=FIGURES,
        summary="draw training curves and held-out structure from run folders",
    )  # fmt: skip
    parser.add_argument(
        "runs", nargs="+", type=path, metavar="RUN", help="run folders, or single logs and predictions"
    )
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument(
        "--format", choices=("png", "pdf", "svg"), default="png", help="of the pictures (default: png)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that napari-flag drew")


def run_figures(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag figures``."""
    from flag_training.figures import find
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.exports.replacing import check_place
    from napari_flag.figures.gene_figure import write_figure
    from napari_flag.figures.style import house_style
    from napari_flag.files import make_folder, place_in

    found = find(arguments.runs)
    with ProgressLine() as line:
        for sentence in found.unread:
            line.notice(sentence)
    with house_style():
        drawn = draw_all(found)
        places = {place_in(arguments.out, name, f".{arguments.format}"): drawn[name] for name in drawn}
        for place in places:
            check_place(place, arguments.overwrite)
        make_folder(arguments.out)
        for place, figure in places.items():
            write_figure(figure, place)
            sys.stdout.write(f"Wrote {place}.\n")
    return 2 if found.unread else 0


def draw_all(found: "Found") -> "dict[str, Figure]":
    """Return file name → picture, of everything that was found.

    Raises
    ------
    UserError
        When there is nothing to draw.
    """
    from flag_training.figures import draw_dynamics
    from napari_flag.errors import UserError
    from napari_flag.figures.agreement import draw_calibration, draw_moran
    from napari_flag.figures.heat_maps import draw_coexpression

    logs, sections = found.logs, found.sections
    if not logs and not sections:
        raise UserError(
            "There is no training log and no held-out prediction with its truth in "
            f"{', '.join(str(place) for place in found.places)}; give run folders of train or evaluate."
        )
    drawn = {"training": draw_dynamics(logs)} if logs else {}
    if sections:
        drawn["moran"] = draw_moran(sections)
        drawn |= {f"coexpression_{section.name}": draw_coexpression(section) for section in sections}
    spread = [section for section in sections if section.spread is not None]
    return drawn | ({"calibration": draw_calibration(spread)} if spread else {})
