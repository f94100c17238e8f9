import pytest
import torch

from cifarfast import exporting
from cifarfast.model import build_model


def test_onnx_agrees_with_torch_and_disagreement_is_seen() -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    program = exporting.Program(build_model(dropout=0.0, seed=0), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    exported = torch.export.export(program, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    content = exporting._onnx(exported)
    assert exporting._check(content, program) < 1e-4
    with torch.no_grad():
        program.model.head.weight.neg_()
    with pytest.raises(exporting.UserError, match="other classes"):
        exporting._check(content, program)
