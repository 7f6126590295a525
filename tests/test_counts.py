"""Tables of counts against the exact costs of whole networks."""

import numpy as np
import pytest

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.settings.errors import TableError
from hwnas.tables import table
from hwnas.tables.exact import COUNTS, count_table


@pytest.mark.parametrize("name", ["tiny", "mbv3-28", "ofa-mbv3-w10"])
def test_rows_add_up_to_the_exact_costs_of_every_network(name):
    space = spaces.load(name)
    rows = count_table(space).rows
    rng = np.random.default_rng(0)
    for _ in range(20):
        arch = space.random(rng)
        mine = [rows[placed.op.key] for placed in arch.ops]
        found = {rule: sum(row[rule] for row in mine) for rule in COUNTS}
        found["peak_activation_bytes"] = max(row["peak_activation_bytes"] for row in mine)
        assert found == exact_costs(arch)


def test_the_command_writes_a_table_that_is_shown_but_never_prices_a_latency(tmp_path, capsys):
    out = tmp_path / "counts.json"
    for arguments in (["counts", "tiny", "--resolutions", "8,16", "--out", out], ["show", out]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["table", *map(str, arguments)])
        assert not ended.value.code
    said = capsys.readouterr().out
    assert "counts are exact" in said
    assert "peak activation bytes" in said
    found = table.load_table(out)
    assert found.resolutions == (8, 16)
    space = spaces.load("tiny").restricted([8])
    with pytest.raises(TableError, match="holds exact counts and no latency"):
        table.check_serves(found, space)
    with pytest.raises(TableError, match="search has macs"):
        table.network_latency(found, space.largest)
