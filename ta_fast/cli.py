"""The command line. Flags and the environment are read here and nowhere else."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ta_fast import commands, labelled
from ta_fast.config import Config, read_config
from ta_fast.errors import BackendUnavailable, InvalidConfig, TaFastError
from ta_fast.snapshot import RANKINGS
from ta_fast.train import verb as train
from ta_fast.types import Turn

CONFIG_FILE = Path("ta-fast.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, or 2 after an error that is told."""
    args = _parser().parse_args(argv)
    try:
        result = _run(args)
    except TaFastError as error:
        if args.json:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        else:
            print(f"ta-fast: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ta-fast: interrupted; what was done is kept", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _SHOW[args.verb](result)
    return 1 if args.verb == "ingest" and result["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object")
    common.add_argument("--config", type=Path, help=f"configuration file (default: {CONFIG_FILE})")
    common.add_argument("--catalog", help="the catalog's SQLite file")
    common.add_argument(
        "--encoder", help="minilm-tools, minilm, a folder, org/model, or gpu:, ort:, st:NAME"
    )
    common.add_argument("--ranking", choices=RANKINGS, help="auto: hybrid where it can be")
    common.add_argument("--overrides", help="summaries, preconditions and facts, as JSON")
    parser = argparse.ArgumentParser(prog="ta-fast", description="Gated attention over tools.")
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("ingest", parents=[common], help="read tools into the catalog")
    verb.add_argument("files", nargs="*", type=Path, help="JSONL, tools/list, OpenAI or Anthropic")
    verb.add_argument("--mcp", action="append", type=Path, default=[], help="an mcp.json")
    verb.add_argument("--remove", action="append", default=[], help="forget a source, by name")
    verb.add_argument("--no-overrides", action="store_true", help="drop those of earlier ingests")
    verb.add_argument("--timeout", type=float, default=30.0, help="seconds for each MCP server")

    verb = verbs.add_parser("route", parents=[common], help="promote tools for one intent")
    verb.add_argument("intent")
    verb.add_argument("--facts", default="", help="comma-separated facts that hold")
    verb.add_argument("--top-k", type=int)
    verb.add_argument("--threshold", type=float)
    _add_wish(verb)
    verb.add_argument("--explain", action="append", default=[], metavar="TOOL")
    verb.add_argument("--form", default="", help="print the prompt: openai, anthropic, mcp, ...")
    verb.add_argument("--delivery", default="filter", help="filter, frozen or reference")

    verb = verbs.add_parser("tax", parents=[common], help="tokens a turn, before and after")
    verb.add_argument("--intents", type=Path, help="one intent a line")

    verb = verbs.add_parser("eval", parents=[common], help="retrieval metrics")
    verb.add_argument("--tools", type=Path, required=True, help="a tools file")
    verb.add_argument("--queries", type=Path, required=True, help="labelled JSONL")

    text = "the threshold of best F1, probabilities, and when to abstain"
    verb = verbs.add_parser("calibrate", parents=[common], help=text)
    verb.add_argument("--tools", type=Path, help="only sweep the threshold, on a file's tools")
    verb.add_argument("--queries", type=Path, required=True, help="labelled JSONL")
    verb.add_argument("--top-k", type=int)
    verb.add_argument("--dry-run", action="store_true", help="write nothing")
    _add_wish(verb)

    verbs.add_parser("doctor", parents=[common], help="name tools that will retrieve badly")

    verb = verbs.add_parser("serve", parents=[common], help="answer turns over HTTP")
    _add_service(verb)

    verb = verbs.add_parser("train", parents=[common], help="train an encoder on sets or a log")
    train.add_flags(verb)
    return parser


def _add_service(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--host", default="127.0.0.1")
    verb.add_argument("--port", type=int, default=8000)
    verb.add_argument("--keys", type=Path, help="who may call; without, only this machine may")
    verb.add_argument("--sessions", default="", help="a redis:// URL; without, in memory")
    verb.add_argument("--otel", action="store_true", help="send OpenTelemetry spans")
    text = "one more catalog, which requests name; may be given many times"
    verb.add_argument("--catalog-file", action="append", default=[], metavar="NAME=FILE", help=text)
    text = "cuda:0,cuda:1 or cpu,cpu: an encoder and a scorer on each"
    verb.add_argument("--devices", default="", help=text)
    text = "embeddings of intents that each device keeps, with an encoder of the CPU"
    verb.add_argument("--remember", type=int, default=0, metavar="N", help=text)
    text = "processes that read texts for each device; 0 reads them in this one"
    verb.add_argument("--tokenisers", type=int, metavar="N", help=text)


def _add_wish(verb: argparse.ArgumentParser) -> None:
    wish = verb.add_mutually_exclusive_group()
    text = "abstain so that, of the turns that get tools, this share has one that fits"
    wish.add_argument("--precision", type=float, help=text)
    text = "abstain so that, of the turns that some tool fits, this share gets tools"
    wish.add_argument("--recall", type=float, help=text)


def _config(args: argparse.Namespace) -> Config:
    path = args.config or CONFIG_FILE
    config = read_config(path) if args.config or path.exists() else Config()
    names = ("catalog", "encoder", "ranking", "overrides", "top_k", "threshold")
    given = {name: getattr(args, name, None) for name in names}
    precision, recall = getattr(args, "precision", None), getattr(args, "recall", None)
    if precision is not None or recall is not None:  # the one given drops the other stored
        config = replace(config, precision=precision, recall=recall)
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def _run(args: argparse.Namespace) -> commands.Result:
    config = _config(args)
    if args.verb == "ingest":
        sources = (args.files, args.mcp, args.remove)
        return commands.ingest(config, *sources, os.environ, args.timeout, args.no_overrides)
    if args.verb == "route":
        facts = frozenset(fact.strip() for fact in args.facts.split(",") if fact.strip())
        turn = Turn(args.intent, facts, top_k=config.top_k, threshold=config.threshold)
        return commands.route(config, turn, args.explain, args.form, args.delivery)
    if args.verb == "tax":
        return commands.tax(config, args.intents)
    if args.verb == "eval":
        return labelled.evaluate(config, args.tools, args.queries)
    if args.verb == "calibrate":
        if args.tools and (args.precision is not None or args.recall is not None):
            raise InvalidConfig(
                "--precision and --recall are for the catalog's own tools; leave out --tools"
            )
        write_to = None if args.dry_run else args.config or CONFIG_FILE
        return labelled.calibrate(config, args.tools, args.queries, write_to)
    return _RUN[args.verb](config, args)


def _serve(config: Config, args: argparse.Namespace) -> commands.Result:
    try:
        from ta_fast.serve.command import Options, read_catalogs, read_devices, run
    except ImportError as error:
        raise BackendUnavailable(
            f"{error.name} is not installed; install it with: pip install 'ta-fast[serve]'"
        ) from error
    catalogs, devices = read_catalogs(args.catalog_file), read_devices(args.devices)
    where = (args.host, args.port, args.keys, args.sessions, args.otel)
    run(config, Options(*where, catalogs, devices, args.remember, args.tokenisers))
    return {}


def _show_ingest(result: dict[str, Any]) -> None:
    for source, count in result["sources"].items():
        print(f"{count:6}  {source}")
    changes = ", ".join(f"{len(result[kind])} {kind}" for kind in ("added", "updated", "removed"))
    print(
        f"{result['tools']:6}  tools in {result['catalog']}, epoch {result['epoch']}: {changes}, "
        f"{result['unchanged']} unchanged, {result['embedded']} embedded"
    )
    for pattern, near in result["unused_overrides"].items():
        hint = f"; did you mean {near!r}?" if near else ""
        print(f"ta-fast: the override {pattern!r} matches no tool{hint}", file=sys.stderr)
    for server, reason in result["failed"].items():
        print(f"ta-fast: server {server!r} failed: {reason}", file=sys.stderr)


def _show_route(result: dict[str, Any]) -> None:
    for tool in result["tools"]:
        score = "pinned" if tool["score"] is None else f"{tool['score']:.3f}"
        right = "" if tool["probability"] is None else f"right {tool['probability']:4.0%}  "
        print(f"{score:>7}  {right}{tool['id']}  ({tool['tokens']} tokens)")
    if result["abstained"]:
        print("abstained: it is too likely that no tool fits")
    elif not result["tools"]:
        print("no tool passes: the state or the threshold keeps all of them out")
    if result["fit"] is not None:
        print(f"probability that some tool fits: {result['fit']:.0%}")
    tokens = result["tokens"]
    print(f"{result['allowed']} tools allowed, {result['gated']} gated out by the state")
    print(f"tokens: {tokens['pool']} summary pool, {tokens['schemas']} promoted schemas")
    print("time: " + ", ".join(f"{s} {ms:.2f} ms" for s, ms in result["milliseconds"].items()))
    for fact in result["unused_facts"]:
        print(f"ta-fast: no precondition mentions the fact {fact!r}", file=sys.stderr)
    for why in result.get("explain", ()):
        _show_explanation(why)
    if "prompt" in result:
        print(json.dumps(result["prompt"], indent=2, ensure_ascii=False))


def _show_explanation(why: dict[str, Any]) -> None:
    gate = why["gate"]
    print(
        f"{why['tool_id']}: {'promoted' if why['promoted'] else 'not promoted'}"
        f"{', pinned' if why['pinned'] else ''}; score {why['score']:.3f}, "
        f"threshold {why['threshold']:.2f}, rank {why['rank'] or 'none'}"
    )
    if not gate["allowed"]:
        print(
            f"  the state lacks {list(gate['missing'])} and is barred by {list(gate['forbidding'])}"
        )


def _show_tax(result: dict[str, Any]) -> None:
    for server, tokens in sorted(result["per_server"].items(), key=lambda item: -item[1]):
        print(f"{tokens:8}  {server or '(no server)'}")
    print(f"{result['all_schemas']:8}  tokens a turn: all {result['tools']} full schemas")
    print(
        f"{result['first_turn']:8.0f}  tokens on a first turn with Tool Attention: pool "
        f"{result['pool']} + promoted schemas {result['promoted_schemas']:.0f} "
        f"({100 * result['reduction']:.1f} % less)"
    )
    print(
        f"{result['promoted_schemas']:8.0f}  tokens on later turns, the pool in the prompt cache "
        f"({100 * result['reduction_pool_cached']:.1f} % less)"
    )
    print(f"measured over {result['turns']} turns: {result['turns_are']}")


def _show_eval(result: dict[str, Any]) -> None:
    for name, value in result.items():
        print(f"{name:10} {value}" if isinstance(value, int) else f"{name:10} {value:.4f}")


def _show_calibrate(result: dict[str, Any]) -> None:
    print("threshold  precision  recall     F1")
    for point in result["sweep"]:
        mark = "  <- best F1" if point == result["best"] else ""
        print(
            f"{point['threshold']:9.2f}  {point['precision']:9.3f}  {point['recall']:6.3f}  "
            f"{point['f1']:5.3f}{mark}"
        )
    if result["written"]:
        print(f"wrote threshold {result['best']['threshold']} to {result['written']}")
    if (learnt := result["probabilities"]) is not None:
        print(f"on queries left out, 'some tool fits': AUROC {learnt['auroc']:.3f}, calibration")
        errors = (learnt["fit_error"], learnt["right_error"])
        print("error {:.3f}; 'this tool is right': calibration error {:.3f}".format(*errors))
        print("abstain below  precision  recall")
        for point in learnt["abstention"][::5]:
            numbers = (point["threshold"], point["precision"], point["recall"])
            print("{:13.3f}  {:9.3f}  {:6.3f}".format(*numbers))
        print(f"turns abstain below {learnt['abstain_below']:.3f}")


def _show_doctor(result: dict[str, Any]) -> None:
    for finding in result["findings"]:
        mark = "note: " if finding["severity"] == "note" else ""
        print(f"{mark}{finding['tool_id']}: {finding['problem']}: {finding['detail']}")
    if result["calibration"]:
        print(f"calibration: {result['calibration']}; run ta-fast calibrate")
    print(f"{len(result['findings'])} findings in {result['tools']} tools")


def _show_nothing(result: dict[str, Any]) -> None:
    """A service has told its log what there was to tell."""


_RUN: dict[str, Callable[[Config, argparse.Namespace], commands.Result]] = {
    "doctor": lambda config, _: commands.doctor(config),
    "serve": _serve,
    "train": lambda config, args: train.run_verb(args, config.catalog),
}
_SHOW = {
    "ingest": _show_ingest,
    "route": _show_route,
    "tax": _show_tax,
    "eval": _show_eval,
    "calibrate": _show_calibrate,
    "doctor": _show_doctor,
    "train": train.show,
    "serve": _show_nothing,
}

if __name__ == "__main__":
    sys.exit(main())
