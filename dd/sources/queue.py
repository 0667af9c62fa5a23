"""A queue of networks of every age, trained on the real images while the synthetic ones are optimised (IDM)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.rng import stream
from dd.train.functional import fill_, flat

if TYPE_CHECKING:
    from dd.types import Batches


class Member:
    """One network of the queue, its optimizer, and its accuracy on the batches that it was trained on since the last reset."""

    def __init__(self, net: nn.Module, born: int) -> None:
        self.net = net.eval().requires_grad_(False)
        self.born = born
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.right = torch.zeros((), dtype=torch.int64, device=next(net.parameters()).device)
        self.seen = 0

    @property
    def accuracy(self) -> Tensor:
        """A scalar in [0, 1]; 0 where it was not trained since the last reset."""
        return self.right / max(self.seen, 1)

    def momentum(self) -> dict[nn.Parameter, Tensor]:
        """Return the optimizer's buffers, made of zeros where there are none yet: the first step makes the same of both."""
        for parameter in self.net.parameters():
            self.optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        return {parameter: self.optimizer.state[parameter]["momentum_buffer"] for parameter in self.net.parameters()}

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Take one step of SGD on the mean cross-entropy of a batch."""
        self.net.train().requires_grad_(True)
        logits = self.net(x)
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, y).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.right += (logits.detach().argmax(1) == y).sum()
        self.seen += len(y)
        self.net.eval().requires_grad_(False)


class Queue:
    """Hand out one of the queue's networks, drawn uniformly at each step, and train some of them after it.

    It starts with three random networks. In step 0 and every `grow_every` steps a random one joins, and the oldest leaves once there are
    `size`. After each update, `fetch` different ones are drawn and take `train_steps` steps of SGD (0.01, momentum 0.9, weight decay 5e-4)
    each on `train_batch` real images, un-augmented, uniform over the whole train split. Every `reset_every` steps all forget their
    accuracies. Networks are in eval mode where they are looked through.

    make: returns network number k, a function of the number alone. Draws are functions of (seed, step).

    Differs from the released code: batches are drawn with replacement; the meters are reset by number of steps, there by the evaluations
    that happen at those steps.
    """

    START = 3

    def __init__(
        self,
        make: Callable[[int], nn.Module],
        seed: int,
        *,
        size: int = 100,
        grow_every: int = 30,
        fetch: int = 2,
        train_steps: int = 10,
        train_batch: int = 256,
        reset_every: int = 100,
    ) -> None:
        self._make = make
        self._seed = seed
        self._size = size
        self._grow_every = grow_every
        self._fetch = fetch
        self._train_steps = train_steps
        self._train_batch = train_batch
        self._reset_every = reset_every
        self._born = 0
        self._step = 0  # the next one to draw for
        self._current: Member | None = None
        self.members: list[Member] = []

    def draw(self, step: int) -> nn.Module:
        """Let a network join if it is time, and return the network of this step."""
        if not self._born:
            self._join(min(self.START, self._size))
        if step % self._grow_every == 0 and step == self._step:
            self._join(1)
        self._step = step + 1
        self._current = self.members[int(torch.randint(len(self.members), (), generator=stream(self._seed, "queue", step)))]
        return self._current.net

    @property
    def accuracy(self) -> Tensor:
        """Accuracy, in [0, 1], of the network that was drawn last, on its training batches since the last reset."""
        assert self._current is not None, "draw comes first"
        return self._current.accuracy

    def advance(self, net: nn.Module, batches: Batches) -> None:
        """Train some networks."""
        order = torch.randperm(len(self.members), generator=stream(self._seed, "fetch", self._step - 1))
        for which in order[: self._fetch].tolist():
            for _ in range(self._train_steps):
                batch = batches.real(self._train_batch)
                self.members[which].learn(batch.x, batch.y)
        if self._step % self._reset_every == 0:
            for member in self.members:
                member.right.zero_()
                member.seen = 0

    def _join(self, count: int) -> None:
        for _ in range(count):
            if len(self.members) == self._size:
                self.members.pop(0)
            self.members.append(Member(self._make(self._born), self._born))
            self._born += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return counters, and for all networks in their order: births and accuracies, weights and buffers, momentum."""
        meters = [[member.born, int(member.right), member.seen] for member in self.members]
        state = {"counters": torch.tensor([self._born, self._step]), "meters": torch.tensor(meters, dtype=torch.int64).view(-1, 3)}
        if self.members:
            state["weights"] = torch.stack([flat(member.net.state_dict().values()) for member in self.members])
            state["momentum"] = torch.stack([flat(member.momentum().values()) for member in self.members])
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take everything back."""
        self._born, self._step = state["counters"].tolist()
        self.members = []
        for place, (born, right, seen) in enumerate(state["meters"].tolist()):
            member = Member(self._make(born), born)
            fill_(member.net.state_dict().values(), state["weights"][place])
            fill_(member.momentum().values(), state["momentum"][place])
            member.right += right
            member.seen = seen
            self.members.append(member)

