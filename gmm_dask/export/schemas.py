"""JSON Schema (draft 2020-12) of the files of an output, by their names within the folder.

Readers pass over fields that they do not know: later versions of a format add some.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_RUN: Schema = {"type": "string", "pattern": "^[0-9a-f]{16}$", "description": "runs/<run_id>"}
_TIME: Schema = {"type": "string", "format": "date-time", "description": "UTC"}
_STATE = {"name": _TEXT, "size": _COUNT}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _numbers(depths: tuple[int, ...], description: str) -> Schema:
    """Numbers nested as deep as one of `depths` says."""
    forms = []
    for depth in depths:
        form = _NUMBER
        for _ in range(depth):
            form = _list(form)
        forms.append(form)
    return {"anyOf": forms, "description": description} if len(forms) > 1 else {
        **forms[0], "description": description
    }  # fmt: skip


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _by_name(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _file(title: str, fields: dict[str, Schema], lacking: tuple[str, ...] = ()) -> Schema:
    """A document with these fields, all required but those that may be lacking."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if name not in lacking],
    }


def _format(name: str, version: int) -> dict[str, Schema]:
    return {
        "format": {"const": f"gmm_dask.{name}"},
        "format_version": {"type": "integer", "minimum": 1, "maximum": version},
    }


_ENTRY: Schema = {
    "type": "object",
    "properties": {
        "bytes": _COUNT, "sha256": _SHA256, "first_row": _COUNT, "rows": _COUNT,
    },
    "required": ["bytes", "sha256"],
}  # fmt: skip

SCHEMAS: dict[str, Schema] = {
    "versions/*.json": _file(
        "An entry of the log: one version, which points to a run. The highest number is the latest",
        {
            **_format("version", 9),
            "run_id": _RUN,
            "manifest_sha256": {**_SHA256, "description": "of the bytes of MANIFEST.json"},
            "rows": {**_COUNT, "description": "of the input"},
            "published": _or_null(_TIME),
            "registry": _or_null(
                {
                    "type": "object",
                    "description": "as of this entry: numbers of versions by alias, names of "
                    "components by identity, runs that were removed, and runs whose labels were",
                    "required": ["aliases", "names", "retired", "unlabelled"],
                }
            ),
            "checksum": {**_SHA256, "description": "of the document without this field"},
        },
        ("published", "registry", "checksum"),
    ),
    "runs/*/MANIFEST.json": _file(
        "Every file of a run with size and hash; what it does not list is no part of the version",
        {
            **_format("manifest", 9),
            "run_id": _RUN,
            "published": _or_null(_TIME),
            "rows": _COUNT,
            "model_sha256": _or_null({**_SHA256, "description": "the field sha256 of model.json"}),
            "labels": _list(_TEXT, description="label parts in the order of the rows"),
            "files": _by_name(_ENTRY),
        },
        ("published", "model_sha256"),
    ),
    "runs/*/model.json": _file(
        "A mixture: everything that is needed to score rows",
        {
            **_format("model", 9),
            "covariance_type": {
                "type": "string",
                "pattern": "^(full|tied|diag|spherical|low_rank:[0-9]+)$",
            },
            "n_components": {**_COUNT, "description": "k"},
            "n_features": {**_COUNT, "description": "d"},
            "feature_names": _list(_TEXT),
            "feature_types": _list(
                _TEXT, description="Arrow types; unnamed where rows had no names"
            ),
            "weights": _numbers((1,), "(k,), they sum to one"),
            "noise": {
                "type": "object",
                "description": "the component of constant density: its share of the rows, of which "
                "the weights are shares of the others, and the edges of its box, (d,) each",
                "properties": {
                    "share": _NUMBER,
                    "lower": _list(_NUMBER),
                    "upper": _list(_NUMBER),
                },
                "required": ["share", "lower", "upper"],
            },
            "means": _numbers((2,), "(k, d), in the units of the data"),
            "covariances": _numbers(
                (1, 2, 3),
                "(k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical, (k, d, q + 1) "
                "low rank: loadings, and the variance of the noise last",
            ),
            "precisions_cholesky": _numbers(
                (1, 2, 3),
                "in the shape of the covariances: U with U U^T = covariance^-1, upper "
                "triangular; 1 / standard deviation for diag and spherical",
            ),
            "reg_covar": _NUMBER,
            "converged": _FLAG,
            "outcome": _TEXT,
            "n_passes": _COUNT,
            "lower_bounds": _numbers((1,), "log-likelihood per row, pass by pass"),
            "n_rows": {**_COUNT, "description": "that the fit used; 0 where nobody knows"},
            "sum_weight": _NUMBER,
            "data_fingerprint": _TEXT,
            "settings_hash": _TEXT,
            "created_by": _by_name(_TEXT),
            "sha256": {**_SHA256, "description": "of the document without this field"},
        },
        ("noise",),
    ),
    "runs/*/metrics.json": _file(
        "What came of a run; null stands for what nobody measured",
        {
            "run_id": _RUN,
            "model_sha256": _SHA256,
            "n_rows": _COUNT,
            "n_used": _COUNT,
            "n_labelled": _or_null(_list(_COUNT, description="rows of each component")),
            "n_noise": _or_null({**_COUNT, "description": "rows with the label -1 as noise"}),
            "log_likelihood": _or_null(_NUMBER),
            "log_likelihood_per_row": _or_null(_NUMBER),
            "bic": _or_null(_NUMBER),
            "aic": _or_null(_NUMBER),
            "icl": _or_null(_NUMBER),
            "lower_bounds": _numbers((1,), "objective per row, pass by pass"),
            "converged": _FLAG,
            "outcome": _TEXT,
            "events": _list({"type": "object", "required": ["kind", "message"]}),
            "published": _or_null(_TIME),
            "selection": _or_null(
                {
                    "type": "object",
                    "description": "of a model that was chosen: all candidates, the best first, "
                    "column by column, and why",
                    "properties": {
                        "criterion": _TEXT,
                        "reason": _list(_TEXT),
                        "elbow": _or_null(_COUNT),
                        "table": {
                            "type": "object",
                            "properties": {
                                "n_components": _list(_COUNT),
                                "covariance_type": _list(_TEXT),
                            },
                            "additionalProperties": _list(_or_null({})),
                        },
                    },
                    "required": ["criterion", "reason", "table"],
                }
            ),
            "cross_tables": {
                **_by_name(
                    _list(
                        {
                            "type": "object",
                            "properties": {"value": _or_null(_TEXT), "counts": _list(_COUNT)},
                            "required": ["value", "counts"],
                        }
                    )
                ),
                "description": "for each kept column of few values, rows by value (null: missing) "
                "and label; those with the label -1 last",
            },
            "severity": _or_null(
                {
                    "type": "object",
                    "description": "at each level, in per cent, the log-density that so large a "
                    "share of the training data exceeds",
                    "properties": {"levels": _list(_NUMBER), "log_density": _list(_NUMBER)},
                }
            ),
        },
        ("published", "selection", "severity", "n_noise", "cross_tables"),
    ),
    "runs/*/run.json": _file(
        "The plan: files, rows, settings and software of the attempt that began the run",
        {
            **_format("run", 9),
            "run_id": _RUN,
            "settings": {"type": "object"},
            "plan": {"type": "object", "properties": {"partitions": _list({"type": "object"})}},
            "software": _by_name(_TEXT),
        },
    ),
    "runs/*/contents.json": _file(
        "What every file of the input held, so that rewritten data are other data",
        {
            **_format("contents", 9),
            "files": _list(
                {
                    "type": "object",
                    "properties": {**_STATE, "sha256": _SHA256},
                    "required": ["name", "size", "sha256"],
                }
            ),
        },
    ),
    "runs/*/changes.json": _file(
        "Where the components come from, and what became of those of the version before",
        {
            **_format("changes", 9),
            "model_sha256": _SHA256,
            "follows": _or_null({"type": "object", "required": ["version", "run_id"]}),
            "components": _list({"type": "object", "required": ["identity", "previous"]}),
            "changes": _list({"type": "object", "required": ["kind", "message"]}),
            "migration": _or_null(_list(_list(_COUNT))),
        },
    ),
    "runs/*/statistics.json": _file(
        "Sums of each partition under given parameters, so that a refresh reads what is new alone",
        _format("statistics", 9),
    ),
    "runs/*/attempt.json": _file(
        "When the last attempt of a run began; no part of the version", {"began": _TIME}
    ),
    "runs/*/receipts/*.json": _file(
        "A label part as its writer noted it, for a later attempt; no part of the version",
        {
            "receipt": _or_null({"type": "object", "required": ["name", "sha256", "rows"]}),
            "contents": _list(_SHA256),
            "sums": {"type": "object"},
        },
    ),
    "runs/*/checkpoints/*.json": _file(
        "Where a fit stands between two passes; no part of the version, and only for this software",
        _format("checkpoint", 99),
    ),
}
