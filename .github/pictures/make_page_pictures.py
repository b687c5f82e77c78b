"""Takes pictures of the daemon's pages while version 5 of the demonstration's models is broken.

    PYTHONPATH=.src:tests/_lib .venv/bin/python .github/pictures/make_page_pictures.py FOLDER [NAME ...]

Each page is shown on a desktop and on a phone, three of them in the dark too; with names only those, such as
``version`` and ``version-phone``. Needs Chromium and the packages of ``layerwatch[demo,dev]``. Two minutes, or half of
one with TEST_DEMO_VERSIONS (see ``demofleet.py``).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from layerwatch_testing.browser import Scheme, Visitor, chromium
from layerwatch_testing.demofleet import demo_fleet, every_page

PAGES = {
    "fleet": "fleet",
    "model": "model",
    "version": "version",
    "layer": "layer",
    "compare": "compare",
    "alerts": "alerts",
    "status": "status",
    "act": "act-accept",
}
IN_THE_DARK = ("fleet", "version", "layer")
DESKTOP, PHONE = (1280, 900), (390, 844)


def pictures() -> dict[str, tuple[str, tuple[int, int], Scheme]]:
    """Name of each picture -> its address, size and colours."""
    addresses = every_page()
    found: dict[str, tuple[str, tuple[int, int], Scheme]] = {}
    for name, page in PAGES.items():
        found[name] = (addresses[page], DESKTOP, "light")
        found[f"{name}-phone"] = (addresses[page], PHONE, "light")
        if name in IN_THE_DARK:
            found[f"{name}-dark"] = (addresses[page], DESKTOP, "dark")
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="all without any")
    arguments = parser.parse_args()
    wanted = pictures()
    unknown = set(arguments.names) - wanted.keys()
    if unknown:
        parser.error(f"no picture is called {', '.join(sorted(unknown))}; there are {', '.join(wanted)}")
    with (
        TemporaryDirectory() as folder,
        demo_fleet(Path(folder)) as fleet,
        chromium() as browser,
    ):
        for name in arguments.names or wanted:
            address, size, scheme = wanted[name]
            with Visitor(browser, fleet.home, size=size, scheme=scheme) as visitor:
                visitor.open(address)
                visitor.screenshot(f"page-{name}", folder=arguments.folder, whole=False)
            print(f"wrote {arguments.folder / f'page-{name}.png'}")


if __name__ == "__main__":
    main()
