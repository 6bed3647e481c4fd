"""Distributions against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import bdtr, ndtr, stdtr, stdtrit

from asr.scoring.distributions import (
    compute_heads_share,
    compute_normal_share,
    compute_student_share,
    find_student_quantile,
)

FREEDOM = st.sampled_from([1, 2, 3, 5, 10, 30, 100, 1000, 100_000])


@given(st.floats(-30, 30))
def test_the_normal_distribution_is_scipys(z):
    assert compute_normal_share(z) == pytest.approx(ndtr(z), rel=1e-12, abs=0)


@given(FREEDOM, st.floats(-60, 60) | st.floats(-0.01, 0.01))
def test_students_distribution_is_scipys(freedom, t):
    assert compute_student_share(freedom, t) == pytest.approx(stdtr(freedom, t), rel=1e-9, abs=1e-290)


@given(FREEDOM, st.floats(1e-6, 1 - 1e-6))
def test_students_quantiles_are_scipys(freedom, share):
    assert find_student_quantile(freedom, share) == pytest.approx(
        stdtrit(freedom, share), rel=1e-9, abs=1e-12
    )


@given(st.data(), st.integers(1, 100) | st.integers(1, 200_000))
def test_throws_of_a_coin_are_scipys(data, throws):
    most = data.draw(st.integers(0, throws))
    assert compute_heads_share(most, throws) == pytest.approx(bdtr(most, throws, 0.5), rel=1e-8, abs=1e-290)
