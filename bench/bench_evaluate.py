"""Evaluation, as after every epoch."""

import pytest
import torch

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import BASELINE, Layout, Mode, Precision, every_execution, execution, noise
from cifarfast.evaluation import evaluate
from cifarfast.model import build_model, flops_per_image
from cifarfast.recipe import Recipe


@pytest.mark.contest(group="evaluate", quick=5, full=7, baseline=BASELINE)
@every_execution("eager")
def bench_evaluate(lab: Lab, precision: Precision, layout: Layout, mode: Mode) -> Entrant:
    """One batch: normalisation, forward, loss and accuracy."""
    how = execution(lab, precision, layout, mode)
    device, images = how.device, how.batch_size
    batch, model = noise(device, images), device.place(build_model(Recipe(dropout=0.0), seed=0))
    mean, std = (device.send(torch.tensor(values)) for values in (lab.manifest.mean, lab.manifest.std))

    def once() -> None:
        evaluate(model, iter([batch]), device, mean=mean, std=std)

    facts = how.facts | {"flops": flops_per_image(Recipe())["forward"] * images}
    return Entrant(once=once, work=images, warm_up=2, facts=facts)
