"""Tampered, damaged and foreign checkpoints: each is refused by its name and its own reason."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmm_dask.errors import CheckpointError
from gmm_dask.stage.checkpoints import Keeper
from gmm_dask.stage.identity import ATTEMPT
from gmm_dask.stage.job import plan
from gmm_dask.stage.run import run
from gmm_dask.storage.records.documents import canonical_json, sealed
from tests.stage.checkpoints.conftest import PASSES, Make, Stopped, Watching, write_rows

Document = dict[str, Any]
REMEDY = "Move it and the checkpoints of higher numbers away to go on from the one before"


def unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f8").copy()


def pack(array: np.ndarray) -> str:
    return base64.b64encode(np.asarray(array, "<f8").tobytes()).decode()


def state_of(document: Document) -> Document:
    state: Document = document["body"]["checkpoint"]["progress"]["state"]
    return state


PROGRESS = ("body", "checkpoint", "progress")


def changed_numbers(field: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
    def forge(document: Document) -> None:
        parameters = state_of(document)["parameters"]
        parameters[field] = pack(change(unpack(parameters[field])))

    return forge


def at(*path: Any, value: Any) -> Callable[[Document], None]:
    """Put a value there."""

    def forge(document: Document) -> None:
        inner: Any = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return forge


def with_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.concatenate([[value], array[1:]])


# What a forger does who can also make the checksum fit.
FORGED: dict[str, tuple[Callable[[Document], None], str]] = {
    "other settings": (at("settings_hash", value="0" * 64), "written with other settings"),
    "other data": (at("plan_hash", value="0" * 64), "written for other data"),
    "another run": (at("run_id", value="0" * 16), "another run's"),
    "another seed": (at("random_state", value=1), "written with another seed"),
    "a seed of another kind": (at("random_state", value=False), "random_state is False"),
    "another format": (at("format", value="gmm_dask.model"), "another kind of file"),
    "a newer format": (at("format_version", value=3), "upgrade gmm_dask"),
    "another number": (at("body", "number", value=2), f"number is 2, in the file of {PASSES}"),
    "passes that were not made": (
        lambda document: state_of(document).update(n_taken_back=7),
        f"number is {PASSES}, its passes are",
    ),
    "a field too many": (at("__class__", value="os.system"), "'__class__' is an unknown field"),
    "a field too many inside": (
        at(*PROGRESS, "state", "code", value="os.system"),
        "state: 'code' is an unknown field",
    ),
    "no state": (at(*PROGRESS, "state", value=None), "state is None, not a document"),
    "NaN": (
        changed_numbers("means", with_first(np.nan)),
        "state.parameters.means holds a number that is not finite",
    ),
    "an infinity": (
        changed_numbers("covariances", with_first(np.inf)),
        "state.parameters.covariances holds a number that is not finite",
    ),
    "means of another shape": (
        changed_numbers("means", lambda array: array[:-1]),
        "state.parameters.means holds",
    ),
    "weights that are not shares": (
        changed_numbers("weights", lambda array: array * 1.1),
        "state.parameters.weights sums to",
    ),
    "a negative weight": (
        changed_numbers("weights", lambda array: array * [-1, 1, 1] + [0, 0, 2 * array[0]]),
        "state.parameters.weights holds the negative weight",
    ),
    "a covariance that is none": (
        changed_numbers("covariances", lambda array: -array),
        "state.parameters.covariances has no density",
    ),
    "more components than asked for": (
        at(*PROGRESS, "state", "parameters", "n_components", value=4),
        "state.parameters.n_components is 4, of at most 3",
    ),
    "a forged size": (
        at(*PROGRESS, "state", "parameters", "n_components", value=2**60),
        "state.parameters.n_components is",
    ),
    "text that is not packed": (
        at(*PROGRESS, "state", "parameters", "weights", value="*" * 32),
        "state.parameters.weights is not packed as base64",
    ),
    "a log-likelihood too few": (
        lambda document: state_of(document)["lower_bounds"].pop(),
        f"number is {PASSES}, its passes are 2",
    ),
    "a log-likelihood of text": (
        lambda document: state_of(document)["lower_bounds"].__setitem__(0, "-1"),
        "state.lower_bounds[0] is '-1', not a finite number",
    ),
    "an event of an unknown kind": (
        at(
            *PROGRESS, "state", "events",
            value=[{"pass_number": 1, "component": 0, "cause": "witchcraft", "action": "dropped",
                    "columns": [], "until": 1, "start": 1}],
        ),
        "state.events[0].cause is 'witchcraft', none of",
    ),
    "a start too many": (at(*PROGRESS, "n_to_come", value=1), "start is 1 and 1 are to come, of 1"),
    "a history of another length": (
        lambda document: state_of(document)["history"]["points"].pop(),
        "state.history.images are",
    ),
    "a state too many": (at("body", "n_states", value=[9]), "n_states is 9 after 3 passes"),
    "itself as the one before": (
        lambda document: document["body"].update(previous=PASSES, trajectories=[]),
        f"previous is {PASSES}, which is not before it",
    ),
    "no one before": (
        lambda document: document["body"].update(previous=None),
        "trajectories lack the state of pass 1 of start 1",
    ),
    "a flag that is a number": (
        at(*PROGRESS, "state", "settled_within_tol", value=0),
        "state.settled_within_tol is 0, not true or false",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(FORGED))
def test_a_forged_checkpoint_is_refused_by_name(case: str, checkpoint: Path, make: Make) -> None:
    change, reason = FORGED[case]
    document = json.loads(checkpoint.read_bytes())
    del document["checksum"]
    change(document)
    checkpoint.write_bytes(canonical_json(sealed(document)))
    refused(checkpoint, make, reason)


def test_a_state_that_was_left_out_is_named(checkpoint: Path, make: Make) -> None:
    document = json.loads(checkpoint.read_bytes())
    del document["checksum"]
    document["body"]["trajectories"] = []
    checkpoint.write_bytes(canonical_json(sealed(document)))
    refused(checkpoint, make, "trajectories lack the state of pass 3 of start 1")


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a digit": (lambda data: data.replace(b'"n_rows":600', b'"n_rows":601', 1), "its checksum"),
    "cut in the middle": (lambda data: data[: len(data) // 2], "damaged or not one of our files"),
    "without its last byte": (lambda data: data[:-1], "the same fields in another form"),
    "empty": (lambda data: b"", "damaged or not one of our files"),
    "zeros": (lambda data: bytes(len(data)), "damaged or not one of our files"),
    "a list": (lambda data: b"[]\n", "holds no JSON object"),
    "spaces": (
        lambda data: json.dumps(json.loads(data), indent=1).encode(),
        "the same fields in another form",
    ),
    "a key twice": (lambda data: b'{"body":1,' + data[1:], "'body' occurs twice"),
    "NaN": (lambda data: data.replace(b'"previous":null', b'"previous":NaN', 1), "NaN is not"),
    "nested": (lambda data: b'{"a":' * 100_000 + b"1", "nested too deeply"),
    "millions of fields": (
        lambda data: data[:-2] + b',"x":[' + b"[]," * (1 << 20) + b"[]]}\n",
        "than any checkpoint",
    ),
    "half a surrogate pair": (lambda data: b'{"\\ud800":1}\n', "the same fields in another form"),
    "a pickle": (lambda data: pickle.dumps(Exploding()), "damaged or not one of our files"),
}


class Exploding:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


@pytest.mark.parametrize("case", sorted(DAMAGED))
def test_a_damaged_checkpoint_is_refused_by_name(case: str, checkpoint: Path, make: Make) -> None:
    change, reason = DAMAGED[case]
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(change(whole))
    assert checkpoint.read_bytes() != whole
    refused(checkpoint, make, reason)


def test_no_changed_byte_is_accepted(checkpoint: Path, make: Make) -> None:
    whole, rng = checkpoint.read_bytes(), np.random.default_rng(0)
    for _ in range(80):
        mutant = bytearray(whole)
        mutant[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        checkpoint.write_bytes(mutant)
        with pytest.raises(CheckpointError, match=checkpoint.name):
            Keeper(plan(make(checkpoint.parents[3])), Watching())


def test_an_enormous_checkpoint_is_refused_unread(checkpoint: Path, make: Make) -> None:
    os.truncate(checkpoint, 1 << 40)  # no disk holds what reading it would take
    refused(checkpoint, make, "larger, with its 1099511627776 bytes, than any checkpoint")


@pytest.mark.parametrize("other", ["fit", "data"])
def test_a_checkpoint_of_another_run_is_refused(
    other: str, checkpoint: Path, make: Make, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"fit": {"reg_covar": 1e-3}}
    if other == "data":
        write_rows(tmp_path / "other.parquet", 1)
        sections = {"data": {"path": str(tmp_path / "other.parquet")}}
    with pytest.raises(Stopped):
        run(make(tmp_path / "other", **sections), Watching(PASSES))
    (foreign,) = (tmp_path / "other").glob(f"runs/*/checkpoints/{checkpoint.name}")
    checkpoint.write_bytes(foreign.read_bytes())
    words = {"fit": "written with other settings", "data": "written for other data"}
    refused(checkpoint, make, words[other])


def test_an_earlier_checkpoint_under_a_later_name_is_refused(checkpoint: Path, make: Make) -> None:
    checkpoint.write_bytes((checkpoint.parent / "00002.json").read_bytes())
    refused(checkpoint, make, "number is 2, in the file of 3")


def test_a_folder_or_a_link_in_its_place_is_refused(checkpoint: Path, make: Make) -> None:
    elsewhere = checkpoint.rename(checkpoint.parent.parent / "moved.json")
    checkpoint.symlink_to(elsewhere)
    refused(checkpoint, make, "is absent")


def refused(checkpoint: Path, make: Make, reason: str, name: str | None = None) -> None:
    """The run ends with the file's name, the reason and the remedy, and changes nothing.

    Only when it began is noted, as by every attempt: `gc` leaves a run alone that is under way.
    """
    out = checkpoint.parents[3]
    files = [path for path in out.rglob("*.json") if path.name != ATTEMPT]
    before = {path: path.read_bytes() for path in files if path.stat().st_size < 1e9}
    with pytest.raises(CheckpointError) as caught:
        run(make(out))
    message = str(caught.value)
    for words in (name or checkpoint.name, reason, REMEDY):
        assert words in message, message
    assert len(message) < 1000 + len(str(out)) * 2
    assert before == {path: path.read_bytes() for path in before}
    assert not (out / "versions").exists()


def test_with_the_damaged_one_moved_away_the_run_goes_on(
    checkpoint: Path, out: Path, make: Make, tmp_path: Path
) -> None:
    checkpoint.write_bytes(b"{}")
    with pytest.raises(CheckpointError):
        run(make(out))
    checkpoint.rename(tmp_path / "away.json")
    published = run(make(out))
    assert published.metrics["n_resumed"] == PASSES - 1
    undisturbed = run(make(tmp_path / "undisturbed"))
    assert published.folder.get("model.json") == undisturbed.folder.get("model.json")
