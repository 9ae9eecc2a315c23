"""Reads how much memory a device has."""

import os

import torch


def total_memory(device: torch.device | str) -> int:
    """Bytes of memory that a GPU has, or for the CPU the machine."""
    if torch.device(device).type == "cpu":
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    return int(torch.cuda.mem_get_info(device)[1])


def gpu_memory(device: torch.device) -> int | None:
    """Bytes of memory that a GPU has; None for the CPU, whose memory several processes share."""
    return None if device.type == "cpu" else total_memory(device)


def free_gpu_memory(device: torch.device) -> int | None:
    """Bytes of a GPU that no other process holds; None for the CPU.

    They are the bytes that are free and those that torch has taken already.
    """
    if device.type == "cpu":
        return None
    return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))
