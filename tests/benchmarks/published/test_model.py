import pytest
import torch

from benchmarks.published.model import PublishedSMPLer, attend
from smpler.models.attention import MultiHeadAttention
from smpler.models.weights.checkpoint import load_model
from tests.support import standin

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-10}


@pytest.fixture(scope="module")
def double_model(standin_arrays):
    state = standin.published_state_dict("smpler", "w32")
    regressor = standin.keypoint_regressor("h36m")
    return load_model("smpler", state, standin_arrays, regressor).double()


def test_baseline_gives_our_numbers_at_every_stage(double_model):
    images = standin.images() * double_model.std + double_model.mean
    with torch.no_grad():
        ours = double_model(images, all_stages=True)
        baseline = PublishedSMPLer(double_model)(images)
    assert len(ours) == len(baseline) == 4
    for stage, (mine, plain) in enumerate(zip(ours, baseline, strict=True)):
        for field, value in vars(plain).items():
            error = (getattr(mine, field) - value).abs().max().item()
            assert error < 1e-6, (stage, field, error)


def test_baseline_shares_parameters_and_their_names(double_model):
    baseline = PublishedSMPLer(double_model)
    ours, theirs = (dict(m.named_parameters()) for m in (double_model, baseline))
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)
    assert double_model.state_dict().keys() == baseline.state_dict().keys()


def random(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_without_keys_and_values_gives_the_same_answers_and_gradients(
    dtype, window, dropout
):
    torch.manual_seed(0)
    attention = MultiHeadAttention(128, 4, dropout).to(dtype).train()
    for name in ("query", "key", "value"):
        torch.nn.init.normal_(getattr(attention, name).bias, std=0.5)
    batch, num_queries, num_tokens = (48, 1, 64) if window else (2, 26, 784)
    queries = random(batch, num_queries, 128, seed=1, dtype=dtype)
    context = random(batch, num_tokens, 128, seed=2, dtype=dtype)
    bias = random(batch, 4, 1, num_tokens, seed=3, dtype=dtype) if window else None
    weight = random(batch, num_queries, 128, seed=4, dtype=dtype) / num_tokens
    inputs = [x.requires_grad_() for x in (queries, context, bias) if x is not None]
    inputs += [p for p in attention.parameters() if p.requires_grad]
    found = []
    for formulation in (attention, lambda *given: attend(attention, *given)):
        torch.manual_seed(5)  # the same probabilities are dropped
        answer = formulation(queries, context, bias)
        found.append([answer.detach(), *torch.autograd.grad((answer * weight).sum(), inputs)])
    for number, (ours, published) in enumerate(zip(*found, strict=True)):
        error = (ours - published).abs().max() / published.abs().max().clamp(min=1)
        assert error < TOLERANCE[dtype], (number, error.item())


def test_scores_are_not_kept_for_the_backward_pass():
    attention = MultiHeadAttention(128, 4, dropout=0.1).train()
    queries, context = torch.randn(1, 26, 128), torch.randn(1, 784, 128, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention(queries, context)
    one_score_map = 4 * 26 * 784 * 4
    beyond_inputs = sum(kept.values()) - context.numel() * 4 - 3 * 128 * 128 * 4
    assert beyond_inputs < one_score_map, (beyond_inputs, one_score_map)
