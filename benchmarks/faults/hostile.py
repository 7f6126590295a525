"""Hostile workers and hostile SSH settings: what do they make this program write, delete or print?

Every case runs in a folder of its own that holds things of a user's. The folder is looked at before
and after: what differs outside our own folder is a finding, and so is a traceback, an error of more
than one line, or one that a terminal would obey.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import impostor
import ssh_boards
import ssh_server
from worker_kits import fake_kit, files_of

from hwnas.measuring import client, here
from hwnas.settings.errors import HwnasError

OURS = "hwnas-worker"
LONGEST = 1200  # characters of an error
QUICK = 4  # cases of each kind

Lies = list[Any]


def bars(quick: bool) -> list[dict[str, Any]]:
    """A bar for hostile replies and one for hostile SSH settings: findings, none are allowed."""
    found = []
    with tempfile.TemporaryDirectory(prefix="hwnas-hostile-") as scratch:
        cases = REPLIES[:: len(REPLIES) // QUICK] if quick else REPLIES
        wrong = [_reply(Path(scratch) / f"r{i}", *case) for i, case in enumerate(cases)]
        found.append(_bar(f"hostile worker replies, of {len(cases)}", wrong))
        cases_ = SETTINGS[:: len(SETTINGS) // QUICK] if quick else SETTINGS
        with _server(Path(scratch)) as config:
            if config is None:
                return [*found, _bar("hostile SSH settings: no OpenSSH server here", ["not run"])]
            wrong = [_setting(Path(scratch) / f"s{i}", config, *c) for i, c in enumerate(cases_)]
        found.append(_bar(f"hostile SSH settings, of {len(cases_)}", wrong))
    return found


def _bar(name: str, wrong: list[str]) -> dict[str, Any]:
    reasons = [reason for reason in wrong if reason]
    for reason in reasons:
        print(f"{name}: {reason}", file=sys.stderr)
    return {"name": name, "value": len(reasons), "limit": 0, "holds": not reasons}


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[Path | None]:
    """The ssh configuration of a running server; None without one."""
    if not os.access(ssh_server.SSHD, os.X_OK):
        yield None
        return
    with ssh_server.server(folder / "sshd") as config:
        yield config


# ---- what is looked at -------------------------------------------------------------------------


def _tree(folder: Path, but: tuple[str, ...]) -> dict[str, Any]:
    """What lies below a folder, and of what kind and content it is, but for some names of ours."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(name == own or name.startswith(own + "/") for own in but):
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else path.lstat().st_mode
    return found


def _precious(folder: Path, names: tuple[str, ...]) -> None:
    """Things of a user's."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")


def _try(folder: Path, own: tuple[str, ...], what: Callable[[], Any], must_fail: bool) -> str:
    """What went wrong while something hostile was done to us; empty for nothing."""
    before, said = _tree(folder, own), ""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            what()
        if must_fail:
            return "was believed"
    except HwnasError as error:
        said = str(error)
        if must_fail and error.exit_code != 4:
            return f"ends with {error.exit_code}: {said[:100]}"
    except Exception:  # the finding: an error that is not one of ours
        return "traceback: " + traceback.format_exc().strip().splitlines()[-1]
    text = said + shown.getvalue()
    if not said.isprintable() or len(said) > LONGEST or "\x1b" in text:
        return f"says {said[:100]!r}"
    after = _tree(folder, own)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return f"changed {sorted(changed)[:3]}" if changed else ""


# ---- replies -----------------------------------------------------------------------------------


def _reply(folder: Path, request: str, lies: Lies) -> str:
    folder.mkdir()
    _precious(folder, ("home/a", "home/bin/b", "project/hwnas.yaml", "project/runs/c", "x.onnx"))
    asked = impostor.asked(request, folder)
    wrong = _try(folder, ("m.jsonl",), lambda: asked(lies), must_fail=True)
    lines = (folder / "m.jsonl").read_text().splitlines() if (folder / "m.jsonl").exists() else []
    kept = [line for line in lines if "kit" not in json.loads(line)]
    wrong = wrong or (f"kept {kept[0][:80]}" if kept else "")
    return f"{request} {str(lies)[:80]}: {wrong}" if wrong else ""


def _record(request: str, **fields: Any) -> tuple[str, Lies]:
    answer: Lies = [{"type": "done"}] if request == "energy" else []
    return request, [{"type": "record", "record": fields}, *answer]


def _done(request: str, **fields: Any) -> tuple[str, Lies]:
    return request, [{"type": "ready" if request == "hello" else "done", **fields}]


ESCAPE = "\x1b]0;owned\x07\x1b[2J\r\n" + "x" * 900
REPLIES: list[tuple[str, Lies]] = [
    _record("energy", id=["k", "a", 0, "anchor-000"], ms=1e-9),
    _record("energy", ms=1e-9),
    _record("energy", energy_mj=-5.0),
    _record("energy", rails={"../../x": "much"}),
    _record("energy", item="../../../etc/passwd"),
    _record("energy", probe={"words": "x" * 20_000}),
    _done("energy", energy_s="soon"),
    _record("measure", item="@item", id=["k", "b", 0, "anchor-000"]),
    _record("measure", item="../../home/a"),
    _record("measure", item="@item", failed={"code": "", "text": ""}),
    _record("measure", item="@item", ms=0),
    _record("measure", item="@item", loops=10**12),
    _record("measure", item="@item", role="heldout"),
    ("measure", [{"type": "progress", "item": "../../home/a", "opened": 1, "of": 1}]),
    ("measure", [{"type": "record", "record": [1, 2]}]),
    _done("measure", left=["../../home/a"]),
    _done("measure", failed={"anchor-000": ESCAPE}),
    _done("measure", open_s=1e300),
    _done("kit", missing=["../../home/a"]),
    _done("kit", missing=["f" * 64]),
    _done("kit", missing=[["x"]]),
    _done("kit", missing=7),
    _done("probe", environment={"fingerprint": "../../home/a"}),
    _done("probe", environment={"cpu": ESCAPE}),
    _done("probe", environment=None),
    _done("cold", load_ms=-1),
    _done("cold", first_run_ms=None),
    _done("cold", input_shape="wide"),
    _done("run", shape=[1 << 40, 1 << 40]),
    _done("run", shape=[2, 1]),
    _record("run", offset=-4, data="AACAPw=="),
    _record("run", offset=0, data="\x00"),
    _done("clean", folder=7),
    _done("clean", freed_bytes=-1),
    ("clean", [{"type": "error", "code": "InfeasibleError", "text": ESCAPE}]),
    ("clean", [{"type": "error", "code": "__builtins__", "text": ESCAPE}]),
    _done("hello", limits={}),
    ("hello", [1 << 24, "\x1b[2Jnot json"]),
    ("hello", ["[" * 200_000]),
    ("put", [{"type": "done", "have": 10**9}]),
]


# ---- SSH settings and cache folders ------------------------------------------------------------


def _setting(folder: Path, config: Path, words: str, way: dict[str, str], make: Any) -> str:
    """A campaign's connection, and cleaning afterwards, with one setting or cache that is hostile.

    Args:
        folder: of this case.
        config: ssh configuration that reaches the board.
        words: what it is, for people.
        way: keys of `ssh:`; `@` stands for the folder.
        make: puts hostile things into the cache folder.
    """
    cache = folder / "cache"
    _precious(folder, ("home/a", "elsewhere/a", "cache/bin/a", "cache/lock", "cache/kits/a"))
    given = {"address": "board-a", "config": str(config), "python": sys.executable}
    given |= {
        "cache": str(cache),
        **{key: value.replace("@", str(folder)) for key, value in way.items()},
    }
    with contextlib.suppress(OSError):
        make(cache)
    kit = fake_kit(folder / "kit")
    target = replace(ssh_boards.board(folder, config), connection={"ssh": given})

    def use() -> None:
        with client.connect(target, "a campaign") as worker:
            worker.probe()
            worker.send_kit(kit, files_of(kit, folder / "kit"))
        here.clean(target)

    own = _own(folder, given["cache"])
    wrong = _try(folder, own, use, must_fail=False)
    return f"{words}: {wrong}" if wrong else ""


def _own(folder: Path, cache: str) -> tuple[str, ...]:
    """Our folder below the case's, where what is there is ours; the cache folder may be made."""
    path = Path(os.path.normpath(cache))
    place = path / OURS
    if len(path.name) > 255:
        return ()
    if place.is_symlink() or (place.exists() and not (place / ".hwnas").is_file()):
        return ()
    inside = place.is_relative_to(folder)
    made = [] if path.exists() else [path, *path.parents]
    names = [place, *(each for each in made if each != folder and each.is_relative_to(folder))]
    return tuple(each.relative_to(folder).as_posix() for each in names) if inside else ()


def _owned(ours: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Something hostile at a place inside our own marked folder."""

    def put(cache: Path) -> None:
        place = cache / OURS / ours
        place.parent.mkdir(parents=True, exist_ok=True)
        (cache / OURS / ".hwnas").write_text("")
        make(place)

    return put


def _link(to: str) -> Callable[[Path], Any]:
    return lambda place: place.symlink_to(Path(os.path.relpath(_case(place) / to, place.parent)))


def _case(place: Path) -> Path:
    return next(parent for parent in place.parents if parent.name == "cache").parent


def _text(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("precious")


def _nothing(cache: Path) -> None:
    """The cache holds a user's things only."""


def _at(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda cache: make(cache / name)


def _future(cache: Path) -> None:
    for number in range(9):
        place = cache / OURS / "bin" / f"{number:064x}.pyz"
        _text(place)
        os.utime(place, (4e9, 4e9))
    (cache / OURS / ".hwnas").write_text("")


SHELL = ("$(touch @/owned)", "`touch @/owned`", "x; touch @/owned", "x' ; touch '@/owned", "x\n")
DEVICE = "devices/board-a"
SETTINGS: list[tuple[str, dict[str, str], Callable[[Path], Any]]] = [
    ("a cache with things of others", {}, _nothing),
    *((f"cache {word!r}", {"cache": f"@/cache/{word}"}, _nothing) for word in SHELL),
    *((f"python {word!r}", {"python": word}, _nothing) for word in SHELL),
    ("cache with ..", {"cache": "@/cache/../elsewhere/../cache"}, _nothing),
    ("cache with spaces", {"cache": "@/cache/a b/ c"}, _nothing),
    ("cache is a link", {"cache": "@/cache/link"}, _at("link", _link("elsewhere"))),
    ("cache is a file", {"cache": "@/home/a"}, _nothing),
    ("cache below a file", {"cache": "@/home/a/b"}, _nothing),
    ("cache is a device", {"cache": "/dev/null"}, _nothing),
    ("cache in /proc", {"cache": "/proc/1"}, _nothing),
    ("cache -rf", {"cache": "-rf"}, _nothing),
    ("cache too long", {"cache": "@/" + "x" * 700}, _nothing),
    ("python -c", {"python": "-c"}, _nothing),
    ("python cat", {"python": "cat"}, _nothing),
    ("python true", {"python": "true"}, _nothing),
    ("python sh", {"python": "sh"}, _nothing),
    ("address -o", {"address": "-oProxyCommand=touch @/owned"}, _nothing),
    ("address ;", {"address": "board-a; touch @/owned"}, _nothing),
    ("config missing", {"config": "@/nowhere"}, _nothing),
    ("ours is a link", {}, _at(OURS, _link("elsewhere"))),
    ("ours is a dead link", {}, _at(OURS, _link("nowhere"))),
    ("ours is a file", {}, _at(OURS, _text)),
    ("ours is of others", {}, _at(f"{OURS}/bin/program", _text)),
    ("the marker is a link", {}, _at(f"{OURS}/.hwnas", _link("home/a"))),
    ("bin is a link", {}, _owned("bin", _link("cache/bin"))),
    ("bin is a file", {}, _owned("bin", _text)),
    ("programs of the future", {}, _future),
    ("lock is a link", {}, _owned(f"{DEVICE}/lock", _link("home/a"))),
    ("devices is a link", {}, _owned("devices", _link("elsewhere"))),
    ("device is a link", {}, _owned(DEVICE, _link("elsewhere"))),
    ("kits is a link", {}, _owned(f"{DEVICE}/kits", _link("elsewhere"))),
    ("blobs is a link", {}, _owned(f"{DEVICE}/blobs", _link("elsewhere"))),
    ("blobs is a file", {}, _owned(f"{DEVICE}/blobs", _text)),
]
