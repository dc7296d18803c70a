"""Whether networks trained in one program go faster than one after the other.

    python -m benchmarks.vmapped --record

Supervised steps (forward, backward, SGD) of 1, 2, 4, ... networks of equal shapes on batches of their own:
each network's step for itself, and all in one by ``torch.func.vmap`` over their weights. Convolutions of
several networks become grouped ones there. On a GPU both are captured as a graph, so that launching is
not what is compared; ``benchmarks.packing`` measures processes side by side, the third way. The figure is
the time of a network's step in the one program over that for itself: below 1 the program is faster.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from benchmarks.convolutions import at_once
from benchmarks.records import keep
from benchmarks.turns import in_turns, is_there, repeated
from ssl_core.models.wide_resnet import WideResNet, build_model
from ssl_core.names import PRECISIONS
from ssl_core.training.device import set_up_process

RECORD = Path(__file__).with_name("vmapped.json")
SETTINGS = {"digits": ("wrn-10-1", 1, 8), "cifar10": ("wrn-28-2", 3, 32)}
"""Network, channels, side of an image."""
BATCH_SIZE = 50
CLASSES = 10
RATE = 1e-3


def main() -> None:
    """Measure each number of networks, print, and with ``--record`` write down."""
    options = _options()
    if not is_there(options.device):
        return
    set_up_process(options.threads)
    for setting in options.settings.split(","):
        rows = [measure(setting, int(count), options) for count in options.counts.split(",")]
        for row in rows:
            print(as_text(setting, row), flush=True)
        if options.record:
            precision = "" if options.precision == "float32" else f", {options.precision}"
            keep(RECORD, f"{setting} on {options.device}{precision}", {"rows": rows})


def measure(setting: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds of a network's step, for itself and in one program with the others."""
    model, channels, side = SETTINGS[setting]
    device = torch.device(options.device)
    networks = [
        build_model(
            model,
            in_channels=channels,
            num_classes=CLASSES,
            generator=torch.Generator().manual_seed(number),
        ).to(device)
        for number in range(count)
    ]
    images = torch.randn(count, BATCH_SIZE, channels, side, side, device=device)
    labels = torch.randint(CLASSES, (count, BATCH_SIZE), device=device)
    loops = {}
    for name, run in (
        ("alone", one_after_the_other(networks, images, labels)),
        ("together", in_one_program(networks, images, labels)[0]),
    ):
        loops[name] = repeated(at_once(in_precision(run, options.precision, device), device))
    taken = in_turns(loops, steps=options.steps, turns=options.turns, device=options.device)
    ratios = [one / other for one, other in zip(taken["together"], taken["alone"], strict=True)]
    return {
        "networks": count,
        "milliseconds": {
            name: round(1000 * statistics.median(own) / count, 2) for name, own in taken.items()
        },
        "together_over_alone": round(statistics.median(ratios), 2),
    }


def in_precision(
    run: Callable[[], None], precision: str, device: torch.device
) -> Callable[[], None]:
    """Return a run whose passes are in that precision."""

    def cast() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            run()

    return cast


def one_after_the_other(
    networks: list[WideResNet], images: Tensor, labels: Tensor
) -> Callable[[], None]:
    """Return what takes a step of each network: images (K, B, ...), labels (K, B)."""

    def run() -> None:
        for network, own_images, own_labels in zip(networks, images, labels, strict=True):
            weights = list(network.parameters())
            loss = cross_entropy(network(own_images), own_labels)
            _descend(weights, list(torch.autograd.grad(loss, weights)))

    return run


def in_one_program(
    networks: list[WideResNet], images: Tensor, labels: Tensor
) -> tuple[Callable[[], None], dict[str, Tensor]]:
    """Return what takes the same steps of copies of the networks, all in one call, and their weights."""
    shape = networks[0]
    weights, buffers = stack_module_state(networks)  # type: ignore[arg-type]
    stacked = {name: weight.detach() for name, weight in weights.items()}

    def loss(own: dict[str, Tensor], state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = functional_call(shape, (own, state), (x,))
        return cross_entropy(logits, y)

    gradients_of = vmap(grad(loss))

    def run() -> None:
        gradients = gradients_of(stacked, buffers, images, labels)
        _descend(list(stacked.values()), [gradients[name] for name in stacked])

    return run, stacked


@torch.no_grad()
def _descend(weights: list[Tensor], gradients: list[Tensor]) -> None:
    torch._foreach_add_(weights, gradients, alpha=-RATE)


def as_text(setting: str, row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    spent = ", ".join(f"{name} {ms:.2f} ms" for name, ms in row["milliseconds"].items())
    return (
        f"{setting:<8} {row['networks']} networks: {spent} a network's step; together over alone "
        f"{row['together_over_alone']:.2f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", default="digits")
    parser.add_argument("--counts", default="1,2,4,8")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
