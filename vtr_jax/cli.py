"""The `vtr` command. Each subcommand says what it needs with `vtr COMMAND --help`."""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import os
import select
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vtr_jax import __version__
from vtr_jax.devices import require_devices
from vtr_jax.extras import MissingExtra, require_extra
from vtr_jax.huge_pages import start_again_with_huge_pages
from vtr_jax.training.stop_request import (
    Interrupted,
    end_before_the_run,
    ended_while_it_waits,
)

Options = dict[str, Any]

# 128 + the signal, as the shell tells it: SIGINT; SIGPIPE, as `vtr ... | head` ends other programs.
CODE_OF_CTRL_C = 130
CODE_OF_A_CLOSED_PIPE = 141

# What read_split itself is told; an option of a reader cannot be called so.
READ_SPLIT_NAMES = ("dataset", "annotations", "split")


def parse_options(
    arguments: Sequence[str], taken: Collection[str] = (), command: Collection[str] = ()
) -> Options:
    """--name=value arguments as a dict; numbers, booleans and None are read as such.

    taken: names that mean something else to the command. command: its own options, of which the
    nearest is named where an argument has another form. Raises ValueError for these arguments,
    for a name that is taken, and for one given twice.
    """
    options: Options = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals or not name.isidentifier():
            meant = difflib.get_close_matches(name, command, n=1)
            hint = f"; did you mean --{meant[0]}?" if meant else ""
            raise ValueError(f"argument {argument!r}: expected --name=value{hint}")
        if name in taken:
            raise ValueError(
                f"--{name}: not an option here; `vtr COMMAND --help` says how to give {name}"
            )
        if name in options:
            raise ValueError(f"--{name}: given twice, as {options[name]} and as {text}")
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options


def _reader_options(
    parser: argparse.ArgumentParser, dataset: str, arguments: Sequence[str]
) -> Options:
    """What the command did not know, as options of the data set's reader; ValueError if not so."""
    from vtr_jax.data.annotations import check_options

    command = _own_options(parser)
    options = parse_options(arguments, READ_SPLIT_NAMES, command)
    check_options(dataset, options, command)
    return options


def _own_options(parser: argparse.ArgumentParser) -> list[str]:
    # argparse has no other way to ask for them.
    flags = [flag for action in parser._actions for flag in action.option_strings]
    return [flag.removeprefix("--") for flag in flags if flag.startswith("--")]


def convert(arguments: Sequence[str]) -> None:
    """Convert a PyTorch, OpenAI or Hugging Face checkpoint into a retriever directory."""
    from vtr_jax.convert.command import add_arguments, run_conversion

    parser = _parser("convert", convert)
    add_arguments(parser)
    known, rest = parser.parse_known_args(arguments)
    require_devices()
    run_conversion(known, parse_options(rest, vars(known), _own_options(parser)))


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    from vtr_jax.data.annotations import READERS

    names = ", ".join(sorted(READERS))
    parser.add_argument("--dataset", default="table", help=f"{names} (default: CSV or JSONL table)")
    parser.add_argument("--annotations", required=True, help="annotation file or folder")
    parser.add_argument("--store", required=True, help="frame store")


def check(arguments: Sequence[str]) -> None:
    """Check annotations and videos: counts, overlap, captions that are cut, unreadable files."""
    from vtr_jax.data.check_data.command import EPILOG, add_arguments, run_check

    parser = _parser("check-data", check, EPILOG)
    add_arguments(parser)
    known, rest = parser.parse_known_args(arguments)
    run_check(known, _reader_options(parser, known.dataset, rest))


def prepare(arguments: Sequence[str]) -> None:
    """Decode the videos of a data set once, into a frame store."""
    from vtr_jax.data.frame_store.command import add_arguments, run_prepare

    parser = _parser(
        "prepare", prepare, "--name=value options of the annotation reader, e.g. --train_list=7k"
    )
    _add_data_arguments(parser)
    add_arguments(parser)
    known, rest = parser.parse_known_args(arguments)
    require_extra("data")
    run_prepare(known, _reader_options(parser, known.dataset, rest))


def train(arguments: Sequence[str]) -> None:
    """Train a retriever; the same command again resumes it."""
    from vtr_jax import cluster
    from vtr_jax.training.command import read_config
    from vtr_jax.training.command_help import training_help

    parser = _parser(
        "train",
        train,
        training_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="RECIPE[:VARIANT]",
        help="clip4clip, drl, ... as listed below, or a file of your own: FILE.py",
    )
    parser.add_argument("--workdir", required=True, help="where checkpoints and logs go")
    cluster.add_arguments(parser)
    known, rest = parser.parse_known_args(arguments)
    config = read_config(known.config, rest)
    require_extra("data")
    with ended_while_it_waits():
        cluster.join(known, saves_when_stopped=True)
    require_devices()

    from vtr_jax.training.loop import train as run_training

    run_training(config, Path(known.workdir))


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluate a retriever on a split: recalls, ranks and the protocol they hold for."""
    from vtr_jax import cluster
    from vtr_jax.evaluation.command import EvaluationRequest, run_evaluation
    from vtr_jax.evaluation.metrics import TIE_RULES
    from vtr_jax.evaluation.recipe_file import with_recipe_settings

    parser = _parser("evaluate", evaluate, "--name=value options of the annotation reader")
    parser.add_argument("--checkpoint", required=True, help="retriever directory or workdir")
    _add_data_arguments(parser)
    parser.add_argument(
        "--config",
        metavar="RECIPE:VARIANT",
        help="recipe of vtr train, for its data set, token limit, frames and batch size",
    )
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--output", help="folder for report.json and report.txt")
    parser.add_argument("--step", type=int, help="checkpoint of a run; default: the best")
    trained = "; default: as trained, else {}"
    parser.add_argument("--max_words", type=int, help="token limit" + trained.format(32))
    parser.add_argument("--max_frames", type=int, help="frames a clip" + trained.format(12))
    parser.add_argument(
        "--slice_framepos",
        type=int,
        choices=(0, 1, 2),
        help="0 head, 1 tail, 2 uniform" + trained.format(2),
    )
    parser.add_argument(
        "--frame_order",
        type=int,
        choices=(0, 1, 2),
        help="0 normal, 1 reversed, 2 shuffled" + trained.format(0),
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument(
        "--ties",
        default="once",
        metavar="RULE",
        help=f"how ties count: {', '.join(TIE_RULES)} (as CLIP4Clip or EMCL-Net); default: once",
    )
    parser.add_argument(
        "--normalisation",
        default="none",
        choices=("none", "dual_softmax", "inverted_softmax"),
        help="dual_softmax: each score times its softmax over all texts (video to text: over all "
        "clips), as InternVideo's DSL; inverted_softmax: the same at temperature 0.01, as "
        "EMCL-Net; both read all queries at once, which the protocol card says",
    )
    parser.add_argument(
        "--emcl",
        nargs="?",
        const="",
        metavar="K=16,stage_num=5,...",
        help="rank by cosines of features that EMCL has reconstructed, whatever the recipe ranks "
        "by: K, stage_num, lamd, beta, seed, batch_size_val as of EMCL's inference module",
    )
    parser.add_argument("--compute_dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--skip_missing",
        action="store_true",
        help="leave out clips the store lacks, and say how many",
    )
    parser.add_argument(
        "--allow_nonfinite",
        action="store_true",
        help="accept weights that are not finite, and rank captions and clips whose features or "
        "scores are not; default: an error that names them",
    )
    cluster.add_arguments(parser)
    known, rest = parser.parse_known_args(with_recipe_settings(arguments))
    del known.config
    options = _reader_options(parser, known.dataset, rest)
    require_extra("data")
    cluster.join(known, saves_when_stopped=False)
    require_devices()
    report = run_evaluation(EvaluationRequest(**vars(known), reader_options=options))
    cluster.on_first(print, report)


def compile_step(arguments: Sequence[str]) -> None:
    """Compile a train step for a TPU pod or this machine: memory, operations, shortest time."""
    from vtr_jax.compile.command import EPILOG, add_arguments, run_compile
    from vtr_jax.training.command import read_config

    parser = _parser("compile", compile_step, EPILOG)
    add_arguments(parser)
    known, rest = parser.parse_known_args(arguments)
    config = read_config(known.config, rest)
    require_devices()
    print(run_compile(config, known.topology, known.search, as_json=known.json))


def parity(arguments: Sequence[str]) -> None:
    """Compare a retriever with numbers that an original program recorded, array by array."""
    from vtr_jax.parity.command import EPILOG, add_arguments, run

    parser = _parser("parity", parity, EPILOG)
    add_arguments(parser)
    known = parser.parse_args(arguments)
    require_devices()
    run(known)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "convert": convert,
    "check-data": check,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "compile": compile_step,
    "parity": parity,
}


def _parser(
    name: str, command: Callable[..., None], epilog: str | None = None, **settings: Any
) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"vtr {name}",
        description=command.__doc__,
        epilog=epilog,
        allow_abbrev=False,
        **settings,
    )


def _usage() -> str:
    lines = [f"  {name:<12}{(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"vtr_jax {__version__}: video-text retrieval",
            "",
            "usage: vtr COMMAND ...",
            "",
            *lines,
            "",
            "vtr COMMAND --help tells what a command needs.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 or not, with one clear last line on error."""
    if arguments is None:
        return _program(sys.argv[1:])
    arguments = list(arguments)
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"vtr_jax {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"vtr: no command {name!r}; expected {', '.join(COMMANDS)}{hint}", file=sys.stderr)
        return 2
    code = _run(name, rest)
    if code:
        _leave_the_others(code)
    return code


def _program(arguments: Sequence[str]) -> int:
    """Run the command line as a process of its own, which signals and closed pipes may end."""
    if arguments[:1] == ["train"]:
        end_before_the_run()
        start_again_with_huge_pages()
    try:
        try:
            code = main(arguments)
        finally:
            _flush_output()
    except BrokenPipeError:
        _leave_at_once(CODE_OF_A_CLOSED_PIPE)
    except OSError:  # commands have told their own: it is the standard error that is full
        _leave_at_once(1)
    except Interrupted as stopped:
        if not _is_one_of_many():
            _leave_at_once(stopped.code)
        raise
    if code == CODE_OF_CTRL_C:
        _leave_at_once(code)
    return code


def _flush_output() -> None:
    """Write what is left of the output now, where a closed pipe or a full disk can be told."""
    try:
        print(end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"vtr: standard output: {error}", file=sys.stderr)
        _leave_at_once(1)


def _is_one_of_many() -> bool:
    import jax

    return jax.process_count() > 1


def _nobody_reads_on() -> bool:
    output = select.poll()
    output.register(1)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _leave_at_once(code: int) -> NoReturn:
    """End without Python's clearing up, everything of ours being closed.

    A signal may have come while JAX was tracing, which then ends in a segmentation fault; and
    whoever reads a closed pipe wants no more of it.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _of_another(error: Exception) -> str:
    if "jax" not in sys.modules:
        return ""
    from vtr_jax.cluster import of_another

    return of_another(error)


def _leave_the_others(code: int) -> None:
    if "jax" in sys.modules:  # else there are no others
        from vtr_jax.cluster import give_up

        give_up(code)


def _run(name: str, arguments: Sequence[str]) -> int:
    try:
        COMMANDS[name](arguments)
    except KeyboardInterrupt:
        print(f"vtr {name}: interrupted", file=sys.stderr)
        return CODE_OF_CTRL_C
    except (ValueError, OSError, ArithmeticError, MemoryError, MissingExtra) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads_on():
            raise
        print(f"vtr {name}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        # Nobody foresaw this one: whoever mends it needs the traceback, everybody the last line.
        traceback.print_exc()
        text = " ".join(str(error).split())
        kind = type(error).__name__
        print(f"error: vtr {name}: {kind}: {text}{_of_another(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
