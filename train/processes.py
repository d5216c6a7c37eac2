"""Several processes that train one LoRA together, on the GPUs of one machine or of many, as `accelerate launch` or `torchrun` start them.

Each computes its share of a step's batches; the gradients, which are a LoRA's and small, are summed in one message, and every process takes
the same step. So all hold the same weights without sending any.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

PATIENCE = timedelta(hours=2)  # that others wait while the first one encodes pictures or draws samples


@dataclass(frozen=True)
class Processes:
    """This process's place among `count`; the one with rank 0 writes all files. A process that nobody started with others is alone."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None  # its own, where there are several

    @classmethod
    def join(cls) -> Processes:
        """Meet the others that the launcher's environment (RANK, WORLD_SIZE, MASTER_ADDR) names."""
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return cls()
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        return cls(state.process_index, state.num_processes, state.device)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, start: int) -> tuple[int, int]:
        """Say where this process begins and by how much it goes on, if all together go through what is numbered from `start`."""
        return start + self.rank, self.count

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process do something while the others wait, then these, who find what it left on disk."""
        if not self.first:
            self._wait()
        yield
        if self.first:
            self._wait()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Print nothing on any process but the first."""
        with contextlib.nullcontext() if self.first else contextlib.redirect_stdout(io.StringIO()):
            yield

    def total(self, *values: float) -> list[float]:
        """Return the sums of some numbers over all processes."""
        return self._reduced(values, "SUM")

    def greatest(self, *values: int) -> list[int]:
        """Return the greatest of each number among all processes."""
        return [int(value) for value in self._reduced(values, "MAX")]

    def _reduced(self, values: Sequence[float], how: str) -> list[float]:
        if self.count == 1:
            return list(values)
        import torch
        from torch import distributed

        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(found, getattr(distributed.ReduceOp, how))
        return found.tolist()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients; one that has none anywhere keeps none, so that the optimizer leaves it alone."""
        if self.count == 1:
            return
        import torch
        from torch import distributed

        having = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        flat = torch.cat([having, *((torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in parameters)])
        distributed.all_reduce(flat)
        having, *pieces = flat.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, count, piece in zip(parameters, having.tolist(), pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype) if count else None

    def leave(self) -> None:
        """Close the connection, after which the process is free to end."""
        if self.count > 1:
            from torch import distributed

            distributed.destroy_process_group()

    def _wait(self) -> None:
        if self.count > 1:
            from torch import distributed

            distributed.barrier()
