"""Make the environments of peers: `python -m benchmarks.serving.setup mlflow flask`, or `all`.

Each has one of its own under `.bench/`, so that nothing of theirs gets in the way of ours.
"""

import argparse
import shutil
import subprocess
import sys

from benchmarks.serving.peers import PEERS, Peer


def install(peer: Peer) -> None:
    """Make a peer's environment, or make it anew.

    Raises:
        subprocess.CalledProcessError: when pip cannot install it; it has said why.
    """
    if peer.requirements is None:
        return
    folder = peer.environment
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)  # noqa: S603 - ours
    pip = [peer.program("python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--requirement", str(peer.requirements)], check=True)  # noqa: S603 - ours
    (folder / "ready").touch()


def main() -> None:
    """Install the peers that are named."""
    own = [name for name, peer in PEERS.items() if peer.requirements is not None]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="+", choices=[*own, "all"], metavar="NAME", help=f"{', '.join(own)}, or all"
    )
    given = parser.parse_args().names
    failed = []
    for name in own if "all" in given else given:
        print(f"{name}: installing into {PEERS[name].environment}", flush=True)
        try:
            install(PEERS[name])
        except subprocess.CalledProcessError as error:
            failed.append(f"{name}: {error}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
