"""Decisions: what a person has decided about a picture, which no step overrules: set aside by hand, or kept in spite of a reason."""

from __future__ import annotations

ASIDE = "by_hand"  # the reason of a picture that a person sets aside
KEPT = "kept"  # the stamp that lists the reasons for which a person does not let a picture be set aside
# Reasons that are facts and no judgement: there is no picture, or none that can be used.
FACTS = frozenset(("unreadable", "truncated", "empty_file", "too_large", "needs_package", "source_gone", "frame_left_out", "frame_repeated"))


def overruled(stamps: dict[str, str], reason: str) -> bool:
    """Tell whether a person keeps a picture in spite of a reason."""
    return reason in stamps.get(KEPT, "").split()
