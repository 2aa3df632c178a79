"""Transformers as chains of maps: tokens become places again between the stages.

A stage's map holds the tokens of the image's patches alone. The class token (and registers) that
later blocks need as well goes from stage to stage beside it, by thread.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate, pad

_beside = threading.local()  # the tokens that belong to no place, from one stage to the next


class EnterTokens(nn.Module):
    """Cuts an image into patches and gives each its place: torchvision's ViT at any size.

    Position embeddings are interpolated for other sizes than the network's own, as torchvision's
    `interpolate_embeddings` does. A side that is no
    multiple of the patch is filled up with zeros, so that every pixel takes part.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.conv_proj, self.class_token = net.conv_proj, net.class_token
        self.pos_embedding, self.dropout = net.encoder.pos_embedding, net.encoder.dropout
        self.patch = int(net.patch_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map (B, C, h, w) of (B, 3, H, W)."""
        height, width = x.shape[2:]
        if height % self.patch or width % self.patch:
            x = pad(x, [0, -width % self.patch, 0, -height % self.patch])
        m = self.conv_proj(x)  # (B, C, h, w)
        tokens = torch.cat(
            [self.class_token.expand(len(m), -1, -1), m.flatten(2).transpose(1, 2)], dim=1
        )
        tokens = self.dropout(tokens + self._positions(m.shape[2], m.shape[3]))
        return _to_map(tokens, 1, m.shape[2], m.shape[3])

    def _positions(self, h: int, w: int) -> torch.Tensor:
        places: torch.Tensor = self.pos_embedding  # (1, 1 + n * n, C)
        n = round((places.shape[1] - 1) ** 0.5)
        if (h, w) == (n, n):
            return places
        grid = places[:, 1:].transpose(1, 2).reshape(1, -1, n, n)
        with torch.autocast(grid.device.type, enabled=False):
            grid = interpolate(grid.float(), (h, w), mode="bicubic", align_corners=True)
        return torch.cat([places[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class EnterTimm(nn.Module):
    """The same with the parts of timm's VisionTransformer, which knows other sizes by itself."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.patch_embed, self.patch_drop, self.norm_pre = (
            net.patch_embed, net.patch_drop, net.norm_pre,
        )  # fmt: skip
        self.pos_embed, self.pos_drop = net.pos_embed, net.pos_drop
        self.cls_token, self.reg_token = net.cls_token, net.reg_token
        self.dynamic_img_size, self.no_embed_class = net.dynamic_img_size, net.no_embed_class
        self.num_prefix_tokens = int(net.num_prefix_tokens)
        self._embed = type(net)._pos_embed  # reads the attributes above

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map (B, C, h, w) of (B, 3, H, W)."""
        height, width = x.shape[2:]
        tokens = self.norm_pre(self.patch_drop(self._embed(self, self.patch_embed(x))))
        h, w = self.patch_embed.dynamic_feat_size((height, width))
        return _to_map(tokens, self.num_prefix_tokens, h, w)


class TokenBlocks(nn.Module):
    """Some blocks of a transformer, from map to map.

    Parameters
    ----------
    blocks
        Each takes and returns tokens (B, n, C).
    n_beside
        Number of tokens that are no places: class token and registers.
    norm
        The layer behind the last block of all, if it stands here.
    """

    def __init__(
        self, blocks: list[nn.Module], n_beside: int, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm or nn.Identity()
        self.n_beside = n_beside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map (B, C, h, w) of the map (B, C, h, w) of the stage before."""
        tokens = x.flatten(2).transpose(1, 2)  # (B, h * w, C)
        if self.n_beside:
            tokens = torch.cat([_taken(len(x)), tokens], dim=1)
        tokens = self.norm(self.blocks(tokens))
        return _to_map(tokens, self.n_beside, x.shape[2], x.shape[3])


def _to_map(tokens: torch.Tensor, n_beside: int, h: int, w: int) -> torch.Tensor:
    """Return the places as a map, and put the other tokens beside it."""
    _beside.tokens = tokens[:, :n_beside]
    return tokens[:, n_beside:].transpose(1, 2).reshape(len(tokens), -1, h, w)  # channels last


def _taken(n: int) -> torch.Tensor:
    tokens: torch.Tensor | None = getattr(_beside, "tokens", None)
    if tokens is None or len(tokens) != n:
        raise RuntimeError("stages of a transformer run one after another, on the same images")
    return _usable(tokens)


def _usable(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that may take part in gradients, wherever it was made.

    Fine-tuning runs the frozen stages in inference mode and goes on outside of it.
    """
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


class WholeFirst(nn.Module):
    """A network that can not be cut: it runs as a whole here, and hands out its first map.

    `LaterMap` hands out the others. Grad-CAM of these sees only what the head reads of them.
    """

    def __init__(self, net: Any, indices: list[int]) -> None:
        super().__init__()
        self.net, self.indices = net, indices

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the first map (B, C, h, w) of (B, 3, H, W)."""
        maps: list[torch.Tensor] = self.net.forward_intermediates(
            x, indices=self.indices, intermediates_only=True, output_fmt="NCHW"
        )
        _beside.maps = [None, *maps[1:]]
        return maps[0]


class LaterMap(nn.Module):
    """Hands out map number `index` of the network that ran in `WholeFirst`."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map (B, C, h, w); the map of the stage before tells which images."""
        found: torch.Tensor | None = _beside.maps[self.index]
        if found is None or len(found) != len(x):
            raise RuntimeError("stages of a network run one after another, on the same images")
        _beside.maps[self.index] = None  # its memory is not held any longer than it is needed
        return _usable(found)
