"""The loop with a per-class optimizer against the literal loop over classes, and what comes after an update."""

import torch

from dd.distill import Loop
from dd.optim import PerClassSGD
from dd.parameterizations.multiformation import MultiFormation
from dd.sources.population import Population
from dd.types import Run

CLASSES = 4


def loss_of(images, labels, step, c):
    """Return the loss of a class, of its own pixels."""
    mine = images[labels == c]
    return ((mine - 0.1 * (c + step)) ** 2).sum() * (1 + c) + mine.prod()


def run_of(start, labels, steps, after=None, seen=None):
    made = MultiFormation(start, labels, 0.01, factor=1, low=0.0, high=0.4)

    def term(step, net):
        return sum(loss_of(made.decode(torch.arange(len(labels))), labels, step, c) for c in range(CLASSES))

    return Run(
        finish=lambda: None,
        parameterization=made,
        term=term,
        source=Population(lambda number: None),
        batches=lambda step: step,
        optimizer=PerClassSGD(made.parameters(), labels, CLASSES, 0.5),
        iterations=steps,
        after=after and (lambda batches, net: after(made)),
    )


def test_the_loop_equals_one_step_a_class(tmp_path):
    labels = torch.arange(CLASSES).repeat_interleave(2)
    start = torch.rand(len(labels), 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    run = run_of(start, labels, 6)
    Loop(run, tmp_path / "state", {}).descend(lambda: False, 60, lambda step: None)
    literal = start.clone().requires_grad_(True)
    sgd = torch.optim.SGD([literal], lr=0.01, momentum=0.5)
    for step in range(6):
        with torch.no_grad():
            literal.clamp_(0.0, 0.4)
        for c in range(CLASSES):
            sgd.zero_grad()
            loss_of(literal, labels, step, c).backward()
            sgd.step()
    torch.testing.assert_close(run.parameterization.images, literal, rtol=1e-10, atol=1e-12)


def test_what_remembers_sees_the_updated_images(tmp_path):
    labels = torch.arange(CLASSES)
    start = torch.rand(CLASSES, 1, 2, 2, dtype=torch.float64)
    seen = []
    run = run_of(start, labels, 1, after=lambda made: seen.append(made.images.detach().clone()))
    Loop(run, tmp_path / "state", {}).descend(lambda: False, 60, lambda step: None)
    assert len(seen) == 1 and torch.equal(seen[0], run.parameterization.images) and not torch.equal(seen[0], start.clamp(0, 0.4))


def test_a_run_that_says_it_is_done_ends_with_a_row_of_its_last_step(tmp_path):
    labels = torch.arange(CLASSES)
    run = run_of(torch.rand(CLASSES, 1, 2, 2), labels, 1000)
    count = iter(range(1000))
    run.source.advance = lambda net, batches: next(count)
    done = []
    run.after = lambda batches, net: done.append(1)
    run.done = lambda: len(done) >= 7
    loop = Loop(run, tmp_path / "state", {})
    loop.descend(lambda: False, 60, lambda step: None)
    assert loop.step == 7 and [row["step"] for row in loop.rows] == [0, 6]
