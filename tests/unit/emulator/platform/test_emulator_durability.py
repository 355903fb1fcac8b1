"""Of a store that grows, what was saved is there when the database is opened next, in whatever way it has changed."""

import pytest
from ministack import app

from emulator.ministack.state import durability
from emulator.ministack.state.series import Growing


class Store:
    """A module of MiniStack that has series only."""

    def __init__(self, *series):
        self.series = list(series)

    def load_persisted_state(self, state):
        assert state == {}


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Give the store of a server that starts, and that server's `Durability`."""
    growing = Growing((), lambda store: iter(store.series), lambda store, *series: store.series.append(series))
    monkeypatch.setattr(durability, "GROWING", {"fake": growing})
    monkeypatch.setattr(durability, "_CHUNK", 2)

    def open_database(*series):
        store = Store()
        monkeypatch.setattr(app, "_get_module", lambda name: store)
        server = durability.Durability(tmp_path / "state.db")
        server.restore(lambda text: text)
        store.series += series
        return store, server

    return open_database


@pytest.mark.parametrize("later", [[], [*"abcdef"], [*"abxcde"], [*"edcba"], [*"bcde"]])
def test_a_series_is_what_it_is_now(opened, later):
    other = (["other"], None, ["y"])
    store, server = opened((["s"], 1, [*"abcde"]), other)
    server.save(["fake"])
    store, server = opened()
    assert store.series == [(["other"], None, ["y"]), (["s"], 1, [*"abcde"])]
    store.series[1] = (["s"], 2, later)
    server.save(["fake"])
    assert opened()[0].series == [other, (["s"], 2, later)]
