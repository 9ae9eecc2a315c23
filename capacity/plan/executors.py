"""Where the runs of a study are made: by workers on this machine, or on nodes of a Ray cluster. No torch, no Ray."""

from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from pydantic import NonNegativeInt, model_validator

from capacity.errors import SpecError, unknown
from capacity.spec.frozen import Frozen

ExecutorName = Literal["local", "ray"]


@dataclass(frozen=True)
class ExecutorChoice:
    """What makes the runs of a study. It changes no result.

    Attributes:
        name: "local" for workers on this machine, or "ray" for workers on the nodes of a Ray cluster.
        devices: the GPUs of this machine that workers use, by number; all of them if empty.
        address: the address of a running Ray cluster. If None, `ray` uses RAY_ADDRESS, or starts a cluster of its own.

    Raises:
        SpecError: if two of these contradict each other.
    """

    name: ExecutorName = "local"
    devices: tuple[int, ...] = ()
    address: str | None = None

    def __post_init__(self) -> None:
        for place, number in enumerate(self.devices):
            if number in self.devices[:place]:
                raise SpecError(f"--devices names GPU {number} twice: name each GPU once")
        if self.name == "ray" and self.devices:
            raise SpecError("--devices is for --executor local: Ray gives each worker a GPU itself")
        if self.name == "local" and self.address is not None:
            raise SpecError("--ray ADDRESS is for --executor ray")


class Executed(Frozen):
    """The part of a study file that says where its runs are made. It is no part of what they are.

    Attributes:
        executor: "local", or "ray".
        devices: the GPUs that local workers use, by number; all of them if empty.
        ray: the address of a running Ray cluster.
    """

    executor: ExecutorName = "local"
    devices: tuple[NonNegativeInt, ...] = ()
    ray: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        try:
            self.executor_choice()
        except SpecError as error:
            raise ValueError(str(error)) from None
        return self

    def executor_choice(
        self, executor: str | None = None, devices: tuple[int, ...] | None = None, ray: str | None = None
    ) -> ExecutorChoice:
        """Returns the choice of the study file. What is given here counts instead of what the file says.

        Raises:
            SpecError: if there is no such executor, or two parts contradict each other.
        """
        if executor is None and ray is not None:
            executor = "ray"
        name = self.executor if executor is None else executor_name(executor)
        from_file = name == self.executor  # what the file says of another executor does not count
        if devices is None:
            devices = self.devices if from_file else ()
        if ray is None and from_file:
            ray = self.ray
        return ExecutorChoice(name, devices, ray)


def executor_name(text: str) -> ExecutorName:
    """Reads the name of an executor.

    Raises:
        SpecError: if there is no such executor.
    """
    if text not in get_args(ExecutorName):
        raise unknown("executor", text, get_args(ExecutorName))
    return cast(ExecutorName, text)


def parse_devices(text: str | None) -> tuple[int, ...] | None:
    """Reads the numbers of GPUs, such as `0,1`; None if there is no text.

    Raises:
        SpecError: if they are not numbers by comma.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise SpecError(f"--devices {text!r} does not list numbers of GPUs: write 0,1")
    return tuple(map(int, parts))
