"""A profiled space of a modelled machine whose energies are known, its power replayed."""

from hwnas.fakes.runtimes import fake
from hwnas.measuring import energy as campaign
from hwnas.measuring import kit as kits
from hwnas.measuring import remote
from hwnas.measuring.records import open_log
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.tables import fit
from profilers.schema import Target, read_lines

SPACE = spaces.load("tiny").restricted([8])
SETTINGS = ProfileConfig(budget_s=30, heldout=10, rounds=10)


def silent(text, share):
    assert 0 <= share <= 1


def metered_target(folder):
    """A modelled machine whose power is recorded, and replayed as its meter."""
    log = str(folder / "power.csv")
    connection = {"kind": "local", "power_log": log}
    return Target(
        "fake", "fake", meter="replay", meter_options={"path": log}, connection=connection
    )


def true_mj(key):
    """Energy of an op on the modelled machine."""
    return fake.op_mj(key) + (fake.IDLE_W + fake.RUN_W) * fake.op_ms(key)


class Campaign:
    """A profiled space: kit, measurements with energy, table."""

    def __init__(self, folder):
        self.folder, self.target = folder, metered_target(folder)
        self.info = kits.make_kit(SPACE, folder / "kit", 1, SETTINGS)
        self.path = folder / "m.jsonl"
        found = remote.run_campaign(self.target, self.info.folder, self.path, SETTINGS, silent)
        self.environment = found.environment
        self.result = self.run()
        self.table = self.fitted()

    def log(self, path=None):
        return open_log(path or self.path, self.target, self.environment, self.info.hash)

    def run(self, log=None, settings=SETTINGS, **options):
        files = {i["sha256"]: self.info.folder / i["file"] for i in self.info.kit["items"]}
        log = self.log() if log is None else log
        return campaign.run_energy(
            self.target, self.info.kit, files, log, settings, silent, **options
        )

    def fitted(self, records=None):
        header, *lines = read_lines(self.path)[0]
        return fit.fit_table(SPACE, self.info.kit, header, records or lines, 0)
