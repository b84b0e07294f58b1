"""One pass over all rows, or over one block after another with an M-step after each.

The second is incremental EM (Neal and Hinton 1998; Thiesson, Meek and Heckerman 2001, Machine
Learning 45, on few large blocks): a block that is read again replaces its own statistics in the
sums over all. An M-step in the middle of a pass that meets a component in trouble is left out:
what to do about it is decided at the end of the pass, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gmm_dask.fitting.components import IN_TROUBLE, Maximisation
from gmm_dask.fitting.memory import Lead, Part, summed
from gmm_dask.fitting.state import State
from gmm_dask.mixture import Parameters, SufficientStatistics

Expectation = Callable[[Parameters], SufficientStatistics]


class Passes(NamedTuple):
    """Ways to look at the same rows.

    Parameters
    ----------
    expectation : parameters -> statistics
        All at once.
    blocks : sequence of Expectation
        Some of them, and together all; fewer than two are none.
    """

    expectation: Expectation
    blocks: Sequence[Expectation] = ()


class Seen(NamedTuple):
    """What a pass saw.

    Parameters
    ----------
    parameters : Parameters
        Those the last rows were looked at under; the next M-step starts from them.
    statistics : SufficientStatistics
        Of all rows. Their log-likelihood is that of the parameters, or where blocks were looked
        at under earlier ones a lower bound of it.
    parts : tuple of Part
        The blocks, for the next pass.
    """

    parameters: Parameters
    statistics: SufficientStatistics
    parts: tuple[Part, ...] = ()


def one_pass(
    expectation: Expectation, blocks: Sequence[Expectation], state: State, maximise: Maximisation
) -> Seen:
    """Look at every row once, from where the fit stands.

    Parameters
    ----------
    expectation : parameters -> statistics
        Of all rows.
    blocks : sequence of the same
        Each of some rows, and together of all; fewer than two are none.
    """
    if len(blocks) < 2:
        return Seen(state.parameters, expectation(state.parameters))
    parameters, parts = state.parameters, list(state.parts)
    lead = None if parameters is state.settled else Lead(state.settled, parameters)
    for b, block in enumerate(blocks):
        parts[b : b + 1] = [Part(block(parameters), parameters)]
        if b + 1 < len(blocks) == len(parts):
            total = summed(parts, parameters)
            if lead is not None:
                total += lead.of(b + 1, parts, parameters)
            parameters = _maximised(parameters, total, state, maximise)
    return Seen(parameters, summed(parts, parameters), tuple(parts))


def _maximised(
    parameters: Parameters, total: SufficientStatistics, state: State, maximise: Maximisation
) -> Parameters:
    """After the M-step; as before where that would have to do something to a component."""
    try:
        step = maximise(parameters, total, state.n_passes + 1, state.events)
    except IN_TROUBLE:
        return parameters
    return step.parameters if step.events == state.events else parameters
