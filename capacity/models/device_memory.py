"""Reads how much memory a device has."""

import torch

from capacity.plan.machine import memory_bytes


def total_memory(device: torch.device | str) -> int:
    """Returns the memory of a device in bytes. For the CPU it is the memory of the machine or of the container.

    Of a GPU that several processes share, it is the share of this process. A GPU without a number is the one in use.
    """
    found = torch.device(device)
    if found.type == "cpu":
        return memory_bytes()
    number = _number(found)
    return int(torch.cuda.get_per_process_memory_fraction(number) * torch.cuda.mem_get_info(number)[1])


def gpu_memory(device: torch.device) -> int | None:
    """Returns the memory of a GPU in bytes; None for the CPU, whose memory several processes share."""
    return None if device.type == "cpu" else total_memory(device)


def free_gpu_memory(device: torch.device) -> int | None:
    """Returns the bytes of a GPU that no other process holds; None for the CPU.

    These are the free bytes and the bytes that torch has already reserved, and at most the share of this process.
    """
    if device.type == "cpu":
        return None
    number = _number(device)
    unheld = int(torch.cuda.mem_get_info(number)[0]) + int(torch.cuda.memory_reserved(number))
    return min(unheld, total_memory(device))


def _number(gpu: torch.device) -> int:
    """Returns the number of a GPU. Torch's function for the share of a process refuses a GPU without one."""
    return torch.cuda.current_device() if gpu.index is None else gpu.index
