"""What cannot stand in for dropped experts is refused in one line; all that is said is hashed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Constants, Merged, refuse_malformed

KEEP = np.array([[True, False, True, False], [False, True, True, True]])
INTO = np.array([[0, 0, 2, 2], [3, 1, 2, 3]])
WEIGHTS = np.array([[0.5, 0.5, 1, 0], [0.25, 1, 1, 0.75]], np.float32)
NEURONS = np.tile(np.array([2, 0, 1]), (2, 4, 1))
PLAIN = "5d1d9c195764026409f957cbd4506d0175ae077aeb11e071fb5bba1d92c5ed3c"
OUTPUTS = np.where(KEEP[..., None], 0, np.arange(5)).astype(np.float32)


def at(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


def test_well_formed_stand_ins_pass():
    for good in (
        Constants(OUTPUTS),
        Merged(INTO, WEIGHTS, NEURONS),
        Merged(at(INTO, (0, 3), -1), WEIGHTS, None, "sliced"),
    ):
        refuse_malformed(good, KEEP)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("nothing", "stand_in must be None, Constants or Merged, not 'nothing'"),
        (Constants(OUTPUTS.astype(float)), r"float32 \[2, 4, \?\], not float64 \[2, 4, 5\]"),
        (Constants(OUTPUTS[:, :, 0]), r"not float32 \[2, 4\]"),
        (Constants([[1.0]]), "must be an array float32 .* not list"),
        (Constants(at(OUTPUTS, (0, 1, 2), np.nan)), "expert 1 in layer 0 is not finite"),
        (Constants(at(OUTPUTS, (1, 3, 2), 1)), "expert 3 in layer 1 must be 0, as it is kept"),
        (Merged(INTO.astype(np.int32), WEIGHTS), "Merged.into must be int64"),
        (Merged(INTO[:, :3], WEIGHTS), r"Merged.into must be int64 \[2, 4\], not int64 \[2, 3\]"),
        (Merged(at(INTO, (0, 1), 4), WEIGHTS), "expert 1 in layer 0 must be -1 to 3"),
        (Merged(at(INTO, (0, 1), -2), WEIGHTS), "expert 1 in layer 0 must be -1 to 3"),
        (Merged(at(INTO, (0, 1), 3), WEIGHTS), "expert 1 in layer 0 must be a kept expert"),
        (Merged(at(INTO, (0, 2), 0), WEIGHTS), "expert 2 in layer 0 must be itself"),
        (Merged(at(INTO, (0, 3), -1), WEIGHTS), "expert 3 in layer 0 must not be -1"),
        (Merged(INTO, WEIGHTS.astype(float)), "Merged.weights must be float32"),
        (Merged(INTO, at(WEIGHTS, (1, 1), np.inf)), "expert 1 in layer 1 is not finite"),
        (
            Merged(at(INTO, (0, 1), -1), WEIGHTS, None, "sliced"),
            "weights of expert 1 in layer 0 must be 0 where `into` is -1",
        ),
        (Merged(INTO, WEIGHTS, at(NEURONS, (1, 2, 0), 1)), "expert 2 in layer 1 must be an order"),
        (Merged(INTO, WEIGHTS, NEURONS[:, :, 0]), "Merged.neurons must be int64"),
        (Merged(INTO, WEIGHTS, None, "full"), "must be 'mapped' or 'sliced', not 'full'"),
    ],
)
def test_malformed_stand_ins_are_refused_in_one_line(odd, message):
    with pytest.raises(ValueError, match=message) as caught:
        refuse_malformed(odd, KEEP)
    assert "\n" not in str(caught.value)


def test_the_hash_says_all_and_that_of_a_plain_mask_stays():
    plain = ExpertMask(KEEP)
    # sha256 of [4,[[0,2],[1,2,3]]], which is in the stores of users.
    assert plain.content_hash == PLAIN
    merged = Merged(INTO, WEIGHTS, NEURONS)
    different = [
        Constants(OUTPUTS),
        Constants(at(OUTPUTS, (0, 1, 1), 2)),
        merged,
        *(
            dataclasses.replace(merged, **change)
            for change in (
                {"into": at(INTO, (0, 1), 2)},
                {"weights": at(WEIGHTS, (0, 1), 0.6)},
                {"neurons": None},
                {"router": "sliced"},
            )
        ),
    ]
    masks = [plain, *(ExpertMask(KEEP, (), each) for each in different)]
    assert len({mask.content_hash for mask in masks}) == len(masks)
    again = ExpertMask(
        KEEP.copy(), ("a note",), Merged(INTO.copy(), WEIGHTS.copy(), NEURONS.copy())
    )
    assert again.content_hash == masks[3].content_hash


def test_what_does_the_same_has_the_same_hash():
    zeros = at(OUTPUTS, KEEP, -0.0)
    assert np.signbit(zeros).any()
    layouts = [OUTPUTS, zeros, np.asfortranarray(OUTPUTS), np.repeat(OUTPUTS, 2, axis=2)[..., ::2]]
    assert len({ExpertMask(KEEP, (), Constants(each)).content_hash for each in layouts}) == 1
