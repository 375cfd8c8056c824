from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment
from pydantic import ValidationError
from torch import Tensor, nn

from search.data import epoch_generator, mixed_seed
from search.errors import InputError
from search.processes import GlobalBatchNorm2d
from search.strategies.base import Context
from search.strategies.darts import Darts, DartsSettings
from search.strategies.differentiable import Batch
from search.training import (
    ComputeSettings,
    cosine,
    launched_processes,
    load_precision_state,
    make_fabric,
    precision_name,
    precision_state,
    prepare,
    set_up,
    update,
)
from tests.search import tiny

HALF = ComputeSettings(device="cpu", precision="16-mixed", threads=1)
SLURM = {
    "SLURM_JOB_NAME": "search",
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "node[1-2]",
    "SLURM_STEP_ID": "0",
}
"""What the last of four tasks on two machines sees."""


def test_seeds_and_threads_that_cannot_be() -> None:
    with pytest.raises(InputError, match="--seed: -1 is no seed; allowed: 0 to 2147483647"):
        set_up(tiny.COMPUTE, -1)
    with pytest.raises(InputError, match="allowed: 0 to 2147483647"):
        set_up(tiny.COMPUTE, 10**400)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ComputeSettings(threads=0)


def test_cosine_goes_from_start_to_end() -> None:
    assert cosine(0.0, 0.5, 0.1) == 0.5
    assert cosine(1.0, 0.5, 0.1) == pytest.approx(0.1, abs=1e-15)
    assert cosine(0.5, 0.5, 0.1) == pytest.approx(0.3)
    assert cosine(1 / 3, 1.0, 0.0) == pytest.approx(0.75)


def test_mixed_seeds_keep_their_numbers() -> None:
    """The numbers that runs before this function was shared were drawn with, from NumPy's SeedSequence."""
    assert mixed_seed(0, 0) == 7896617691693857887
    assert mixed_seed(3, 7, bits=32) == 2580024465
    assert epoch_generator(3, 7, bits=32).initial_seed() == mixed_seed(3, 7, bits=32)


def test_mixed_seeds_of_neighbours_differ() -> None:
    for bits in (32, 63):
        found = {mixed_seed(seed, epoch, bits=bits) for seed in range(20) for epoch in range(20)}  # type: ignore[arg-type]
        assert len(found) == 400


# ---- processes


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No launcher in the environment."""
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", *SLURM):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_launcher_there_is_one_process(alone: pytest.MonkeyPatch) -> None:
    assert launched_processes() == (1, 1)
    assert make_fabric(tiny.COMPUTE).world_size == 1


def test_slurm_tells_the_processes_and_fabric_takes_its_place_among_them(alone: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        alone.setenv(name, value)
    alone.delenv("MASTER_ADDR", raising=False)
    assert launched_processes() == (4, 2)
    fabric = make_fabric(tiny.COMPUTE)
    environment = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
    assert isinstance(environment, SLURMEnvironment)
    environment.validate_settings(num_devices=2, num_nodes=2)
    assert environment.main_address == "node1"
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank, fabric.node_rank) == (4, 3, 1, 1)


def test_a_slurm_job_must_say_its_tasks_a_machine(alone: pytest.MonkeyPatch) -> None:
    """Fabric cannot number the processes without."""
    for name, value in SLURM.items():
        alone.setenv(name, value)
    alone.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(InputError, match="--ntasks-per-node"):
        make_fabric(tiny.COMPUTE)


def test_a_batch_script_without_srun_does_not_wait_for_tasks_that_never_come(
    alone: pytest.MonkeyPatch,
) -> None:
    for name, value in SLURM.items():
        alone.setenv(name, value)
    alone.delenv("SLURM_STEP_ID")
    with pytest.raises(InputError, match="4 tasks, and srun did not start this one.*start it with srun"):
        make_fabric(tiny.COMPUTE)


def test_tasks_of_a_job_named_like_a_shell_do_not_run_alone(alone: pytest.MonkeyPatch) -> None:
    """As ``srun bash script.sh`` names it: Fabric would make each of them rank 0 of one."""
    for name, value in (SLURM | {"SLURM_JOB_NAME": "bash"}).items():
        alone.setenv(name, value)
    with pytest.raises(InputError, match="named bash each of the 4 tasks would run alone.*--job-name"):
        make_fabric(tiny.COMPUTE)
    alone.delenv("SLURM_STEP_ID")  # someone types into the shell of an allocation
    assert launched_processes() == (1, 1)


def test_torchrun_inside_a_slurm_job_goes_first(alone: pytest.MonkeyPatch) -> None:
    launched = {"RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (SLURM | launched | {"TORCHELASTIC_RUN_ID": "run"}).items():
        alone.setenv(name, value)
    assert launched_processes() == (2, 2)
    fabric = make_fabric(tiny.COMPUTE)
    assert (fabric.world_size, fabric.global_rank) == (2, 1)


def test_a_slurm_job_of_one_task_runs_alone(alone: pytest.MonkeyPatch) -> None:
    for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_PROCID": "0"}).items():
        alone.setenv(name, value)
    assert launched_processes() == (1, 1)
    assert make_fabric(tiny.COMPUTE).world_size == 1


def test_one_process_keeps_its_batch_norms() -> None:
    network = prepare(set_up(tiny.COMPUTE, 0), nn.Sequential(nn.BatchNorm2d(3)))
    assert not isinstance(network[0], GlobalBatchNorm2d)


# ---- float16


def squares(fabric: Fabric, size: float, clip: float) -> tuple[nn.Parameter, Tensor]:
    """One step of learning rate 1 on size * |w|^2 / 2 from w = (3, 4): the new w, and its gradient at the step."""
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimiser = torch.optim.SGD([weight], 1.0)
    fabric.backward(size * weight.square().sum() / 2)
    update(fabric, optimiser, [weight, nn.Parameter(torch.zeros(2))], clip)
    assert weight.grad is not None
    return weight, weight.grad


@pytest.mark.parametrize("compute", [tiny.COMPUTE, HALF], ids=["float32", "float16"])
def test_clipping_sees_gradients_without_the_loss_scale(compute: ComputeSettings) -> None:
    """The gradient (3, 4) has norm 5: clipped to 1 it is (0.6, 0.8), under 7 it stays."""
    _, clipped = squares(set_up(compute, 0), 1.0, clip=1.0)
    torch.testing.assert_close(clipped, torch.tensor([0.6, 0.8]))
    for clip in (0.0, 7.0):
        weight, kept = squares(set_up(compute, 0), 1.0, clip)
        torch.testing.assert_close(kept, torch.tensor([3.0, 4.0]))
        torch.testing.assert_close(weight.detach(), torch.zeros(2))


def test_an_infinite_gradient_skips_the_step_and_halves_the_loss_scale() -> None:
    fabric = set_up(HALF, 0)
    before = precision_state(fabric)["scale"]
    weight, _ = squares(fabric, math.inf, clip=1.0)
    assert weight.tolist() == [3.0, 4.0]
    assert precision_state(fabric)["scale"] == before / 2


def test_the_loss_scale_is_put_back() -> None:
    fabric, other = set_up(HALF, 0), set_up(HALF, 0)
    squares(fabric, math.inf, clip=0.0)
    load_precision_state(other, precision_state(fabric))
    assert precision_state(other) == precision_state(fabric)
    assert precision_state(set_up(tiny.COMPUTE, 0)) == {}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_fabric_gets_the_precision_of_the_settings(precision: Any) -> None:
    """On a CPU Fabric alone would put bfloat16 in float16's place."""
    fabric = make_fabric(ComputeSettings(device="cpu", precision=precision, threads=1))
    assert precision_name(fabric) == precision


class Watched(Darts):
    """DARTS that notes the type of the first convolution's output in alpha steps and in weight steps."""

    def __init__(self, context: Context, settings: DartsSettings) -> None:
        super().__init__(context, settings)
        self.phase = "weights"
        self.types: dict[str, set[torch.dtype]] = {"alphas": set(), "weights": set()}
        stem = self.learner.network.get_submodule("stem.stem.0")
        stem.register_forward_hook(lambda _, __, y: self.types[self.phase].add(y.dtype))

    def alpha_step(self, train: Batch, validation: Batch) -> None:
        """As DARTS's own."""
        self.phase = "alphas"
        super().alpha_step(train, validation)
        self.phase = "weights"


@pytest.mark.parametrize(
    ("precision", "half", "order"),
    [("16-mixed", torch.float16, 1), ("16-mixed", torch.float16, 2), ("bf16-mixed", torch.bfloat16, 1)],
)
def test_weights_learn_in_half_precision_and_alphas_in_float32(
    precision: Any, half: torch.dtype, order: Any
) -> None:
    """One epoch in each precision loses about as much as in float32."""
    losses = {}
    for chosen in ("32-true", precision):
        fabric = set_up(ComputeSettings(device="cpu", precision=chosen, threads=1), 0)
        space = tiny.settings().space.model_copy(update={"form": "darts", "binary": False, "batch_size": 8})
        images = tiny.images(count=8, size=8)
        settings = DartsSettings(epochs=1, order=order, alpha_learning_rate=0.03, alpha_weight_decay=0.0)
        strategy = Watched(Context(fabric, images, images, space, 0), settings)
        losses[chosen] = strategy.step(0)[0]["loss_child"]
    assert strategy.types == {"alphas": {torch.float32}, "weights": {half}}
    assert losses[precision] == pytest.approx(losses["32-true"], abs=0.02)
    assert losses[precision] != losses["32-true"]
    assert all(parameter.dtype == torch.float32 for parameter in strategy.learner.network.parameters())
