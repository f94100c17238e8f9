import json
import os
from dataclasses import asdict

import torch

from cifarfast.device import open_device
from cifarfast.fingerprint import take_fingerprint
from cifarfast.runtime import Runtime, allowed_cores


def test_it_is_stable_and_says_what_matters() -> None:
    device = open_device(Runtime(device="cpu"), lambda _: None)
    first, second = take_fingerprint(device), take_fingerprint(device)
    assert first == second
    json.dumps(asdict(first))
    assert first.packages["torch"] == torch.__version__.partition("+")[0]
    assert first.gpu is None
    assert 1 <= first.cores_allowed <= (os.cpu_count() or 1)
    assert first.cores_allowed == allowed_cores()
    assert (first.git_commit is None) == (first.git_dirty is None)
