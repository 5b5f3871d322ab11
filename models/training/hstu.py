"""The research HSTU (Zhai et al., arXiv 2402.17152), the variant that the runtime serves.

Letters: B windows in a batch, n rows of a window, N padded length (a constant), D width, H heads, V catalogue size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from time_buckets import TIME_BUCKETS, time_bucket_thresholds

_NORM_EPS = 1e-6


@dataclass(frozen=True)
class HstuConfig:
    vocabulary_size: int
    """V: entities, the padding row 0 not counted."""
    padded_length: int
    """N: rows of the position table, and the constant divisor of attention."""
    dimension: int = 64
    layers: int = 2
    heads: int = 2
    dqk: int = 32
    dv: int = 32
    input_dropout: float = 0.2
    output_dropout: float = 0.2


class BiasLookup(torch.autograd.Function):
    """table[index]; the stock backward of a 1-d gather with millions of repeated indices is slow on CPU, a bincount is not."""

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = table.numel()
        return table[index]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (index,) = ctx.saved_tensors
        flat = torch.bincount(index.flatten(), weights=gradient.flatten(), minlength=ctx.size)
        return flat.to(gradient.dtype), None


class HstuLayer(nn.Module):
    """One block: its own projections and its own two relative-bias tables, shared by its heads."""

    def __init__(self, config: HstuConfig):
        super().__init__()
        self.config = config
        heads, dqk, dv = config.heads, config.dqk, config.dv
        self.uvqk = nn.Parameter(torch.empty(config.dimension, heads * (2 * dv + 2 * dqk)).normal_(0, 0.02))
        self.time_bias = nn.Parameter(torch.empty(TIME_BUCKETS).normal_(0, 0.02))
        self.position_bias = nn.Parameter(torch.empty(2 * config.padded_length - 1).normal_(0, 0.02))
        self.output = nn.Linear(heads * dv, config.dimension)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, x: Tensor, buckets: Tensor, causal: Tensor) -> Tensor:
        """x [B, n, D], buckets [B, n, n], causal [n, n] (1 where j <= i) -> [B, n, D]."""
        c = self.config
        batch, n, width = x.shape
        normed = F.layer_norm(x, (width,), eps=_NORM_EPS)
        widths = [c.heads * c.dv, c.heads * c.dv, c.heads * c.dqk, c.heads * c.dqk]
        u, v, q, k = F.silu(normed @ self.uvqk).split(widths, dim=-1)
        q = q.view(batch, n, c.heads, c.dqk).transpose(1, 2)
        k = k.view(batch, n, c.heads, c.dqk).transpose(1, 2)
        v = v.view(batch, n, c.heads, c.dv).transpose(1, 2)

        rows = torch.arange(n)
        position = self.position_bias[c.padded_length - 1 + rows[None, :] - rows[:, None]]  # [n, n], entry j - i
        bias = BiasLookup.apply(self.time_bias, buckets) + position
        scores = q @ k.transpose(-1, -2) + bias[:, None]  # [B, H, n, n]
        attention = F.silu(scores) * (causal / c.padded_length)
        o = (attention @ v).transpose(1, 2).reshape(batch, n, c.heads * c.dv)
        gated = u * F.layer_norm(o, (c.heads * c.dv,), eps=_NORM_EPS)
        return self.output(F.dropout(gated, c.output_dropout, self.training)) + x


class Hstu(nn.Module):
    def __init__(self, config: HstuConfig):
        super().__init__()
        self.config = config
        d = config.dimension
        self.entity_embedding = nn.Parameter(torch.empty(config.vocabulary_size + 1, d).normal_(0, 0.02))
        self.position_embedding = nn.Parameter(torch.empty(config.padded_length, d).normal_(0, d**-0.5))
        self.layers = nn.ModuleList(HstuLayer(config) for _ in range(config.layers))
        self.register_buffer("thresholds", torch.tensor(time_bucket_thresholds(), dtype=torch.int64), persistent=False)

    def entities(self) -> Tensor:
        """The table E [V+1, D] that tokens and candidates share; row 0 is zero."""
        return torch.cat([torch.zeros_like(self.entity_embedding[:1]), self.entity_embedding[1:]])

    def forward(self, ids: Tensor, times: Tensor, entities: Tensor | None = None) -> Tensor:
        """
        ids [B, n], oldest first, left-aligned, 0 = padding; times [B, n+1] int64 seconds, where times[:, i+1] is the query time of row i.
        Returns the L2-normalised rows [B, n, D]; rows of padding are meaningless.
        """
        c = self.config
        n = ids.shape[1]
        table = self.entities() if entities is None else entities
        x = table[ids] * c.dimension**0.5 + self.position_embedding[:n]
        x = F.dropout(x, c.input_dropout, self.training) * (ids != 0)[..., None]
        gaps = (times[:, 1:, None] - times[:, None, :-1]).abs().clamp(min=1)  # [B, n, n]: the next time of i, minus the time of j
        buckets = torch.bucketize(gaps, self.thresholds, right=True)
        causal = torch.ones(n, n, dtype=x.dtype).tril()
        for layer in self.layers:
            x = layer(x, buckets, causal)
        return l2_normalised(x)


def l2_normalised(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=_NORM_EPS)
