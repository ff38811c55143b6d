"""A k-sparse autoencoder: features as sums of few directions out of many (Revelio, 2411.16725).

    z = TopK(ReLU(W_enc (x - b_pre) / s + b_enc))      at most k of the units are active
    x_hat = s W_dec z + b_pre                          columns of W_dec have length one
    loss = |x - x_hat|^2 / |x - b_pre|^2

s is the features' root mean square distance from their mean, *(ours)*: learning rate and codes then
mean the same for every block. `W_dec` is kept by rows, one for each unit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm


def largest(drive: Float[Tensor, "*rows units"], k: int) -> Float[Tensor, "*rows units"]:
    """Return the k largest of each row where they are positive, zero elsewhere: TopK(ReLU(.))."""
    best, where = drive.topk(k, dim=-1)
    return torch.zeros_like(drive).scatter(-1, where, F.relu(best))


class SparseAutoencoder(nn.Module):
    """`units` directions for features of `width` numbers, at most `k` of them active at a time.

    Attributes:
        encoder, decoder: (units, width); the rows of `decoder` have length one.
        bias: b_enc, (units,).
        center: b_pre, (width,).
        scale: s, a number.
        history: One row per look at the training: step, unexplained, dead.
    """

    scale: Tensor

    def __init__(self, width: int, units: int, k: int, seed: int = 0):
        if not 1 <= k <= units:
            raise ValueError(f"k={k} of {units} units: k must be 1 to the number of units")
        super().__init__()
        self.k, self.history = k, []
        numbers = torch.Generator().manual_seed(seed)
        directions = F.normalize(torch.randn(units, width, generator=numbers), dim=-1)
        self.decoder = nn.Parameter(directions)
        self.encoder = nn.Parameter(directions.clone())
        self.bias = nn.Parameter(torch.zeros(units))
        self.center = nn.Parameter(torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def drive(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows units"]:
        """Return what each unit makes of the features before the k largest are kept."""
        return (x - self.center) / self.scale @ self.encoder.T + self.bias

    def encode(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows units"]:
        """Return z: the k largest drives where they are positive, zero elsewhere."""
        return largest(self.drive(x), self.k)

    def decode(self, codes: Float[Tensor, "*rows units"]) -> Float[Tensor, "*rows width"]:
        """Return x_hat."""
        return self.scale * (codes @ self.decoder) + self.center

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Return the features as the active units put them together again."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def start_at(self, x: Float[Tensor, "rows width"]) -> None:
        """Set b_pre to the mean of the features, and s to their distance from it."""
        self.center.copy_(x.mean(0))
        self.scale.copy_((x - self.center).square().sum(-1).mean().sqrt().clamp(min=1e-12))

    @torch.no_grad()
    def unexplained(self, x: Float[Tensor, "rows width"]) -> float:
        """Return the share of the features' variance that is lost: 0 is perfect, 1 the mean."""
        lost = (x - self(x)).square().sum()
        return float(lost / (x - x.mean(0)).square().sum())

    @torch.no_grad()
    def unit_length(self) -> None:
        """Bring every direction of the decoder back to length one."""
        self.decoder.copy_(F.normalize(self.decoder, dim=-1))


def fit_autoencoder(
    features: Float[Tensor, "rows width"],
    units: int = 768,
    k: int = 8,
    *,
    steps: int = 1500,
    batch_size: int = 1024,
    lr: float = 2e-3,
    restart_every: int = 150,
    seed: int = 0,
    progress: bool = True,
) -> SparseAutoencoder:
    """Return a `SparseAutoencoder` fitted to features; Ctrl-C keeps what was learned so far.

    Units that were active on no row since the last look are dead: nothing would ever teach them
    again. In the first two thirds of the steps they are restarted, each at the remainder of a row
    that is badly put together.

    Args:
        features: Rows, of one block and time step.
        units: How many directions.
        k: How many may be active.
        steps: Of Adam, with a learning rate that falls linearly to zero.
        batch_size: Rows per step.
        lr: The first learning rate.
        restart_every: Steps from one look at dead units to the next.
        seed: Of the first directions, the batches and the restarts.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: Fewer than two rows, numbers that are not finite, or k out of range.
    """
    if len(features) < 2 or not bool(features.isfinite().all()):
        raise ValueError(
            f"features {tuple(features.shape)}: need two rows or more, all of finite numbers"
        )
    x = features.detach().float()
    model = SparseAutoencoder(x.shape[1], units, k, seed).to(x.device)
    model.start_at(x)
    numbers = torch.Generator().manual_seed(seed + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    fired = torch.zeros(units, dtype=torch.bool, device=x.device)
    with tqdm(range(1, steps + 1), desc="sparse autoencoder", disable=not progress) as bar:
        try:
            for step in bar:
                optimizer.param_groups[0]["lr"] = lr * (1 - (step - 1) / steps)
                rows = torch.randint(len(x), (batch_size,), generator=numbers).to(x.device)
                fired |= _learn(model, optimizer, x[rows])
                if step % restart_every == 0 or step == steps:
                    lost, dead = model.unexplained(x[rows]), (~fired).nonzero()[:, 0]
                    model.history.append({"step": step, "unexplained": lost, "dead": len(dead)})
                    bar.set_postfix(unexplained=f"{lost:.3f}", dead=len(dead), refresh=False)
                    if step <= steps * 2 / 3:
                        _restart(model, optimizer, dead, x[rows], numbers)
                    fired.zero_()
        except KeyboardInterrupt:
            tqdm.write("interrupted: the autoencoder is as it was learned so far")
    return model.requires_grad_(False)


def _learn(
    model: SparseAutoencoder, optimizer: torch.optim.Adam, x: Float[Tensor, "rows width"]
) -> Tensor:
    """Return which units were active, after one step on the rows."""
    with torch.enable_grad():
        codes = model.encode(x)
        lost = (x - model.decode(codes)).square().sum(-1).mean()
        optimizer.zero_grad()
        (lost / model.scale**2).backward()
    grad, unit = model.decoder.grad, model.decoder.detach()
    if grad is not None:  # what would only change a direction's length is left out
        grad -= (grad * unit).sum(-1, keepdim=True) * unit
    optimizer.step()
    model.unit_length()
    return (codes > 0).any(0)


@torch.no_grad()
def _restart(
    model: SparseAutoencoder,
    optimizer: torch.optim.Adam,
    dead: Tensor,
    x: Float[Tensor, "rows width"],
    numbers: torch.Generator,
) -> None:
    """Point dead units at remainders of rows, drawn in proportion to how badly they are rebuilt."""
    if len(dead) == 0:
        return
    remainder = (x - model(x)) / model.scale
    weight = remainder.square().sum(-1).cpu() + 1e-12
    rows = torch.multinomial(weight, len(dead), replacement=True, generator=numbers).to(x.device)
    directions = F.normalize(remainder[rows], dim=-1)
    model.decoder[dead] = directions
    model.encoder[dead] = directions
    model.bias[dead] = 0.0
    for parameter in (model.decoder, model.encoder, model.bias):
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[parameter][moment][dead] = 0.0
