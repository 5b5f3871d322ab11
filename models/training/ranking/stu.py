"""The STU stack of a ranking model as the runtime computes it: additive tokens, relative biases, candidates as target rows.

Formulas: design of the generative recommender's `modules/stu.py` and `ops/pytorch/pt_hstu_attention.py` (meta-recsys); a constant divisor
instead of the batch's longest length, and the research variant's two relative biases (Zhai et al., arXiv 2402.17152).

Letters: B windows, n history rows, m target rows, D width, H heads, K tasks, N padded length.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hstu import BiasLookup
from time_buckets import TIME_BUCKETS, time_bucket_thresholds

_NORM_EPS = 1e-6
MATCH_GAIN, MATCH_OFFSET = 1.7, 14.0
"""Of the head that finds itself: with these, at the width of the published model, the same entity gives 6 +- 2, others -14 +- 4."""


@dataclass(frozen=True)
class StuConfig:
    padded_length: int
    """N: rows of the position table; a target takes the position after the history it sees."""
    tasks: int
    actions: int
    value_buckets: int
    dimension: int = 64
    layers: int = 2
    heads: int = 4
    dqk: int = 16
    dv: int = 16
    divisor: float = 64.0
    hidden: int = 64
    identity: int = 0
    """Last dimensions of an entity's row that only tell it from others; see StuLayer.find_itself."""
    input_dropout: float = 0.2
    output_dropout: float = 0.3

    @property
    def alpha(self) -> float:
        return self.dqk**-0.5

    @property
    def embedding_scale(self) -> float:
        return self.dimension**0.5


@dataclass(frozen=True)
class Places:
    """Who sees whom, the same for every layer."""

    history_buckets: Tensor
    """[B, n, n] time bucket of row i's next time and row j's time."""
    target_buckets: Tensor
    """[B, m, n] time bucket of a target's query time and row j's time."""
    positions: Tensor
    """[B, m] how many history rows a target sees: those before it."""


class StuLayer(nn.Module):
    def __init__(self, config: StuConfig):
        super().__init__()
        self.config = c = config
        columns = c.heads * (2 * c.dv + 2 * c.dqk)
        self.uvqk = nn.Parameter(torch.empty(c.dimension, columns).normal_(0, 0.06))
        self.uvqk_bias = nn.Parameter(torch.zeros(columns))
        self.time_bias = nn.Parameter(torch.full((TIME_BUCKETS,), 0.5))  # silu(1) of the two biases: at first a row averages its past
        self.position_bias = nn.Parameter(torch.full((2 * c.padded_length - 1,), 0.5))
        self.input_norm_weight = nn.Parameter(torch.ones(c.dimension))
        self.input_norm_bias = nn.Parameter(torch.zeros(c.dimension))
        self.output_norm_weight = nn.Parameter(torch.ones(c.heads * c.dv))
        self.output_norm_bias = nn.Parameter(torch.zeros(c.heads * c.dv))
        self.output_weight = nn.Parameter(torch.empty(3 * c.heads * c.dv, c.dimension).normal_(0, 0.02))

    def look_at_the_last_few(self) -> None:
        """
        The position bias begins with a profile that falls over some four rows. One rating is much like the ones just before it, and the
        bias's 2N - 1 separate numbers would take longer to find that out than there is data.
        """
        behind = torch.arange(2 * self.config.padded_length - 1) - (self.config.padded_length - 1)  # j - i
        with torch.no_grad():
            self.position_bias.copy_(torch.where(behind <= 0, 11 * torch.exp((behind + 1) / 4).clamp(max=1) - 5, 0.0))
            self.time_bias.zero_()

    def find_itself(self) -> None:
        """
        Head 0 begins as one that finds a token of the same entity: one projection of the identity for query and key, and an offset (the
        product of two constants) under which the chance products of some hundred other tokens stay near silu's zero. Sums without a
        softmax would drown a single match, and there are too few tags here to learn it from noise.
        """
        c = self.config
        q, k = 2 * c.heads * c.dv, 2 * c.heads * c.dv + c.heads * c.dqk
        kept = min(c.identity, c.dqk - 1)
        with torch.no_grad():
            same = torch.zeros(c.dimension, c.dqk)
            same[c.dimension - kept :, 1 : 1 + kept] = MATCH_GAIN * torch.eye(kept)
            self.uvqk[:, q : q + c.dqk] = same
            self.uvqk[:, k : k + c.dqk] = same
            self.uvqk_bias[q] = (MATCH_OFFSET / c.alpha) ** 0.5
            self.uvqk_bias[k] = -self.uvqk_bias[q]
            self.uvqk_bias[c.heads * c.dv : c.heads * c.dv + c.dv] = 1  # its values: that there is one
            self.output_weight[c.heads * c.dv : c.heads * c.dv + c.dv].normal_(0, 0.2)

    def forward(self, x: Tensor, targets: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """x [B, n, D], targets [B, m, D] -> the same shapes. A target sees the rows before its position and itself, nobody sees a target."""
        c = self.config
        n = x.shape[1]
        u, v, q, k = self._project(x)
        tu, tv, tq, tk = self._project(targets)
        rows = torch.arange(n)
        causal = rows[None, :] <= rows[:, None]
        bias = BiasLookup.apply(self.time_bias, places.history_buckets) + self.position_bias[c.padded_length - 1 + rows[None, :] - rows[:, None]]
        o = self._weights(q @ k.transpose(-1, -2), bias, causal) @ v  # [B, H, n, dv]

        behind = rows - places.positions[..., None]  # [B, m, n], negative where seen
        bias = BiasLookup.apply(self.time_bias, places.target_buckets)
        bias = bias + BiasLookup.apply(self.position_bias, (c.padded_length - 1 + behind).clamp(0, 2 * c.padded_length - 2))
        past = self._weights(tq @ k.transpose(-1, -2), bias, behind < 0) @ v  # [B, H, m, dv]
        own = (tq * tk).sum(-1, keepdim=True) * c.alpha + self.time_bias[0] + self.position_bias[c.padded_length - 1]
        return self._finish(x, u, o), self._finish(targets, tu, past + F.silu(own) / c.divisor * tv)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, r, D] -> u [B, r, H*dv]; v [B, H, r, dv]; q, k [B, H, r, dqk]. silu on u only."""
        c = self.config
        h = F.layer_norm(x, (c.dimension,), self.input_norm_weight, self.input_norm_bias, _NORM_EPS)
        u, v, q, k = (h @ self.uvqk + self.uvqk_bias).split([c.heads * c.dv, c.heads * c.dv, c.heads * c.dqk, c.heads * c.dqk], dim=-1)
        by_head = lambda part, width: part.view(*part.shape[:2], c.heads, width).transpose(1, 2)
        return F.silu(u), by_head(v, c.dv), by_head(q, c.dqk), by_head(k, c.dqk)

    def _weights(self, products: Tensor, bias: Tensor, visible: Tensor) -> Tensor:
        """products [B, H, r, n], bias [B, r, n], visible [r, n] or [B, r, n] -> attention weights [B, H, r, n]."""
        mask = visible.to(products.dtype) / self.config.divisor
        return F.silu(products * self.config.alpha + bias[:, None]) * (mask if mask.dim() == 2 else mask[:, None])

    def _finish(self, x: Tensor, u: Tensor, o: Tensor) -> Tensor:
        """x + [u | o | u * LayerNorm(o)] @ Wo, the norm over all heads at once."""
        c = self.config
        o = o.transpose(1, 2).flatten(2)  # [B, r, H*dv]
        y = u * F.layer_norm(o, (c.heads * c.dv,), self.output_norm_weight, self.output_norm_bias, _NORM_EPS)
        return x + F.dropout(torch.cat([u, o, y], -1), c.output_dropout, self.training) @ self.output_weight


class Stu(nn.Module):
    """Layers, positions, actions, values and heads; the entities' table is the learner's (in training) or the bundle's."""

    def __init__(self, config: StuConfig):
        super().__init__()
        self.config = c = config
        self.action_embedding = nn.Parameter(torch.empty(1 + c.actions, c.dimension).normal_(0, 0.05))
        self.value_embedding = nn.Parameter(torch.empty(c.value_buckets, c.dimension).normal_(0, 0.05))
        self.position_embedding = nn.Parameter(torch.empty(c.padded_length, c.dimension).normal_(0, 0.05))
        self.layers = nn.ModuleList(StuLayer(c) for _ in range(c.layers))
        self.hidden_weight = nn.Parameter(torch.empty(c.dimension, c.hidden).normal_(0, c.dimension**-0.5))
        self.hidden_bias = nn.Parameter(torch.zeros(c.hidden))
        self.weight = nn.Parameter(torch.empty(c.hidden, c.tasks).normal_(0, 0.02))
        self.bias = nn.Parameter(torch.zeros(c.tasks))
        if c.identity > 0:
            with torch.no_grad():
                for table in (self.action_embedding, self.value_embedding, self.position_embedding):
                    table[:, -c.identity :] = 0
            self.layers[0].find_itself()
        self.layers[-1].look_at_the_last_few()
        self.register_buffer("thresholds", torch.tensor(time_bucket_thresholds(), dtype=torch.int64), persistent=False)

    def forward(self, history: "History", entities: Tensor, target_entities: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """
        entities [B, n, D] and target_entities [B, m, D] are rows of the entity table; positions [B, m] in 0..n: target k is asked about
        at times[positions[k]] and sees the history rows before that.

        Returns history rows [B, n, D] and target rows [B, m, D], LayerNorm without affine.
        """
        c = self.config
        n = entities.shape[1]
        bits = torch.stack([(history.bits >> a) & 1 for a in range(c.actions)], -1).to(entities.dtype)  # [B, n, actions]
        values = torch.cat([torch.zeros_like(self.value_embedding[:1]), self.value_embedding])[history.buckets]
        x = (entities + bits @ self.action_embedding[1:] + values) * c.embedding_scale + self.position_embedding[:n]
        targets = (target_entities + self.action_embedding[0]) * c.embedding_scale + self.position_embedding[positions]
        x, targets = (F.dropout(part, c.input_dropout, self.training) for part in (x, targets))
        query = history.times.gather(1, positions)  # [B, m]
        places = Places(
            self._buckets(history.times[:, 1:, None] - history.times[:, None, :-1]),
            self._buckets(query[:, :, None] - history.times[:, None, :-1]),
            positions,
        )
        for layer in self.layers:
            x, targets = layer(x, targets, places)
        return tuple(F.layer_norm(part, (c.dimension,), eps=_NORM_EPS) for part in (x, targets))

    def logits(self, rows: Tensor) -> Tensor:
        """[..., D] -> [..., K]"""
        return F.silu(rows @ self.hidden_weight + self.hidden_bias) @ self.weight + self.bias

    def _buckets(self, gaps: Tensor) -> Tensor:
        return torch.bucketize(gaps.abs().clamp(min=1), self.thresholds, right=True)


@dataclass(frozen=True)
class History:
    """B windows, left-aligned; what follows a window's end is padding that no target of it sees."""

    bits: Tensor
    """[B, n]"""
    buckets: Tensor
    """[B, n]"""
    times: Tensor
    """[B, n+1] seconds; entry i + 1 is the next time of row i."""
