"""Moving an account to another device from the command line."""

import stat

import pytest


@pytest.fixture
def paper(folder):
    path = folder / "paper"
    path.write_text("on paper\n")
    path.chmod(0o600)
    return path


def test_export_and_import(e2ecall, register, relay, folder, passphrase_file, paper, bob):
    """ACCOUNT-01: an exported account goes on in another store, with its contacts and a new id."""
    dora = register("dora")
    assert e2ecall("message", "bobby", "hello", *dora.options).code == 0
    file, store = folder / "dora.export", folder / "moved.db"
    secret = ["--export-passphrase", paper]
    done = e2ecall("export", file, *secret, *dora.options, "--json")
    assert done.events == [{"event": "exported", "address": dora.address, "file": str(file)}]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = e2ecall("export", file, *secret, *dora.options)
    assert (again.code, "nothing is replaced" in again.stderr) == (1, True)

    options = ["--store", store, "--passphrase-file", passphrase_file]
    wrong = e2ecall("import", file, "--export-passphrase", passphrase_file, "--relay", relay,
                    *options)  # fmt: skip
    assert (wrong.code, wrong.stdout) == (1, "")
    assert "the passphrase does not open this export\nhint: " in wrong.stderr
    assert not store.exists()

    done = e2ecall("import", file, *secret, "--relay", relay, *options, "--json")
    assert done.events == [{"event": "imported", "address": dora.address, "store": str(store)}]
    assert e2ecall("devices", *options).stdout == "device 2  (this one)\n"
    assert e2ecall("contacts", *options).stdout == f"not verified  {bob.address}\n"
    assert e2ecall("message", "bobby", "me again", *options).code == 0
    former = e2ecall("policy", "everyone", *dora.options)
    assert (former.code, "this log-in is not valid" in former.stderr) == (1, True)
    refused = e2ecall("import", file, *secret, *options)
    assert (refused.code, "belongs to" in refused.stderr) == (1, True)
    assert store.exists()


def test_other_files(e2ecall, relay, folder, passphrase_file, paper):
    """ACCOUNT-03: a file that is no export is refused, and no store is left behind."""
    store = folder / "never.db"
    done = e2ecall("import", passphrase_file, "--export-passphrase", paper, "--relay", relay,
                   "--store", store, "--passphrase-file", passphrase_file)  # fmt: skip
    assert (done.code, "not an exported account" in done.stderr) == (1, True)
    assert not store.exists()
