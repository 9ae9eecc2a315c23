"""How much memory a device has."""

import os

import torch


def total_memory(device: torch.device | str) -> int:
    """Bytes of a GPU, or for the CPU those of the machine."""
    if torch.device(device).type == "cpu":
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    return int(torch.cuda.mem_get_info(device)[1])


def gpu_memory(device: torch.device) -> int | None:
    """Bytes of a GPU; None for the CPU, whose memory several processes share."""
    return None if device.type == "cpu" else total_memory(device)


def free_gpu_memory(device: torch.device) -> int | None:
    """Bytes of a GPU that nobody else holds: those that are free, and those that torch has taken; None for the CPU."""
    if device.type == "cpu":
        return None
    return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))
