"""examples/pipeline: DataFusion writes, a trainer follows over Flight, and the store has everything, in little."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.harness import BINARY

PROGRAM = Path(BINARY).with_name("pipeline")


@pytest.mark.skipif(not PROGRAM.exists(), reason="is built with the workspace, beside the server")
def test_a_trainer_has_the_features_of_a_query_before_it_is_done(tmp_path):
    command = [PROGRAM, "--forebay", BINARY, "--scale", "0.02", "--work", tmp_path, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads(run.stdout)
    times = told["forebay"]
    assert told["rows_of_epochs"] == [told["rows"]] * 4 and told["rows"] > 100_000
    assert times["start_to_first_training_batch"] < times["start_to_commit"] < times["start_to_end_of_epoch_2"]
    assert told["objects_verified"] >= 1 and told["loss"]["epoch_2"] < told["loss"]["before"]
