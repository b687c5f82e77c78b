"""What the process that runs day and night carries in its memory."""

from __future__ import annotations

from storetools import python

OF_OTHER_COMMANDS = ("rich", "xml.etree", "matplotlib", "pandas")
OF_SCAN_PROCESSES = ("ml_dtypes", "torch", "scipy", "h5py", "onnx")
OF_UPGRADES = ("alembic", "mako")


def test_a_daemon_carries_nothing_that_only_other_commands_or_scan_processes_need() -> None:
    unwanted = OF_OTHER_COMMANDS + OF_SCAN_PROCESSES + OF_UPGRADES
    program = (
        "import sys\n"
        "from layerwatch.daemon import app, cli\n"
        "print([name for name in sys.argv[1:] if name in sys.modules])\n"
    )
    printed, complaint = python(program, *unwanted).communicate(timeout=120)
    assert (printed.strip(), complaint) == ("[]", "")
