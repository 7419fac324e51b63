"""Runs the fuzzer: `python -m tests.fuzz [--minutes 20] [target ...]`, one target after another. See README.md.

Each target runs in a process of its own, which calls this module again with libFuzzer's arguments.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["gateway", "h11", "jwt", "proxyprotocol"]):
    from tests.fuzz.targets import SECONDS_PER_INPUT, TARGETS, Mutate, Target, file_name

FUZZ_ONE = "--one"


def main() -> int:
    """Exit code 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=20.0, help="in all, shared out by the targets' weights")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    chosen = [TARGETS[name] for name in asked.targets or TARGETS]
    shares = sum(target.share for target in chosen)
    results = [fuzz(target, round(60 * asked.minutes * target.share / shares)) for target in chosen]
    return int(any(results))


def fuzz(target: Target, seconds: int) -> int:
    """Fuzz one target, then add to its corpus what reaches something new."""
    target.corpus.mkdir(parents=True, exist_ok=True)
    target.crashes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target.name}-") as name:
        seeds, found, words = Path(name, "seeds"), Path(name, "found"), Path(name, "words")
        for folder in (seeds, found):
            folder.mkdir()
        for seed in target.seeds:
            (seeds / file_name(seed)).write_bytes(seed)
        words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
        print(f"== {target.name}: {seconds} s", flush=True)
        code = _run(
            target,
            *(f"-max_total_time={seconds}", f"-max_len={target.longest_bytes}", f"-timeout={SECONDS_PER_INPUT}"),
            *(f"-dict={words}", f"-artifact_prefix={target.crashes}/", "-use_value_profile=1", "-print_final_stats=1"),
            *map(str, (found, target.corpus, seeds)),
        )
        _add(target, [target.corpus, seeds, found])
    for empty in (target.crashes, target.corpus):
        if not any(empty.iterdir()):
            empty.rmdir()
    return code


def _add(target: Target, sources: list[Path]) -> None:
    """Make the corpus anew: the fewest and shortest inputs of all sources that reach what all of them reach."""
    with tempfile.TemporaryDirectory(prefix=f"merge-{target.name}-") as name:
        merged = Path(name, "merged")
        merged.mkdir()
        aside = f"-artifact_prefix={name}/aside-"  # what crashes here has been told of
        _run(target, "-merge=1", aside, f"-max_len={target.longest_bytes}", *map(str, (merged, *sources)))
        inputs = [path.read_bytes() for path in merged.iterdir()]
    shutil.rmtree(target.corpus)
    target.corpus.mkdir()
    for data in inputs:
        (target.corpus / file_name(data)).write_bytes(data)
    print(f"== {target.name}: {len(inputs)} inputs, {sum(map(len, inputs))} bytes", flush=True)


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _run(target: Target, *arguments: str) -> int:
    command = [sys.executable, "-m", "tests.fuzz", FUZZ_ONE, target.name, *arguments]
    return subprocess.run(command, check=False).returncode


def _mutated(mutate: Mutate, data: bytes, most_bytes: int, seed: int) -> bytes:
    return mutate(data, most_bytes, seed, atheris.Mutate)


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Be the fuzzer's process. Does not return."""
    # libFuzzer starts its own children by its first argument, through a shell.
    itself = f"{shlex.quote(sys.executable)} -m tests.fuzz {FUZZ_ONE} {name}"
    target = TARGETS[name]
    own: dict[str, Any] = {}
    if target.mutate is not None:
        own["custom_mutator"] = partial(_mutated, target.mutate)
    atheris.Setup([itself, *arguments], target.check, **own)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == [FUZZ_ONE]:
        fuzz_one(sys.argv[2], sys.argv[3:])
    sys.exit(main())
