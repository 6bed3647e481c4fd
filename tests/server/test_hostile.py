"""Requests that no honest client sends: the server answers others all the while."""

from __future__ import annotations

import asyncio

import pytest


@pytest.mark.slow
def test_the_server_goes_on_under_hostile_requests(serve):
    pytest.importorskip("httpx", reason="needs httpx, part of [dev]")
    from tools.bench.serve import attack

    with serve(header_seconds=2.0, idle_seconds=2.0) as server:
        slowest, failures = asyncio.run(attack(server.url, 100))
        assert failures == 0
        assert slowest < 5  # on a busy machine; tools/bench/serve.py --hostile measures it
