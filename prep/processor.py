"""What the processor can do beyond plain floats, as Linux tells it; elsewhere it is taken to do nothing more."""

from __future__ import annotations

from pathlib import Path

# Processors with these flags multiply bytes without overflow; on others weights get 7 bits.
VNNI = ("avx512_vnni", "avx_vnni", "asimddp")
BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # multiply bf16 as such


def multiplies_bytes(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether 8-bit integers are multiplied without overflow."""
    return not _flags(info).isdisjoint(VNNI)


def multiplies_bf16(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether bf16 is multiplied without being turned to float32."""
    return not _flags(info).isdisjoint(BF16)


def _flags(info: Path) -> set[str]:
    try:
        return set(info.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return set()
