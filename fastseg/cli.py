"""`fastseg COMMAND`: the command line, a thin skin over the Python functions of the same names."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from fastseg import __version__, commands
from fastseg.errors import InputError

USE = """\
fastseg train                                   the embedded sample: about two minutes on two cores
fastseg train --config pascal_part --data.root Pascal-part --train.epochs 30
fastseg train --resume RUN                      go on with a run that was stopped or cut off
fastseg train --print-config                    every setting, its value and its meaning
fastseg check DIR --report page.html            what is wrong with a dataset, and what it holds
fastseg evaluate RUN --data.root DIR            scores of a finished run on a folder of photographs and masks
fastseg compare RUN RUN                         how sure the difference between two runs is
fastseg search --config search_sample           which network, loss and settings: many short trainings
fastseg predict RUN PHOTO… --out DIR            masks, overlays and areas of photographs
fastseg export RUN --format onnx --int8         one file for another runtime, proved on photographs
fastseg benchmark RUN                           how fast and how good it is in each runtime
fastseg serve RUN                               a page on which anyone can try it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 done, 1 a fault of ours (with its traceback), 2 the user's input is wrong."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    # torch warns of its own deprecations while other packages import it; nobody can act on them here.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    words, dotted = _take_dotted(sys.argv[1:] if argv is None else argv)
    args, rest = _parser().parse_known_args(words)
    try:
        rest = [*dotted, *rest]
        if rest and not args.settings:
            raise InputError(f"{rest[0]!r} is no option of this command; see --help")
        overrides = _overrides(rest)
        if strange := [o for o in overrides if args.settings != "*" and not o.startswith(args.settings)]:
            raise InputError(f"{strange[0].partition('=')[0]!r} is no option of this command; see --help")
        args.run(args, overrides)
    except InputError as error:
        print(f"fastseg {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print(f"fastseg {args.command}: stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="fastseg",
        description="Teaches a network to see people as a tree of parts.",
        epilog=USE,
        formatter_class=raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastseg {__version__}")
    all_commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, settings: str = "") -> argparse.ArgumentParser:
        tail = {
            "": "",
            "*": "Any key of --print-config may follow, as --train.epochs 30 or --train.lr '[1e-3, 5e-3]'.",
            "data.": "The run's settings of data may follow, as --data.limit_valid 100 or --data.workers 0.",
        }[settings]
        sub = all_commands.add_parser(
            name, help=about, description=f"{about[0].upper()}{about[1:]}. {tail}", allow_abbrev=False
        )
        sub.set_defaults(run=getattr(commands, f"{name}_command"), settings=settings)
        return sub

    _commands_of_runs(command)
    _commands_of_use(command)
    _commands_of_data(command)
    return parser


def _commands_of_runs(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command("train", "train a network and write a run folder", settings="*")
    sub.add_argument("--config", default=None, metavar="NAME|FILE", help="a preset (default: sample) or a YAML file")
    sub.add_argument("--resume", default=None, metavar="RUN", help="go on with a run that was cut off")
    sub.add_argument("--print-config", action="store_true", help="print all settings with comments, and stop")
    sub.add_argument("--json", action="store_true", help="print the scores as JSON")

    sub = command("evaluate", "score a finished run, or masks of any program, on a dataset", settings="data.")
    sub.add_argument("run_folder", nargs="?", metavar="RUN", help="a folder that `fastseg train` or save_run wrote")
    sub.add_argument("--masks", metavar="DIR", help="score the masks DIR/ID.png or .npy instead of a run")
    sub.add_argument("--config", metavar="NAME|FILE", help="with --masks: whose tree they follow (Pascal-part's)")
    _scoring_options(sub)
    sub.add_argument("--boundary", action="store_true", help="boundary IoU as well (Cheng et al. 2021)")

    sub = command("compare", "compare runs photograph by photograph with the first of them", settings="data.")
    sub.add_argument("run_folders", nargs="+", metavar="RUN", help="two runs or more")
    _scoring_options(sub)

    sub = command("search", "try networks, losses and settings in many short trainings", settings="*")
    sub.add_argument("--config", default=None, metavar="NAME|FILE", help="a preset or a YAML file with search: in it")
    sub.add_argument("--finish", action="store_true", help="then train the winner on all the data, as configured")

    sub = command("report", "write one page that explains a finished run, report.html")
    sub.add_argument("run_folder", metavar="RUN", help="a folder that `fastseg train` or save_run wrote")


def _commands_of_use(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command("predict", "write masks of photographs, and pictures of them")
    sub.add_argument("source", metavar="RUN", help="a run folder, or a file that `fastseg export` made")
    sub.add_argument("photographs", nargs="+", metavar="PHOTO|DIR|GLOB", help="photographs, folders, or patterns")
    sub.add_argument("--out", required=True, metavar="DIR", help="what is there already is not made again")
    sub.add_argument("--level", type=int, default=-1, metavar="N", help="of the tree, 0 the outermost (its leaves)")
    sub.add_argument("--save", default="ids,overlay", metavar="KIND,…", help="ids, overlay, cutout, json (ids,overlay)")
    _looking_options(sub)
    sub.add_argument("--batch-size", type=int, default=8, metavar="N", help="photographs seen at once (8)")
    sub.add_argument("--threads", type=int, metavar="N", help="of the network")
    sub.add_argument("--device", metavar="cpu|cuda", help="what it runs on (cuda where a run folder can have it)")

    sub = command("export", "write a run as a file for another runtime, and prove it on photographs", settings="data.")
    sub.add_argument("run_folder", metavar="RUN", help="a folder that `fastseg train` or save_run wrote")
    sub.add_argument("--format", default="onnx", help="onnx, openvino or exported, torch.export's (onnx)")
    sub.add_argument("--int8", action="store_true", help="8-bit integers, calibrated on training photographs")
    sub.add_argument("--size", metavar="HxW|dynamic", help="height x width of the network's input (the run's), or any")
    about = "resizing, normalisation and the choice of classes in the file: photographs in, masks out"
    sub.add_argument("--with-preprocessing", action="store_true", help=about)
    sub.add_argument("--data.root", dest="root", metavar="DIR", help="prove it on another dataset than the run's own")
    sub.add_argument("--out", metavar="FILE", help="where to (into the run's folder)")
    about = "points of mean IoU that it may lose at any level (0.1; with --int8 0.5)"
    sub.add_argument("--tolerance", type=float, metavar="POINTS", help=about)
    sub.add_argument("--json", action="store_true", help="print the proof as JSON")

    sub = command("benchmark", "time a run in every runtime, each in a process of its own", settings="data.")
    sub.add_argument("run_folder", metavar="RUN", help="a folder that `fastseg train` or save_run wrote")
    sub.add_argument("--size", metavar="HxW", help="height x width of the network's input (the run's)")
    sub.add_argument("--threads", type=int, default=None, metavar="N", help="threads of each runtime (one a core)")
    sub.add_argument("--repeats", type=int, default=30, metavar="N", help="photographs timed, one by one (30)")
    sub.add_argument("--data.root", dest="root", metavar="DIR", help="another dataset than the run's own")
    sub.add_argument("--json", action="store_true", help="print the table as JSON")

    sub = command("serve", "serve a page on which anyone can try a network, and that answers programs")
    sub.add_argument("source", metavar="RUN|FILE", help="a run folder, or a file that was exported")
    sub.add_argument("--port", type=int, metavar="N", help="of the address (7860, or the next that is free)")
    sub.add_argument("--host", default="127.0.0.1", metavar="NAME", help="0.0.0.0: for all who reach this machine")
    sub.add_argument("--threads", type=int, metavar="N", help="of the network (as many as its runtime takes)")
    sub.add_argument("--device", metavar="NAME", help="cpu or cuda (what there is)")


def _commands_of_data(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command("check", "read a whole dataset and say what is wrong and what it holds", settings="*")
    sub.add_argument("folder", nargs="+", metavar="DIR", help="the dataset, or several; in the place of data.root")
    sub.add_argument("--config", default=None, metavar="NAME|FILE", help="a preset (default: sample) or a YAML file")
    sub.add_argument("--json", action="store_true", help="print findings and statistics as JSON")
    sub.add_argument("--report", metavar="FILE.html", help="write a page with pictures")
    about = "draw one photograph as twenty epochs would see it (with augment.preset=light, say)"
    sub.add_argument("--augment", metavar="FILE.png", help=about)

    sub = command("sample", "draw the embedded sample into a folder, in the Pascal-Part layout")
    sub.add_argument("folder", metavar="DIR", help="a new folder")
    sub.add_argument("--train", type=int, default=576, metavar="N", help="photographs to train on (576)")
    sub.add_argument("--valid", type=int, default=96, metavar="N", help="photographs to validate on (96)")
    sub.add_argument("--size", default="375x500", metavar="HxW", help="height x width of most (375x500)")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="another one, another outcome (0)")

    sub = command("cache", "remove the cached frames that data.cache made")
    sub.add_argument("action", choices=("clear",), help="clear: remove them all; the next run makes its own anew")

    sub = command("convert", "bring Pascal-Part's .mat files, or label maps, to the layout that is read here")
    where = {"required": True, "nargs": "+", "type": os.path.expanduser, "metavar": "DIR"}
    sub.add_argument("--annotations", **where, help="folders of .mat files, or of label maps (8-bit .png)")
    sub.add_argument("--images", **where, help="folders of their photographs")
    sub.add_argument("--out", required=True, type=os.path.expanduser, metavar="DIR", help="the dataset to write")
    kinds = "person6 for .mat files (the default); ppp, m2fp, lip, cihp or atr for label maps"
    sub.add_argument("--protocol", default="person6", metavar="NAME|FILE", help=f"what the annotations are: {kinds}")
    sub.add_argument("--mapping", metavar="NAME|FILE", help="label maps under another tree: common, or a YAML file")
    sub.add_argument("--train-ids", type=os.path.expanduser, metavar="FILE", help="ids to train on, one a line")
    sub.add_argument("--valid-ids", type=os.path.expanduser, metavar="FILE", help="ids to validate on, one a line")
    sub.add_argument("--valid-fraction", type=float, default=0.2, metavar="F", help="or a random share of all (0.2)")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="another one, another outcome (0)")


def _looking_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--size", metavar="HxW|X", help="look at another size, or X times the network's own")
    sub.add_argument("--tile", metavar="HxW|N", help="seen in overlapping tiles beyond this size (512, or the own)")
    sub.add_argument("--tta", metavar="flip,SCALE,…", help="average over a flip, scales, or both: flip,0.75,1,1.25")
    sub.add_argument("--decode", default="leaf", help="leaf, top_down or path")


def _scoring_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data.root", dest="root", metavar="DIR", help="another dataset than the run's own")
    sub.add_argument("--split", default="valid", metavar="valid|train|FILE", help="which ids to score (valid)")
    sub.add_argument("--protocol", default="native", help="native: the photographs' own size; resized: the network's")
    sub.add_argument("--definition", default="dataset", help="of the mean IoU: dataset, image or image_class")
    sub.add_argument("--decode", default="leaf", help="leaf, top_down or path")
    sub.add_argument("--tta", metavar="flip,SCALE,…", help="average over a flip, scales, or both: flip,0.75,1,1.25")
    sub.add_argument("--json", action="store_true", help="print the scores as JSON")


def _take_dotted(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words for argparse, and settings (`--a.b X`), whose values it would take for words of its own."""
    words, dotted = list(argv), []
    own = ("--data.root",) if words[:1] and words[0] in ("evaluate", "compare", "export", "benchmark") else ()
    for i in range(len(words) - 1, -1, -1):
        key = words[i].partition("=")[0]
        if key.startswith("--") and "." in key and key not in own:
            end = i + 1 if "=" in words[i] else i + 2
            dotted[:0] = words[i:end]
            del words[i:end]
    return words, dotted


def _overrides(rest: Sequence[str]) -> list[str]:
    """`--a.b X`, `--a.b=X` and `a.b=X` → `a.b=X`."""
    found, words = [], list(rest)
    while words:
        word = words.pop(0)
        if "=" in word:
            found.append(word.removeprefix("--"))
        elif word.startswith("--"):
            if not words:
                raise InputError(f"{word}: no such option, or a value is missing behind it; see --help")
            found.append(f"{word[2:]}={words.pop(0)}")
        else:
            raise InputError(
                f"{word!r} is not understood; settings are written as --train.epochs 30 or train.epochs=30"
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
