"""The network in training: still stages, learning stages, standardisation, dropout, linear head.

The same chain as a quick model's network, so that it starts at the quick model's answers and ends
as a network of the same shape.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from cnsapp.ml.backbones import StageNet
from cnsapp.ml.features import pool_stages
from cnsapp.ml.heads import LinearHead

Led = tuple[torch.Tensor, torch.Tensor | None]
"""What the still stages give: the last map (B, C, h, w), and their pooled columns (B, D_1)."""


class TrainNet(nn.Module):
    """A network whose later stages and head learn.

    Parameters
    ----------
    lead
        Stages that stay as they are, in eval mode, batch norms folded or not; None when all learn.
    body
        Stages that learn; copied.
    names
        Of all stages, in order.
    stages
        Names of those that the head reads.
    head
        Where the head starts.
    norms_learn
        Whether batch norms use the statistics of the batch (and follow them), or keep those of the
        pretrained network.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        lead: StageNet | None,
        body: Sequence[nn.Module],
        names: Sequence[str],
        stages: Sequence[str],
        head: LinearHead,
        *,
        norms_learn: bool,
    ) -> None:
        super().__init__()
        self._lead = (lead,)  # in a tuple: neither a parameter nor part of the state
        self.names, self.read = list(names), [name in stages for name in names]
        self.body = nn.ModuleList(copy.deepcopy(stage) for stage in body)
        self.register_buffer("mean", torch.from_numpy(head.mean.copy()))
        self.register_buffer("std", torch.from_numpy(head.std.copy()))
        self.linear = nn.Linear(*reversed(head.weight.shape))
        self.norms_learn = norms_learn
        self.load_head(head)
        self.requires_grad_(True)
        self.train()

    @property
    def lead(self) -> StageNet | None:
        """The stages that stay as they are."""
        return self._lead[0]

    @property
    def n_still(self) -> int:
        """How many stages stay as they are."""
        return len(self.names) - len(self.body)

    def load_head(self, head: LinearHead) -> None:
        """Put a linear head in place."""
        with torch.no_grad():
            for into, value in (
                (self.mean, head.mean), (self.std, head.std),
                (self.linear.weight, head.weight), (self.linear.bias, head.bias),
            ):  # fmt: skip
                into.copy_(torch.from_numpy(value))

    def head(self) -> LinearHead:
        """Return a copy of the linear head."""
        arrays = (self.mean, self.std, self.linear.weight, self.linear.bias)
        return LinearHead(*(a.detach().float().cpu().numpy().copy() for a in arrays))

    def train(self, mode: bool = True) -> TrainNet:
        """Switch to training: batch norms as `norms_learn` says, chance inside stages off.

        Dropout of the head is a mask of the caller's, so that every draw has its seed.
        """
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = mode and self.norms_learn
            elif isinstance(module, nn.modules.dropout._DropoutNd) or _drops_paths(module):
                module.training = False
        return self

    def run_lead(self, x: torch.Tensor) -> Led:
        """Run normalised input (B, 3, S, S) through the still stages, without gradients."""
        if self.lead is None:
            return x, None
        maps = self.lead(x)
        read = [m for m, is_read in zip(maps, self.read, strict=False) if is_read]
        return maps[-1], pool_stages(read) if read else None

    def forward(
        self, x: torch.Tensor, led: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits (B, K), float32.

        Parameters
        ----------
        x
            Last map of the still stages, or the input when there are none.
        led
            (B, D_1) pooled columns of the still stages, or None.
        mask
            (B, D) factors on the standardised columns (dropout), or None.
        """
        maps = []
        for is_read, stage in zip(self.read[self.n_still :], self.body, strict=True):
            x = stage(x)
            if is_read:
                maps.append(x)
        parts = ([] if led is None else [led]) + ([pool_stages(maps)] if maps else [])
        with torch.autocast(self.mean.device.type, enabled=False):
            z = (torch.cat(parts, dim=1) - self.mean) / self.std  # (B, D)
            logits: torch.Tensor = self.linear(z if mask is None else z * mask)
        return logits

    def learning_state(self) -> dict[str, torch.Tensor]:
        """Return all that training changes, by name; the tensors themselves, not copies."""
        return dict(self._changing())

    def _changing(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.named_parameters()
        if self.norms_learn:
            for name, buffer in self.named_buffers():
                if name.startswith("body.") and buffer.is_floating_point():
                    yield name, buffer

    def load_learning_state(self, state: dict[str, torch.Tensor]) -> None:
        """Copy a state into this network's own tensors."""
        with torch.no_grad():
            for name, mine in self._changing():
                mine.copy_(state[name])

    def twin(self) -> TrainNet:
        """Return a network that shares parameters with this one, with gradients of its own."""
        other = copy.copy(self)
        lead, other._lead = self._lead, (None,)
        other = copy.deepcopy(other)
        other._lead = lead
        for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):
            theirs.data = mine.data
        return other

    def copy(self) -> TrainNet:
        """Return a network with parameters of its own."""
        other = self.twin()
        for p in other.parameters():
            p.data = p.data.clone()
        return other

    def parameter_groups(
        self, rate: float, body_share: float, decay: float
    ) -> list[dict[str, object]]:
        """Return the groups of AdamW: head and body, each with and without decay.

        Norms and biases are not pulled to zero. `rate` is the head's; the body's is a share of it.
        """
        head = list(self.linear.named_parameters())
        body = [(n, p) for n, p in self.named_parameters() if n.startswith("body.")]
        groups = []
        for named, share in ((head, 1.0), (body, body_share)):
            for decays in (True, False):
                params = [p for _, p in named if (p.ndim > 1) == decays]
                groups.append(
                    {"params": params, "share": share, "lr": rate * share,
                     "weight_decay": decay if decays else 0.0}
                )  # fmt: skip
        return [group for group in groups if group["params"]]


def _drops_paths(module: nn.Module) -> bool:
    return type(module).__name__ in ("StochasticDepth", "DropPath", "DropBlock2d")
