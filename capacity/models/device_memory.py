"""Reads how much memory a device has."""

import os

import torch


def total_memory(device: torch.device | str) -> int:
    """Returns the memory of a device in bytes. For the CPU it is the memory of the machine.

    Of a GPU that several processes share, it is the share of this process.
    """
    if torch.device(device).type == "cpu":
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    return int(torch.cuda.get_per_process_memory_fraction(device) * torch.cuda.mem_get_info(device)[1])


def gpu_memory(device: torch.device) -> int | None:
    """Returns the memory of a GPU in bytes; None for the CPU, whose memory several processes share."""
    return None if device.type == "cpu" else total_memory(device)


def free_gpu_memory(device: torch.device) -> int | None:
    """Returns the bytes of a GPU that no other process holds; None for the CPU.

    These are the free bytes and the bytes that torch has already reserved, and at most the share of this process.
    """
    if device.type == "cpu":
        return None
    unheld = int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))
    return min(unheld, total_memory(device))
