"""What each command of the command line does with its words; packages load only when a command needs them."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastseg.errors import InputError


def train_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Train, go on with a run, or print the configuration."""
    from fastseg.config import dump_config, load_config

    if args.resume is None:
        cfg = load_config(args.config, *overrides)
    elif args.config is not None:
        raise InputError("--resume goes on with the run's own configuration; leave --config out")
    else:
        from fastseg.experiments.resume import run_config

        _, cfg = run_config(args.resume, *overrides)
    if args.print_config:
        print(dump_config(cfg, comments=True), end="")
        return
    from fastseg.experiments.train import train
    from fastseg.run import METRICS

    run = train(cfg, args.resume)
    scores = json.loads((run / METRICS).read_text(encoding="utf-8"))
    _show(scores, cfg.classes(), args.json, run)


def evaluate_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Score a run, or masks."""
    if (args.run_folder is None) == (args.masks is None):
        raise InputError("give either a run or --masks DIR")
    if args.masks is not None:
        _evaluate_masks(args, overrides)
        return
    if args.config:
        raise InputError("--config goes with --masks; a run has its own")
    from fastseg.run import Run

    run = Run.open(args.run_folder)
    from fastseg.data.progress import progress_line
    from fastseg.inference.evaluate import evaluate

    scores = evaluate(run, args.root, args.split, progress_line("scoring"), protocol=args.protocol,
                      definition=args.definition, decode=args.decode, tta=args.tta, boundary=args.boundary,
                      overrides=overrides)  # fmt: skip
    _show(scores, run.hierarchy, args.json)


def _evaluate_masks(args: Namespace, overrides: Sequence[str]) -> None:
    if (args.protocol, args.decode, args.tta) != ("native", "leaf", None):
        raise InputError("--masks are scored as they are: --protocol, --decode and --tta go with a run")
    from fastseg.config import load_config
    from fastseg.data.progress import progress_line
    from fastseg.inference.score_masks import evaluate_masks

    scores = evaluate_masks(args.masks, args.root, args.split, progress_line("scoring"), config=args.config,
                            definition=args.definition, boundary=args.boundary, overrides=overrides)  # fmt: skip
    _show(scores, load_config(args.config).classes(), args.json)


def compare_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Compare runs."""
    from fastseg.data.progress import progress_line
    from fastseg.inference.compare import compare
    from fastseg.inference.tables import comparison_table
    from fastseg.run import Run

    found = compare(args.run_folders, args.root, args.split, progress_line("scoring"), protocol=args.protocol,
                    definition=args.definition, decode=args.decode, tta=args.tta, overrides=overrides)  # fmt: skip
    tree = Run.open(args.run_folders[0]).hierarchy
    print(json.dumps(found, indent=1) if args.json else comparison_table(found, tree))


def search_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Search, and show the best trials."""
    from fastseg.config import load_config
    from fastseg.experiments.search import search, table_of

    folder = search(load_config(args.config or "search_sample", *overrides), args.finish)
    print(table_of(folder))
    names = ", ".join(sorted(file.name for file in folder.iterdir()))
    print(f"\n{folder}/\n    {names}")


def export_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Export a run."""
    from fastseg.inference.export import export
    from fastseg.inference.tables import proof_table
    from fastseg.run import Run

    run = Run.open(args.run_folder)
    proof = export(run, args.format, args.out, int8=args.int8, size=args.size, preprocessing=args.with_preprocessing,
                   root=args.root, tolerance=args.tolerance, overrides=overrides,
                   told=lambda text: print(text, file=sys.stderr, flush=True))  # fmt: skip
    print(json.dumps(proof, indent=1) if args.json else proof_table(proof))


def benchmark_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Time a run in every runtime."""
    from fastseg.inference.benchmark import benchmark
    from fastseg.inference.tables import benchmark_table
    from fastseg.run import Run

    rows = benchmark(Run.open(args.run_folder), args.size, args.threads, args.repeats, root=args.root,
                     overrides=overrides, told=lambda text: print(text, file=sys.stderr, flush=True))  # fmt: skip
    print(json.dumps(rows, indent=1) if args.json else benchmark_table(rows))


def predict_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Write masks of photographs."""
    from fastseg.data.progress import progress_line
    from fastseg.inference.predict import Predictor
    from fastseg.inference.predict_files import predict_files

    predictor = Predictor(args.source, args.device, args.threads, args.decode, args.tta, args.size, args.tile,
                          args.batch_size)  # fmt: skip
    save = [kind.strip() for kind in args.save.split(",") if kind.strip()]
    done = predict_files(predictor, args.photographs, args.out, save, args.level, progress_line("predicting"))
    there = f", {done.there:,} were there already" if done.there else ""
    print(f"{done.out}/: {done.made:,} photograph{'s' * (done.made != 1)}{there}")
    if done.bad:
        count = len(done.bad)
        raise InputError(f"{count:,} photograph{'s' * (count > 1)} could not be read, the rest is done; "
                         f"the first: {done.bad[0][1]}")  # fmt: skip


def report_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Write the page of a run."""
    from fastseg.experiments.report import report

    print(report(args.run_folder))


def serve_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Serve the page of a run."""
    from fastseg.inference.app import serve

    serve(args.source, args.host, args.port, threads=args.threads, device=args.device)


def _show(scores: dict[str, Any], tree: Any, as_json: bool, run: Path | None = None) -> None:
    from fastseg.inference.tables import score_table

    if as_json:
        print(json.dumps(scores | ({"run": str(run)} if run else {}), indent=1))
        return
    print(score_table(scores, tree))
    if run:
        files = ", ".join(sorted(file.name for file in run.iterdir() if file.is_file()))
        print(f"\n{run}/\n    {files}")


def check_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Check a dataset."""
    from fastseg.config import load_config
    from fastseg.data.check import check
    from fastseg.data.progress import progress_line

    # Among folders, key=value is a setting like those behind them.
    folders = [word for word in args.folder if "=" not in word or os.path.isdir(word)]
    cfg = load_config(args.config, *(word for word in args.folder if word not in folders), *overrides)
    if not folders:
        raise InputError("name the folder of a dataset")
    # Not by an override, which would be read as YAML.
    root = folders[0] if len(folders) == 1 else folders
    cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"root": root})})
    if args.report and not Path(args.report).expanduser().parent.is_dir():
        raise InputError(f"cannot write the report {args.report}: there is no such folder")
    if args.augment:
        from fastseg.data.loaders import draw_augmentation

        print(draw_augmentation(cfg, args.augment), file=sys.stderr)
    report = check(cfg, progress_line("reading"))
    print(json.dumps(report.as_json(), indent=1) if args.json else report.table())
    if args.report:
        print(report.write_report(args.report), file=sys.stderr)
    if report.errors:
        count = len(report.errors)
        raise InputError(f"{count:,} error{'s' * (count > 1)} in {', '.join(folders)}; mend them before training")


def sample_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Draw the sample."""
    from fastseg.config import load_config
    from fastseg.data.progress import progress_line
    from fastseg.data.sample import draw_sample

    chosen = {"train": args.train, "valid": args.valid, "size": args.size, "seed": args.seed}
    settings = load_config({"data": {"sample": chosen}}).data.sample
    root = draw_sample(args.folder, settings.train, settings.valid, settings.size, settings.seed,
                       progress=progress_line("drawing"))  # fmt: skip
    print(f"{root}: {settings.train} photographs to train on, {settings.valid} to validate on")


def cache_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Remove cached frames."""
    from fastseg.data.cache import clear_cache

    count, freed = clear_cache()
    print(f"{count} cached sets of frames removed, {freed / 1e6:.1f} MB freed" if count else "nothing is cached")


def convert_command(args: Namespace, overrides: Sequence[str]) -> None:
    """Convert annotations or label maps."""
    from fastseg.data.progress import progress_line
    from fastseg.data.protocol import is_for_labels

    chosen = {"train_ids": args.train_ids, "valid_ids": args.valid_ids, "valid_fraction": args.valid_fraction,
              "seed": args.seed, "progress": progress_line("converting")}  # fmt: skip
    if is_for_labels(args.protocol):
        from fastseg.data.labels import convert_labels

        summary = convert_labels(args.annotations, args.images, args.out, args.protocol, args.mapping, **chosen)
    elif args.mapping:
        raise InputError(f"--mapping goes with label maps; {args.protocol} is for .mat files: name their --protocol")
    else:
        from fastseg.data.convert import convert

        summary = convert(args.annotations, args.images, args.out, args.protocol, **chosen)
    print(summary.table())
    if summary.damaged:
        name, reason = summary.damaged[0]
        raise InputError(f"{len(summary.damaged)} damaged, the rest is written; the first: {name}: {reason}")
