import pytest
import torch

from losslab.errors import LabError
from losslab.targets import Kind, choose, encode


def test_a_target_that_is_wanted_as_it_is_stays_itself():
    target = torch.tensor([0, 2])
    assert encode(target, Kind.INDEX, Kind.INDEX, 3, torch.float32) is target


@pytest.mark.parametrize("kind", [Kind.PROBABILITIES, Kind.BINARY])
def test_indices_become_columns_of_zero_and_one(kind):
    columns = encode(torch.tensor([0, 2]), Kind.INDEX, kind, 3, torch.float64)
    assert columns.dtype == torch.float64
    assert columns.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("index", [-1, -100, 3])
def test_an_index_outside_the_classes_poisons_its_row_alone(index):
    columns = encode(torch.tensor([1, index]), Kind.INDEX, Kind.PROBABILITIES, 3, torch.float32)
    assert columns[0].tolist() == [0, 1, 0]
    assert columns[1].isnan().all()


@pytest.mark.parametrize("given", list(Kind))
@pytest.mark.parametrize("wanted", list(Kind))
def test_nothing_else_is_translated(given, wanted):
    possible = given is wanted or (given is Kind.INDEX and wanted in {Kind.PROBABILITIES, Kind.BINARY})
    assert (choose(given, (wanted,)) is not None) == possible
    if not possible:
        with pytest.raises(LabError, match="without losing or inventing"):
            encode(torch.zeros(2, 3), given, wanted, 3, torch.float32)


def test_a_loss_gets_its_own_kind_before_a_translated_one():
    assert choose(Kind.INDEX, (Kind.PROBABILITIES, Kind.INDEX)) is Kind.INDEX
    assert choose(Kind.INDEX, (Kind.VALUES, Kind.BINARY, Kind.PROBABILITIES)) is Kind.BINARY


def test_encoding_works_under_vmap():
    labels = torch.tensor([[0, 1], [2, 0]])
    batched = torch.func.vmap(lambda y: encode(y, Kind.INDEX, Kind.PROBABILITIES, 3, torch.float32))(labels)
    assert torch.equal(batched, torch.nn.functional.one_hot(labels, 3).float())
