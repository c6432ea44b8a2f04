import pytest
import torch

from losslab.errors import LabError
from losslab.targets import Kind, choose_kind, encode


def test_encode_to_the_same_kind_returns_the_target_itself():
    target = torch.tensor([0, 2])
    assert encode(target, Kind.INDEX, Kind.INDEX, 3, torch.float32) is target


@pytest.mark.parametrize("wanted", [Kind.PROBABILITIES, Kind.BINARY])
def test_encode_turns_indices_into_columns_of_0_and_1(wanted):
    columns = encode(torch.tensor([0, 2]), Kind.INDEX, wanted, 3, torch.float64)
    assert columns.dtype == torch.float64
    assert columns.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("index", [-1, -100, 3])
def test_encode_turns_an_index_out_of_range_into_a_row_of_nan(index):
    columns = encode(torch.tensor([1, index]), Kind.INDEX, Kind.PROBABILITIES, 3, torch.float32)
    assert columns[0].tolist() == [0, 1, 0]
    assert columns[1].isnan().all()


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("wanted", list(Kind))
def test_encode_refuses_any_other_conversion(kind, wanted):
    possible = kind is wanted or (kind is Kind.INDEX and wanted in {Kind.PROBABILITIES, Kind.BINARY})
    assert (choose_kind(kind, (wanted,)) is not None) == possible
    if not possible:
        with pytest.raises(LabError, match="without losing or inventing"):
            encode(torch.zeros(2, 3), kind, wanted, 3, torch.float32)


def test_choose_kind_prefers_the_kind_of_the_data_to_a_conversion():
    assert choose_kind(Kind.INDEX, (Kind.PROBABILITIES, Kind.INDEX)) is Kind.INDEX
    assert choose_kind(Kind.INDEX, (Kind.VALUES, Kind.BINARY, Kind.PROBABILITIES)) is Kind.BINARY


def test_encode_works_under_vmap():
    labels = torch.tensor([[0, 1], [2, 0]])
    batched = torch.func.vmap(lambda y: encode(y, Kind.INDEX, Kind.PROBABILITIES, 3, torch.float32))(labels)
    assert torch.equal(batched, torch.nn.functional.one_hot(labels, 3).float())
