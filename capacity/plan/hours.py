"""The hours that a study may take, counted over all calls that work on it. The study keeps what it has spent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated

from pydantic import Field

from capacity.errors import CapacityError
from capacity.runs.study import Study
from capacity.spec.frozen import Frozen
from capacity.spec.run import RunSpec

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spent(Frozen):
    """The time that a study has taken.

    Attributes:
        seconds: the time of all calls together.
        batch_seconds: the time of the last batch of runs; 0 before the first batch.
    """

    seconds: Seconds = 0.0
    batch_seconds: Seconds = 0.0


class Hours:
    """Counts the time of one call on top of what the study has spent before.

    Args:
        limit: the hours of all calls together; None for no limit.
        before: what the calls before have spent.
        keep: a function that writes down what is spent.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, limit: float | None, before: Spent, keep: Callable[[Spent], None], clock: Callable[[], float]
    ) -> None:
        self.limit, self._before, self._keep, self._clock = limit, before, keep, clock
        self._batch, self._began = before.batch_seconds, clock()

    @property
    def spent(self) -> Spent:
        """Returns what all calls have spent up to now."""
        return Spent(seconds=self._before.seconds + self._clock() - self._began, batch_seconds=self._batch)

    @property
    def allow_batch(self) -> bool:
        """Tells whether a batch that takes as long as the last one would end in time."""
        spent = self.spent
        return self.limit is None or spent.seconds + spent.batch_seconds <= 3600 * self.limit

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Writes down what is spent when the context ends. An error of the context is not hidden."""
        try:
            yield
        except BaseException:
            with suppress(CapacityError):
                self._keep(self.spent)
            raise
        self._keep(self.spent)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Does the same as `kept`, and takes the time of the context for that of a batch unless an error ends it."""
        with self.kept():
            began = self._clock()
            yield
            self._batch = self._clock() - began


def all_tried(study: Study, specs: Sequence[RunSpec]) -> bool:
    """Tells whether each of these runs is complete or has failed before. Such a batch is not begun anew."""
    missing = {spec.short_id for spec in specs if not study.path_of(spec).is_dir()}
    return missing <= ({failure.run for failure in study.failures()} if missing else set())
