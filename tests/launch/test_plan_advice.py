"""What `glus plan` advises, with prices made up by hand."""

from collections.abc import Callable

from glus.launch.planning.plan_advice import Estimate, advice
from glus.training.run_config import RunConfig

GIB = 2**30


def priced(parameters: int, activations: int, stage_3_seconds: float) -> Callable[[RunConfig], Estimate]:
    """Whole parameters cost `parameters` GiB, each video `activations` GiB, or a fifth where they are recomputed.

    hpZ takes a quarter of the time of sending and its part of the parameters.
    """

    def estimate(config: RunConfig) -> Estimate:
        engine = config.engine
        held = parameters if engine.stage == 2 else 1
        each = activations / (5 if engine.gradient_checkpointing else 1)
        computing = 1.3 if engine.gradient_checkpointing else 1.0
        sending = 0.1 if engine.stage == 2 else stage_3_seconds
        if engine.hpz_partition_size > 1:
            held, sending = held + parameters / engine.hpz_partition_size, sending / 4
        return Estimate(int((held + each * engine.micro_batch_size) * GIB), computing, sending, int(sending * 1e9))

    return estimate


def advised(memory: int, parameters: int, activations: int, stage_3_seconds: float, nodes: int = 1) -> list[str]:
    config = RunConfig(global_batch_size=32)
    return advice(config, 8, nodes, memory * GIB, priced(parameters, activations, stage_3_seconds))


def test_room_for_everything_is_used_for_speed() -> None:
    lines = advised(80, parameters=14, activations=10, stage_3_seconds=0.5)
    assert lines[0].startswith(
        "engine.stage=2 engine.gradient_checkpointing=false engine.micro_batch_size=4: 54.0 of 72"
    )
    assert "it takes 30% more computing and saves 32.0 GiB, which are there" in lines[1]
    assert "ZeRO-2: a GPU receives 0.1 GB a step, 0.5 in stage 3" in lines[2]
    assert lines[3].startswith("engine.micro_batch_size=4: fewer micro-batches")


def test_activations_are_recomputed_where_they_do_not_fit() -> None:
    lines = advised(24, parameters=14, activations=30, stage_3_seconds=2.0)
    assert "engine.gradient_checkpointing=true engine.micro_batch_size=1" in lines[0]
    assert "without it 44.0 GiB do not fit 22" in lines[1]


def test_parameters_are_partitioned_where_they_do_not_fit_and_hpz_is_weighed_on_several_machines() -> None:
    lines = advised(24, nodes=4, parameters=40, activations=5, stage_3_seconds=2.0)
    assert lines[0].startswith("engine.stage=3")
    assert "sending takes 2.00 s, so it costs no time here" in lines[1]
    assert "ZeRO-3: stage 2 takes" in lines[2]
    assert lines[3] == (
        "hpZ (ZeRO++): engine.hpz_partition_size=2 does not fit 22 GiB; "
        "sending takes 0.50 instead of 2.00 s a step for 20.0 GiB"
    )
    lines = advised(40, nodes=4, parameters=40, activations=5, stage_3_seconds=2.0)
    assert lines[3].startswith("hpZ (ZeRO++): engine.hpz_partition_size=2: sending takes 0.50 instead of 2.00 s a step")
    assert lines[3].endswith("for 20.0 GiB; a step takes 1.30 s")
    lines = advised(48, nodes=4, parameters=40, activations=5, stage_3_seconds=0.9)
    assert lines[3].startswith(
        "hpZ (ZeRO++): not needed, computing takes 1.00 s; with engine.hpz_partition_size=2 sending"
    )
    lines = advised(24, nodes=8, parameters=40, activations=5, stage_3_seconds=2.0)
    assert lines[3] == "hpZ (ZeRO++): a machine with one GPU has none to share a copy of the parameters with"
    assert "hpZ (ZeRO++): not needed" in advised(80, nodes=4, parameters=14, activations=5, stage_3_seconds=2.0)[3]


def test_what_fits_nowhere_is_said() -> None:
    [line] = advised(8, parameters=40, activations=50, stage_3_seconds=2.0)
    assert line.startswith("nothing fits 7 GiB: engine.stage=3 engine.gradient_checkpointing=true")
